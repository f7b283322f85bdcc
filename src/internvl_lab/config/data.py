"""Settings of the data path: sources, tiling, augmentation, packing, loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from internvl_lab.config.checks import above_zero, at_least, share
from internvl_lab.constants import MAX_FRAMES, MIN_FRAMES
from internvl_lab.errors import ConfigError

VAL_MIXTURE = "val"
"""Name of the mixture that validation and evaluation read."""
COMMAND = "pipe:"
"""Beginning of `shards` that are what a shell command writes."""


@dataclass(frozen=True)
class TilingConfig:
    """Cut images into tiles. Source: InternVL 2.5, section 3.1."""

    tile_size: int = 448
    """Edge of a tile in pixels; equals `model.vision.image_size`."""
    num_visual_tokens: int = 256
    """Visual tokens of one tile; follows from the model (`ModelConfig.num_visual_tokens`)."""
    min_tiles: int = 1
    max_tiles: int = 12
    """Largest number of tiles of one sample's images, thumbnails not counted."""
    use_thumbnail: bool = True
    resize: str = "torch"
    """`torch` (uint8 antialiased bicubic, fast, within 3 levels of Pillow) or `pillow` (the authors' pixels)."""

    def __post_init__(self) -> None:
        """Refuse impossible limits."""
        at_least(self, "tiling", 1, "tile_size", "num_visual_tokens")
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ConfigError(f"tiling: min_tiles={self.min_tiles} and max_tiles={self.max_tiles} do not fit")
        if self.resize not in ("torch", "pillow"):
            raise ConfigError(f"tiling.resize={self.resize!r} must be torch or pillow")


@dataclass(frozen=True)
class JpegConfig:
    """Re-encode each tile as JPEG at a random quality. Source: InternVL 2.5, section 3.4; spec section 4."""

    enabled: bool = True
    min_quality: int = 75
    max_quality: int = 100
    backend: str = field(default="auto", repr=False)
    """Codec of all JPEG work: `fast` (extra `[fast]`), `pillow`, or `auto` = the first that is there. Same bits, so no
    part of the data's fingerprint (its repr)."""

    def __post_init__(self) -> None:
        """Refuse qualities outside 1..100 and unknown codecs."""
        if self.backend not in ("auto", "pillow", "fast"):
            raise ConfigError(f"data.jpeg.backend={self.backend!r} must be auto, pillow or fast")
        if not 1 <= self.min_quality <= self.max_quality <= 100:
            raise ConfigError(f"jpeg: qualities {self.min_quality}..{self.max_quality} must lie in 1..100")


@dataclass(frozen=True)
class PackingConfig:
    """Bound the packs. Source of 16384 and 48: InternVL 2.5, table 3."""

    max_tokens: int = 16384
    max_tiles: int = 48
    packs_per_step: int = 512
    """Packs in one optimizer step over all ranks; accumulation = packs_per_step / ranks."""
    block_size: int = 8192
    """Samples that are shuffled and packed together; the resume unit of the plan."""
    group_window: int = 8
    """Steps inside which packs of like cost are put into the same step; 1 = off."""
    policy: str = "pool"
    """`pool` (close to the lower bound), `official` (the authors' first-fit, to reproduce their packs) or `single` (one
    sample a pack, to see what packing saves)."""
    max_cost_ratio: float | None = None
    """Limit of a pack's cost, as a multiple of the block's mean pack; null = none. A value such as 1.05 trims the
    slowest ranks of a step for a few more packs; a sample that alone costs more has a pack to itself."""

    def __post_init__(self) -> None:
        """Refuse empty budgets."""
        at_least(self, "packing", 1, "max_tokens", "max_tiles", "packs_per_step", "block_size", "group_window")
        if self.policy not in ("pool", "official", "single"):
            raise ConfigError(f"packing.policy={self.policy!r} must be pool, official or single")
        if self.max_cost_ratio is not None and not (self.max_cost_ratio > 0 and self.policy == "pool"):
            raise ConfigError(
                f"packing.max_cost_ratio={self.max_cost_ratio} must be positive, and null for policy=official, single"
            )


@dataclass(frozen=True)
class SourceConfig:
    """Describe one source of a mixture."""

    shards: str = ""
    """WebDataset tars: a folder, URLs such as `https://host/mine/{000000..000009}.tar`, or `pipe:COMMAND`, a shell
    command that writes a tar; see `data.locations`."""
    stream: bool = False
    """Read the tars from front to back, without index, plan and exact resume (`data.stream`); `pipe:` always is."""
    repeat: float = 1.0
    """Repeat factor r in (0, 4]; fractions are drawn at random per epoch, never 'the first part'."""
    max_tiles: int | None = None
    """Tile limit of this source; null = `tiling.max_tiles`."""
    jpeg: bool = True
    """Whether JPEG augmentation may act on this source (the report: images yes, video no)."""
    tasks: tuple[str, ...] = ()
    """Keep only records whose `task` field is one of these; empty = all."""
    weight: float = 1.0
    """Factor on the loss weights of this source's tokens: 2 lets them pull twice as hard as `repeat: 1` alone."""
    min_frames: int = MIN_FRAMES
    max_frames: int = MAX_FRAMES
    """A video gives a number of frames between these, drawn anew in each epoch. Source: InternVL 2.5, section 4.1."""

    def __post_init__(self) -> None:
        """Refuse repeat factors outside (0, 4]. Source: InternVL 2.5, section 4.1."""
        if not 0 < self.repeat <= 4:
            raise ConfigError(f"data.mixture: repeat={self.repeat} must lie in (0, 4]")
        above_zero(self, "data.mixture", "weight")
        at_least(self, "data.mixture", 1, "max_tiles", "min_frames")
        if self.min_frames > self.max_frames:
            raise ConfigError(f"data.mixture: min_frames={self.min_frames} and max_frames={self.max_frames} do not fit")

    @property
    def is_streamed(self) -> bool:
        """Tell whether the source is read as a stream."""
        return self.stream or self.shards.startswith(COMMAND)


def is_streamed(sources: Mapping[str, SourceConfig]) -> bool:
    """Tell whether a mixture is read as a stream; `check_mixture` sees to it that all of its sources agree."""
    return any(source.is_streamed for source in sources.values())


def check_mixture(stage: str, name: str, mixtures: Mapping[str, Mapping[str, SourceConfig]]) -> None:
    """Refuse a mixture that a stage cannot read, as far as the configuration alone can tell.

    Args:
        stage, name: the stage and the value of its `mixture`.
        mixtures: `data.mixtures`.
    Raises:
        ConfigError: there is no such mixture, it has no source, it holds streamed and indexed sources, or the
            held-out mixture is streamed.
    """
    if not mixtures.get(name):
        raise ConfigError(
            f"stage {stage}: stage.mixture={name!r} is not in data.mixtures ({', '.join(mixtures) or 'empty'})"
            if name not in mixtures
            else f"stage {stage}: data.mixtures.{name} has no source"
        )
    streamed = [source for source, config in mixtures[name].items() if config.is_streamed]
    indexed = [source for source in mixtures[name] if source not in streamed]
    if streamed and indexed:
        raise ConfigError(
            f"data.mixtures.{name} mixes streamed sources ({', '.join(streamed)}) with indexed ones "
            f"({', '.join(indexed)}): stream all of them with stream=true, or none"
        )
    if is_streamed(mixtures.get(VAL_MIXTURE, {})):
        raise ConfigError(f"data.mixtures.{VAL_MIXTURE} is streamed: held-out data needs an index, so give it a folder")


@dataclass(frozen=True)
class MiniworldConfig:
    """Size of the embedded dataset."""

    seed: int = 0
    num_pretrain: int = 16000
    num_finetune: int = 24000
    num_text: int = 0
    """Text-only records for language pretraining: text-only questions and scenes told in words."""
    num_val: int = 1320
    """Samples of `val` over all tasks, equally many a task."""
    samples_per_shard: int = 1000
    tasks: tuple[str, ...] = ()
    """Tasks to generate; empty = all."""
    slow_tasks: tuple[str, ...] = ()
    """Tasks that `finetune` holds more often, because they are learned slowest: once more for each mention."""
    loop_share: float = field(default=0.0, repr=False)
    """Share of `finetune` whose answers loop; planted beside the sound split, so not in the repr that names its folder.
    """
    filtered: bool = field(default=False, repr=False)
    """Curate `finetune` before training on it: text rules at their default thresholds, no duplicates."""

    def __post_init__(self) -> None:
        """Refuse negative counts and empty shards."""
        at_least(self, "data.miniworld", 0, "seed", "num_pretrain", "num_finetune", "num_text", "num_val")
        at_least(self, "data.miniworld", 1, "samples_per_shard")
        share(self, "data.miniworld", "loop_share")


@dataclass(frozen=True)
class DataConfig:
    """Say what is read and how it is loaded."""

    mixtures: dict[str, dict[str, SourceConfig]] = field(default_factory=dict)
    """Named mixtures; a stage names the one it reads. Each maps source name to source."""
    miniworld: MiniworldConfig | None = None
    """When set, miniworld shards are generated under `paths.data_dir` before the first stage."""
    jpeg: JpegConfig = field(default_factory=JpegConfig)
    loss_averaging: str = "square"
    """`token`, `sample` or `square`. Source: InternVL 2.5, equation 5; spec section 5."""
    weight_unit: str = "sample"
    """Length that enters the weight: whole `sample` (authors' code) or single `response` (paper)."""
    region_targets: bool = False
    """Ask visual tokens for the words of the `regions` they look at; for pretraining a small encoder."""
    num_workers: int = 1
    prefetch_factor: int = 4
    journal: bool = False
    """Write the sample keys of every step to `journal.jsonl`."""
    max_bad_share: float = 0.01
    """Share of samples that may fail to decode before the run stops."""
    max_bad_in_row: int = 100
    allow_changed_data: bool = False
    """Resume although shards or settings differ from the checkpoint's; what changed is logged as a warning."""
    system_message: str | None = None
    """System turn; null = the report's."""
    long_samples: str = "skip"
    """What becomes of samples over the limits of a pack: `skip`, `truncate_text` (cut the end of the last answer) or
    `split` (between the rounds of a conversation). What still does not fit is skipped and named."""
    cache_dir: str = "~/.cache/internvl_lab"
    """Where copies of remote shards and their indexes lie."""
    cache_gb: float = 50.0
    """Most that the copies may take, in 10^9 bytes; should hold the shards of a few blocks of the plan."""

    def __post_init__(self) -> None:
        """Refuse unknown averaging modes and impossible limits."""
        at_least(self, "data", 0, "num_workers")
        at_least(self, "data", 1, "prefetch_factor", "max_bad_in_row")
        share(self, "data", "max_bad_share")
        if self.loss_averaging not in ("token", "sample", "square"):
            raise ConfigError(f"data.loss_averaging={self.loss_averaging!r} must be token, sample or square")
        if self.weight_unit not in ("sample", "response"):
            raise ConfigError(f"data.weight_unit={self.weight_unit!r} must be sample or response")
        if self.long_samples not in ("skip", "truncate_text", "split"):
            raise ConfigError(f"data.long_samples={self.long_samples!r} must be skip, truncate_text or split")
        if self.cache_gb <= 0:
            raise ConfigError(f"data.cache_gb={self.cache_gb} must be above 0")
