"""Say what data and settings a saved data state belongs to, and what has changed since.

A state holds two fingerprints, which decide, and the hashes of their parts, which only name what changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from internvl_lab.config import RunConfig, StageConfig
from internvl_lab.data.mixture import hash16, source_settings
from internvl_lab.data.plan import Cost
from internvl_lab.text.template import ChatTemplate

MAX_NAMED_SOURCES = 100
"""Sources whose content the state tells apart, 4 bytes each, so that it stays under 1 KB."""
_SHARDS = "shards"


def encoding_settings(cfg: RunConfig, stage: StageConfig, template: ChatTemplate) -> list[Any]:
    """List what the encoder depends on."""
    data = cfg.data
    settings = [template.fingerprint, repr(data.jpeg), data.loss_averaging, data.weight_unit, stage.name]
    return settings + (["regions"] if data.region_targets else [])


def hash_parts(
    cfg: RunConfig, stage: StageConfig, template: ChatTemplate, cost: Cost, contents: Sequence[str]
) -> dict[str, str]:
    """Hash each thing that the fingerprints cover to 4 digits: enough to name what changed, in little room.

    Args:
        contents: fingerprint of each source's index; none for streams.
    """
    sources = cfg.data.mixtures[stage.mixture]
    settings = [[name, {**source_settings(source), "shards": ""}] for name, source in sources.items()]
    parts: dict[str, Any] = {
        f"data.mixtures.{stage.mixture}": settings,
        "tiling": asdict(cfg.tiling),
        "packing": [asdict(cfg.packing), cfg.packs_per_step(stage)],
        "data.jpeg": repr(cfg.data.jpeg),
        "data.long_samples": cfg.data.long_samples,
        "the loss weights": [cfg.data.loss_averaging, cfg.data.weight_unit, cfg.data.region_targets],
        "tokenizer or system message": template.fingerprint,
        "the model's cost": asdict(cost),
        "the stage's name": stage.name,
    }
    hashes = [hash16(content)[:4] for content in contents[:MAX_NAMED_SOURCES]]
    return {_SHARDS: "".join(hashes), **{name: hash16(value)[:4] for name, value in parts.items()}}


def describe_changes(
    state: Mapping[str, Any], expected: Mapping[str, Any], parts: Mapping[str, str], source_names: Sequence[str]
) -> str:
    """Say what differs from a saved state; "" if nothing does.

    Args:
        state: the saved one.
        expected: `index`, `config` and `seed` as they are now.
        parts: what `hash_parts` gives now.
    """
    changed = {name for name, value in expected.items() if state.get(name) != value}
    said = state.get("parts", {})
    settings = [name for name in parts if name != _SHARDS and name in said and said[name] != parts[name]]
    sources = _changed_sources(said.get(_SHARDS, ""), parts[_SHARDS], source_names)
    meanings = {
        "index": f"the content of the shards{' of ' if sources else ''}{', '.join(sources)} (index)",
        "config": f"{', '.join(settings) or 'the settings of data, tiling, packing or template'} (config)",
        "seed": "the seed",
    }
    return " and ".join(meaning for name, meaning in meanings.items() if name in changed)


def _changed_sources(before: str, now: str, names: Sequence[str]) -> list[str]:
    """Name the sources whose hashes of 4 digits differ; none where the number of sources differs too."""
    if len(before) != len(now):
        return []
    return [name for i, name in enumerate(names) if before[4 * i : 4 * i + 4] != now[4 * i : 4 * i + 4]]
