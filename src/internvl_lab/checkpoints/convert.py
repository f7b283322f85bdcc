"""Convert weights between formats, tensor by tensor.

sources ─ open_source ─> names, shapes ─ check ─> plan ─ read, split or fuse, write ─> a folder, whole or not at all
                                         │
                                         └─ unexpected, missing, mis-shaped: one error before any data is read

adapter   peft's, from the checkpoint of a LoRA stage
native    transformers' InternVLForConditionalGeneration, and ours; some parts alone: native keys, our config.json
official  the authors' `internvl_chat`; one part alone: an InternViT, a language model, or the projector
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from internvl_lab.checkpoints.adapters import checkpoint_lora, open_adapter, save_adapter
from internvl_lab.checkpoints.companions import (
    Companions,
    default_tiling,
    find_companions,
    save_chat_tokenizer,
    token_ids,
    write_companions,
    write_generation_config,
)
from internvl_lab.checkpoints.configs import OUR_KEY, our_fields, to_native_config
from internvl_lab.checkpoints.files import new_folder, write_json
from internvl_lab.checkpoints.names import OFFICIAL_ROOTS, official_tensors, to_official
from internvl_lab.checkpoints.official import (
    IMAGE_TOKEN_FROM_END,
    has_own_code,
    official_language_config,
    official_vision_config,
    to_official_config,
)
from internvl_lab.checkpoints.settings import Settings
from internvl_lab.checkpoints.sources import Source, open_source
from internvl_lab.checkpoints.tensors import CONFIG_FILE, PROVENANCE_FILE, check_fit, native_tensors, sha256_of
from internvl_lab.checkpoints.writer import MAX_SHARD_BYTES, Output, check_replaceable, write_weights
from internvl_lab.config import LanguageConfig, ModelConfig, TilingConfig, VisionConfig
from internvl_lab.constants import IMAGE_PLACEHOLDER, PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL, build_on_meta

log = logging.getLogger(__name__)

FORMATS = ("native", "official")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PROJECTOR_INPUT = "model.multi_modal_projector.linear_1.weight"


@dataclass(frozen=True)
class _Job:
    """Hold what is converted: which part from where, into what."""

    sources: Mapping[str, Source]
    """Part to its source."""
    model: InternVL
    """The whole model on the meta device; parts that are not converted have default sizes."""
    companions: Companions
    dtype: torch.dtype | None
    shapes: Mapping[str, Tensor]
    """Native key to an empty tensor, of all parts converted."""
    owners: Mapping[str, Source]
    """Native key to its source."""

    @property
    def parts(self) -> tuple[str, ...]:
        """List the parts, in the family's order."""
        return tuple(part for part in PARTS if part in self.sources)

    @property
    def is_whole(self) -> bool:
        """Say whether all parts are there."""
        return set(self.parts) == set(PARTS)


def convert(
    sources: Sequence[Path],
    out: Path,
    form: str,
    parts: Collection[str] = (),
    *,
    allow_pickle: bool = False,
    dtype: str | None = None,
    adapter: Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: bool = False,
) -> Path:
    """Convert weights into a folder; memory holds about one output file.

    Args:
        sources: folders or files, see `open_source`; each part comes from the first that has it.
        out: appears whole; an older one that this package wrote is replaced.
        form: `native` or `official`.
        parts: parts to convert; none given = all that the sources have.
        allow_pickle: also read .bin, .pt and .pth.
        dtype: `float32` or `bfloat16`; None = as stored, to the bit.
        adapter: folder of a LoRA adapter to merge into the weights.
        max_shard_bytes: most bytes of one output file.
        progress: show a bar.
    Returns:
        The folder.
    Raises:
        CheckpointError: tensors or settings that do not fit (all listed), pickle files, an impossible request, or
            files in `out` that would be lost.
        ConfigError: an unusable tokenizer.
        MissingWeightsError: a source without weights.
    """
    if form not in FORMATS:
        raise CheckpointError(f"format {form!r} must be one of {', '.join(FORMATS)}")
    if dtype is not None and dtype not in _DTYPES:
        raise CheckpointError(f"dtype {dtype!r} must be one of {', '.join(_DTYPES)}")
    check_replaceable(out, sources)
    opened = [open_source(path, allow_pickle) for path in sources]
    if adapter is not None:
        _merge(adapter, opened)
    job = _prepare(opened, parts, _DTYPES.get(dtype or ""))
    if form == "official" and not job.is_whole and len(job.parts) > 1:
        raise CheckpointError(f"the authors' format holds one part or all three, not {' and '.join(job.parts)}")
    outputs = _native_outputs(job) if form == "native" else _official_outputs(job)
    with new_folder(out) as new:
        write_weights(new, outputs, max_shard_bytes, progress)
        name = _dtype_name(outputs)
        content = _native_config(job, name) if form == "native" else _official_config(job, name)
        write_json(new / CONFIG_FILE, content)
        _write_companions(new, job, native=form == "native")
        facts = {"parts": list(job.parts), "dtype": name, "format": form, "weights_sha256": sha256_of(new)}
        origins = {part: str(source.path) for part, source in job.sources.items()}
        merged = {} if adapter is None else {"adapter": str(adapter)}
        write_json(new / PROVENANCE_FILE, {"converted_from": origins, **merged, **facts})
    return out


def export_adapter(checkpoint: Path, out: Path) -> Path:
    """Write the adapters in the checkpoint of a LoRA stage as peft reads them.

    Args:
        checkpoint: a resumable checkpoint, plain or sharded.
        out: appears whole; an older one that this package wrote is replaced.
    Raises:
        CheckpointError: it holds no adapters, or files in `out` would be lost.
    """
    check_replaceable(out, [checkpoint])
    source = open_source(checkpoint)
    if not source.adapters:
        raise CheckpointError(f"{checkpoint} holds no adapters: they are in the checkpoints of a LoRA stage")
    return save_adapter(source.adapters, checkpoint_lora(checkpoint), out)


def _merge(adapter: Path, sources: Sequence[Source]) -> None:
    """Add the adapters of a folder to the sources that hold their weights."""
    adapters = open_adapter(adapter)
    found = {key for source in sources for key in source.add(adapters)}
    if lost := [key for key in adapters if key not in found]:
        raise CheckpointError(
            f"{adapter}: {len(lost)} adapters belong to weights that are not there: {', '.join(lost[:10])}"
        )


def _prepare(sources: Sequence[Source], parts: Collection[str], dtype: torch.dtype | None) -> _Job:
    """Choose a source for each part, put their settings together and check every name and shape."""
    if unknown := [part for part in parts if part not in PARTS]:
        raise CheckpointError(f"parts {', '.join(unknown)}: known are {', '.join(PARTS)}")
    chosen = {part: source for source in reversed(sources) for part in source.parts}
    origins = " and ".join(str(source.path) for source in sources)
    if missing := [part for part in parts if part not in chosen]:
        raise CheckpointError(f"{origins}: no weights of {', '.join(missing)} there")
    chosen = {part: chosen[part] for part in PARTS if part in chosen and (not parts or part in parts)}
    known = _settings(sources, chosen)
    if unknown := [part for part in chosen if part not in ("projector", *known.parts)]:
        raise CheckpointError(f"{origins}: without a config.json nothing is known about the {', '.join(unknown)} part")
    companions = _companions(sources, chosen)
    held = [(key, shape, source) for source in sources for key, shape in _shapes(source, chosen).items()]
    shapes = {key: shape for key, shape, _ in held}
    known_widths = _with_widths(known, shapes, chosen)
    image_token_id = _image_token_id(companions, chosen, known_widths)
    model = build_on_meta(known_widths.model_config(), image_token_id)
    check_fit([(key, shape) for key, shape, _ in held], native_tensors(model, set(chosen)), origins)
    return _Job(chosen, model, companions, dtype, shapes, {key: source for key, _, source in held})


def _settings(sources: Sequence[Source], chosen: Mapping[str, Source]) -> Settings:
    """Put settings together: a part's own source first, then whoever describes it."""

    def told(part: str) -> Any:
        """Return what is known about one part; None where nobody describes it."""
        asked = [*([chosen[part]] if part in chosen else []), *sources]
        descriptions = (getattr(source.settings, part) for source in asked)
        return next((settings for settings in descriptions if settings is not None), None)

    return Settings(told("vision"), told("projector"), told("language"))


def _shapes(source: Source, chosen: Mapping[str, Source]) -> dict[str, Tensor]:
    """Return names and shapes of the parts that come from this source, and of what belongs to no part."""
    return source.shapes([part for part, owner in chosen.items() if owner is source])


def _companions(sources: Sequence[Source], chosen: Mapping[str, Source]) -> Companions:
    """Take the tokenizer from beside the language model, and the tiling from wherever it is told."""
    found = {source.path: find_companions(source.path) for source in sources}
    template = found[chosen["language"].path].template if "language" in chosen else None
    tilings = [companions.tiling for companions in found.values() if companions.tiling is not None]
    if "language" in chosen and template is None:
        log.warning("%s holds no tokenizer: weights and settings are converted without", chosen["language"].path)
    return Companions(template, tilings[0] if tilings else None)


def _image_token_id(companions: Companions, chosen: Mapping[str, Source], known: Settings) -> int:
    """Return the id of <IMG_CONTEXT>: what the tokenizer says, else the source, else vocabulary size - 7."""
    if companions.template is not None:
        return companions.template.context_id
    told = chosen["language"].settings.image_token_id if "language" in chosen else None
    return known.model_config().language.vocab_size - IMAGE_TOKEN_FROM_END if told is None else told


def _with_widths(known: Settings, shapes: Mapping[str, Tensor], chosen: Collection[str]) -> Settings:
    """Take the widths around a projector that comes alone from its own first matrix, (D, C / ratio^2)."""
    weight = shapes.get(_PROJECTOR_INPUT)
    if "projector" not in chosen or weight is None or weight.ndim != 2:
        return known
    width, fused = weight.shape
    ratio = known.model_config().projector.downsample_ratio
    if known.vision is None:
        known = replace(known, vision=VisionConfig(hidden_size=round(fused * ratio**2), num_attention_heads=1))
    if known.language is None:
        known = replace(known, language=LanguageConfig(hidden_size=width, num_attention_heads=1, num_key_value_heads=1))
    return known


def _native_outputs(job: _Job) -> list[Output]:
    """Plan the native format: the keys as they are."""
    return [
        Output(key, _as_written(job.shapes[key], job.dtype), partial(job.owners[key].read, key))
        for key in native_tensors(job.model, job.parts)
    ]


def _official_outputs(job: _Job) -> list[Output]:
    """Plan the authors' format; a part alone loses the first word of its names."""
    language = job.model.config.language
    root = "" if job.is_whole else OFFICIAL_ROOTS[job.parts[0]]
    outputs = []
    for tensor in official_tensors(list(native_tensors(job.model, job.parts)), language):

        def read(name: str = tensor.name, keys: tuple[str, ...] = tensor.keys) -> Tensor:
            """Read and fuse what makes this tensor."""
            return to_official(name, [job.owners[key].read(key) for key in keys], language)

        shape = to_official(tensor.name, [job.shapes[key] for key in tensor.keys], language)
        outputs.append(Output(tensor.name.removeprefix(root), _as_written(shape, job.dtype), read))
    return outputs


def _as_written(shape: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Give a shape the dtype in which it is written."""
    return shape if dtype is None or not shape.is_floating_point() else shape.to(dtype)


def _dtype_name(outputs: Sequence[Output]) -> str:
    """Return the dtype that all tensors have; float32 where they differ."""
    names = {str(output.shape.dtype).removeprefix("torch.") for output in outputs}
    return names.pop() if len(names) == 1 else "float32"


def _native_config(job: _Job, dtype: str) -> dict[str, Any]:
    """Write config.json: transformers' and ours for a whole model, ours alone for some parts."""
    ours = dtype if dtype in _DTYPES else "float32"  # what our model computes in when loaded
    if job.is_whole:
        return to_native_config(job.model, ours) | {"dtype": dtype}
    fields = our_fields(job.model.config, ours)
    kept = {part: fields[part] for part in job.parts}
    return {OUR_KEY: kept | {"parts": list(job.parts), "dtype": ours, "image_token_id": job.model.image_token_id}}


def _official_config(job: _Job, dtype: str) -> dict[str, Any]:
    """Write config.json in the authors' format; our key tells what theirs has no field for."""
    config: ModelConfig = job.model.config
    ids = token_ids(job.companions.template, config.language.vocab_size)
    ours = {OUR_KEY: {"image_token_id": job.model.image_token_id}}
    if job.is_whole:
        tiling = job.companions.tiling or default_tiling(config)
        own_code = has_own_code(job.sources["language"].path)
        return to_official_config(config, dtype, tiling, ids, own_code) | ours
    if job.parts == ("vision",):
        return official_vision_config(config.vision, dtype)
    if job.parts == ("language",):
        return official_language_config(config.language, dtype, ids) | ours
    return _native_config(job, dtype)


def _write_companions(folder: Path, job: _Job, native: bool) -> None:
    """Write what belongs beside the weights, as far as it is known."""
    if "language" not in job.sources:
        return
    template, source = job.companions.template, job.sources["language"].path
    write_generation_config(folder, token_ids(template, job.model.config.language.vocab_size))
    if template is not None:
        tiling: TilingConfig = job.companions.tiling or default_tiling(job.model.config)
        if job.is_whole:
            write_companions(folder, template, tiling, native)
        else:
            save_chat_tokenizer(folder, template, IMAGE_PLACEHOLDER, named=False)
    if not native and job.is_whole and has_own_code(source):
        for file in source.glob("*.py"):
            shutil.copy2(file, folder / file.name)
