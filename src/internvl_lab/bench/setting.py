"""What `bench step` measures: a model and samples, what trains, where, and in which precision.

small, tiny ── WORKLOADS ────────────────┐
mini ──────── conf/ at scale=mini ───────┼──> StepSetting
1b, 2b, 8b ── conf/model/internvl2_5_* ──┘     weights are random, samples synthetic: nothing is downloaded
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from internvl_lab.bench.samples import WORKLOADS, Workload
from internvl_lab.bench.timing import DEVICES
from internvl_lab.config import StageConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError

PUBLISHED = ("1b", "2b", "8b")
SIZES = (*WORKLOADS, "mini", *PUBLISHED)
STAGES = ("stage1", "stage2", "finetune_lora")
PRECISIONS = ("fp32", "bf16", "bf16-mixed")
"""`bf16` = parameters too; `bf16-mixed` = fp32 parameters under autocast."""
CHECKPOINTING = ("auto", "none", "full")

_SAMPLES = 36
"""Four packs of 16,384 tokens and 48 tiles, of 7 to 11 samples each."""
_MEDIAN_TEXT = 350
"""Text tokens of a sample; the four packs then fill both limits: 92 % of the tokens, 95 % of the tiles (seed 0)."""
_BATCH_SIZE = 4
"""Of the padded peers: what the authors' second fine-tuning scripts give a GPU. Source: spec section 3."""


@dataclass(frozen=True)
class StepSetting:
    """Describe one measurement of a training step."""

    workload: Workload
    device: str = "cpu"
    precision: str = "fp32"
    """One of `PRECISIONS`."""
    stage: StageConfig = field(default_factory=lambda: StageConfig(name="stage2", trainable=PARTS))
    """What trains; without dropout, which would give every variant another loss."""
    compiled: bool = False
    """Compile our layers; peers run as their users run them."""
    checkpointing: str = "auto"
    """Activations that ours recomputes: `none`, `full`, or `auto`, as little as fits into memory."""

    def __post_init__(self) -> None:
        """Refuse unknown choices and random masks."""
        choices = {"device": DEVICES, "precision": PRECISIONS, "checkpointing": CHECKPOINTING}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"--{name} {getattr(self, name)} must be one of {', '.join(allowed)}")
        if self.stage.drop_path_rate or (self.stage.lora.parts and self.stage.lora.dropout):
            raise ConfigError("drop path and the adapters' dropout must be 0: every variant would have another loss")

    @property
    def adapts(self) -> bool:
        """Say whether the stage trains adapters."""
        return bool(self.stage.lora.parts)


def find_setting(
    size: str, device: str, stage: str | None = None, precision: str | None = None, attention: str = "auto"
) -> StepSetting:
    """Compose the setting of a size.

    Args:
        size: one of `SIZES`.
        device: `cpu` or `cuda`.
        stage: one of `STAGES`; None = stage 2, or stage 1 for 8B, whose AdamW moments alone would take 32 GB.
        precision: None = fp32 on a CPU, bf16 on a GPU.
        attention: packed attention of ours, as in `model.attention`.
    Raises:
        ConfigError: an unknown choice.
    """
    from internvl_lab.config.compose import compose  # needs Hydra, which nothing else here does

    if size not in SIZES:
        raise ConfigError(f"--size {size} must be one of {', '.join(SIZES)}")
    stage = stage or ("stage1" if size == "8b" else "stage2")
    if stage not in STAGES:
        raise ConfigError(f"--stage {stage} must be one of {', '.join(STAGES)}")
    config = compose([f"stage={stage}", *([f"model=internvl2_5_{size}"] if size in PUBLISHED else [])])
    if size in WORKLOADS:
        workload = WORKLOADS[size]
    else:
        workload = Workload(config.model, pack_tokens=config.packing.max_tokens, pack_tiles=config.packing.max_tiles)
    if size in PUBLISHED:
        workload = replace(workload, num_samples=_SAMPLES, median_text=_MEDIAN_TEXT, batch_size=_BATCH_SIZE)
    precision = precision or ("bf16" if device == "cuda" else "fp32")
    model = replace(workload.model, attention=attention, dtype="bfloat16" if precision == "bf16" else "float32")
    chosen = config.stages[stage]
    quiet = replace(chosen, drop_path_rate=0.0, lora=replace(chosen.lora, dropout=0.0))
    return StepSetting(replace(workload, model=model), device, precision, quiet)
