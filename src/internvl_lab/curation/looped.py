"""Shards of a miniworld split with loops planted, curated or not: the rows of the study of what filtering is worth.

::

    finetune/ ── plant_loops ──> finetune-loops-0.08/ ── curate ──> finetune-loops-0.08-filtered/kept/...

Both lie beside the split that they are made from. Each gets its stamp last, so a build that was killed starts again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from internvl_lab.config import MiniworldConfig
from internvl_lab.config.curation import CurationConfig, RuleConfig, RulesConfig
from internvl_lab.curation import loops
from internvl_lab.curation.inputs import find_input, plan_chunks
from internvl_lab.curation.items import read_items
from internvl_lab.curation.measure import Measuring
from internvl_lab.curation.outputs import raw_sample
from internvl_lab.curation.pipeline import curate
from internvl_lab.data.miniworld.build import STAMP, is_complete, locked, write_stamp
from internvl_lab.data.shards import RawSample, write_shards

logger = logging.getLogger(__name__)

FILTER = CurationConfig(
    RulesConfig(
        exact_duplicate=RuleConfig(0, enabled=False),
        near_duplicate=RuleConfig(0.8, enabled=False),
        near_duplicate_image=RuleConfig(0.92, enabled=False),
    ),
    read_images=False,
)
"""All rules on single texts, at their default thresholds; loops need neither images nor the pass over duplicates."""


def ensure_looped(split: Path, cfg: MiniworldConfig) -> Path:
    """Return the folder of shards that `cfg` wants instead of `split`, made unless it is there already.

    Args:
        split: complete shards, from `ensure_shards`.
        cfg: with `loop_share` and `filtered`; without both, `split` itself is returned.
    Raises:
        ConfigError: a share outside [0, 1].
    """
    with locked(split.parent):
        planted = _planted(split, cfg) if cfg.loop_share else split
        return _filtered(planted) if cfg.filtered else planted


def _planted(split: Path, cfg: MiniworldConfig) -> Path:
    """Plant loops into a share of the samples."""
    folder = split.with_name(f"{split.name}-loops-{cfg.loop_share:g}")
    stamp = json.loads((split / STAMP).read_text())
    expected = _hash(stamp["hash"], cfg.loop_share, cfg.seed, Path(loops.__file__).read_text())
    if not is_complete(folder, expected):
        shutil.rmtree(folder, ignore_errors=True)
        samples = loops.plant_loops(_read(split), stamp["samples"], cfg.loop_share, cfg.seed)
        write_stamp(folder, expected, stamp["samples"], write_shards(samples, folder, cfg.samples_per_shard))
        logger.info("%s: %d of %d answers loop", folder, round(cfg.loop_share * stamp["samples"]), stamp["samples"])
    return folder


def _filtered(source: Path) -> Path:
    """Curate shards; the report lies beside what is kept."""
    out = source.with_name(f"{source.name}-filtered")
    kept = out / "kept" / source.name
    stamp = json.loads((source / STAMP).read_text())
    expected = _hash(stamp["hash"], Measuring.of(FILTER).fingerprint, FILTER)
    if not is_complete(kept, expected):
        shutil.rmtree(out, ignore_errors=True)
        curate(source, out, FILTER, progress=False)
        rejected = len((out / "rejected.jsonl").read_bytes().splitlines())
        write_stamp(kept, expected, stamp["samples"] - rejected, sorted(kept.glob("*.tar")))
        logger.info("%s: %d of %d samples rejected", out, rejected, stamp["samples"])
    return kept


def _read(folder: Path) -> Iterator[RawSample]:
    """Yield the samples of all shards in order."""
    for chunk in plan_chunks(find_input(folder)):
        yield from map(raw_sample, read_items(chunk))


def _hash(*parts: object) -> str:
    """Hash what the bytes of a folder depend on."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
