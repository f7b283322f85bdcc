"""One training step, ours against peers: forward, backward, clipping and AdamW over the same samples.

| variant         | what                                                                                          |
|-----------------|-----------------------------------------------------------------------------------------------|
| `ours`          | packs, attention inside samples, logits on supervised rows only                               |
| `padded`        | transformers' model and loss on padded batches in arrival order: what its Trainer runs        |
| `length_sorted` | the same, batches of like length (`group_by_length`, with the whole set as one group)         |
| `hf_packed`     | our packs in transformers' own packed forward (the mask it builds itself), logits everywhere  |
| `recipe`        | the authors' recipe: our packs and attention kernel, all layers recomputed, logits everywhere |

All hold the same parameters and leave them as they are: the learning rate is 0, so the losses of the measured passes
themselves show that all variants compute the same thing. Speed is counted in real tokens (no padding) per second;
ratios are ours over the peer's, above 1 = ours is faster. MFU counts required operations only (`models.flops`), so
that padding, recomputation and superfluous logits lower it. CPU and GPU run the same code with another clock.
"""

from __future__ import annotations

from typing import Any

from internvl_lab.bench.peers import num_targets
from internvl_lab.bench.report import Report, check_same_loss
from internvl_lab.bench.samples import draw_samples
from internvl_lab.bench.setting import StepSetting
from internvl_lab.bench.timing import Reading, clock_for, interleave, median_peak_mib, spread
from internvl_lab.bench.variants import Variant, build_variants
from internvl_lab.data.encoding import Sample
from internvl_lab.errors import InternVLLabError
from internvl_lab.models import step_flops
from internvl_lab.models.attention import resolve
from internvl_lab.training.throughput import device_peak

LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "bf16-mixed": 2e-2}
"""Largest difference of two variants' mean loss (about 10): fp32 variants differ by 2e-6, bf16 rounds hidden states."""
OUT_OF_MEMORY = "out of memory"


def bench_step(setting: StepSetting, repeats: int = 3, seed: int = 0) -> Report:
    """Measure one pass over the samples with every variant, `repeats` times.

    A variant that does not fit into the GPU's memory recomputes activations, and is left out if that is not enough.

    Args:
        setting: model, samples, device.
        repeats: readings of each variant; medians and extremes are reported.
        seed: of weights, samples and packs.
    Raises:
        ConfigError: a device or an attention backend that is not there.
        InternVLLabError: ours runs out of memory, or the variants' losses differ, so that there is nothing to compare.
    """
    clock = clock_for(setting.device)
    with clock.session():
        samples = draw_samples(setting.workload, seed)
        variants = build_variants(setting, samples, clock.device, seed)
        fitting = {name: variant for name, variant in variants.items() if variant.settle(clock)}
        device = clock.describe()
        before = {name: lambda variant=variant: variant.prepare(clock) for name, variant in fitting.items()}
        readings = interleave({name: of.run_pass for name, of in fitting.items()}, repeats, clock, before)
    measured = {name: of for name, of in readings.items() if of}
    if "ours" not in measured:
        raise InternVLLabError(
            "ours runs out of memory: choose a smaller --size, or smaller --pack-tokens and --pack-tiles"
        )
    check_same_loss({name: of[0].value for name, of in measured.items()}, LOSS_TOLERANCE[setting.precision])
    work = _work(setting, samples)
    figures = {
        name: _figures(variant, measured[name], work) if name in measured else _failure(variant)
        for name, variant in variants.items()
    }
    ours = figures.pop("ours")
    speed = ours["tokens_per_s"]["median"]
    ratios = {name: speed / of["tokens_per_s"]["median"] for name, of in figures.items() if name in measured}
    described = _setting(setting, samples) | {"packs": len(variants["ours"].steps), "repeats": repeats, "seed": seed}
    return Report(device, ours, figures, ratios, described, clock.name)


def _work(setting: StepSetting, samples: list[Sample]) -> dict[str, float | None]:
    """Count what one pass has to do: the same for all variants."""
    lengths, tiles = [len(sample.input_ids) for sample in samples], sum(len(sample.tiles) for sample in samples)
    flops = step_flops(
        setting.workload.model,
        tokens=sum(lengths),
        sum_sq=sum(length**2 for length in lengths),
        tiles=tiles,
        supervised_rows=num_targets(samples),
        trainable=setting.stage.trainable,
        adapted=setting.stage.lora.parts,
    )
    peak = device_peak(setting.device, setting.precision != "fp32")
    return {"tokens": sum(lengths), "tiles": tiles, "s_at_peak": None if peak is None else flops / peak}


def _figures(variant: Variant, readings: list[Reading], work: dict[str, float | None]) -> dict[str, Any]:
    def per_second(name: str) -> dict[str, float] | None:
        """Divide work by time; None where the work is unknown."""
        amount = work[name]
        return None if amount is None else spread([amount / reading.time_s for reading in readings])

    return {
        "status": "ok",
        "tokens_per_s": per_second("tokens"),
        "tiles_per_s": per_second("tiles"),
        "mfu": per_second("s_at_peak"),
        "time_s": spread([reading.time_s for reading in readings]),
        "peak_mib": median_peak_mib(readings, total=True),
        "extra_peak_mib": median_peak_mib(readings),
        "recomputes": variant.recomputes,
        "padding": variant.padding,
        "loss": readings[0].value,
    }


def _failure(variant: Variant) -> dict[str, Any]:
    return {"status": OUT_OF_MEMORY, "recomputes": variant.recomputes, "padding": variant.padding}


def _setting(setting: StepSetting, samples: list[Sample]) -> dict[str, Any]:
    workload = setting.workload
    num_tokens = sum(len(sample.input_ids) for sample in samples)
    num_tiles = sum(len(sample.tiles) for sample in samples)
    return {
        "vision": workload.model.vision.name,
        "language": workload.model.language.name,
        "trains": setting.stage.learns,
        "precision": setting.precision,
        "attention": resolve(workload.model.attention, setting.device, setting.precision != "fp32").name,
        "compiled": setting.compiled,
        "samples": len(samples),
        "tokens": num_tokens,
        "tiles": num_tiles,
        "visual_share": round(num_tiles * workload.model.num_visual_tokens / num_tokens, 3),
        "supervised_share": round(num_targets(samples) / num_tokens, 3),
        "batch_size": workload.batch_size,
        "pack_tokens": workload.pack_tokens,
        "pack_tiles": workload.pack_tiles,
        "vocab_size": workload.model.language.vocab_size,
    }
