"""Convert the authors' meta JSON (several sources) into one folder of shards a source.

```
meta.json {name: {root, annotation, ...}} ──> OUT/name/shard-*.tar   OUT/rejected.jsonl   OUT/overrides.txt
```

`overrides.txt` holds the overrides, one a line, that make `train.py` read these sources as mixture `finetune`.
A source's folder appears when it is complete.
Source of the format: spec section 7 (authors' `chat_data_format.md`).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from internvl_lab.atomic import write_atomic
from internvl_lab.constants import MAX_FRAMES, MIN_FRAMES
from internvl_lab.data.shards import RawSample, read_jsonl_samples, write_shards
from internvl_lab.errors import ConfigError, SampleError

logger = logging.getLogger(__name__)

MIXTURE = "finetune"
"""Mixture that `overrides.txt` fills; stages 2 read it. Another one: replace the word."""


@dataclass
class SourceReport:
    """Count what became of one source."""

    written: int = 0
    shards: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason to number of samples."""


@dataclass
class ConversionReport:
    """Count what became of every source of a meta file."""

    sources: dict[str, SourceReport] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    """Arguments of `train.py`, not quoted for a shell, that make mixture `finetune` consist of the sources."""

    @property
    def num_written(self) -> int:
        """Count the samples written."""
        return sum(source.written for source in self.sources.values())

    @property
    def num_rejected(self) -> int:
        """Count the samples rejected."""
        return sum(sum(source.rejected.values()) for source in self.sources.values())


def convert(
    meta: Path,
    out_dir: Path,
    samples_per_shard: int = 1000,
    progress: bool = True,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
) -> ConversionReport:
    """Convert every source of a meta file.

    Args:
        meta: the authors' JSON, name to {root, annotation, data_augment, max_dynamic_patch, repeat_time, length}; paths
            relative to the current directory, as in the authors' scripts.
        out_dir: gets one folder a source, `rejected.jsonl` (one line a rejected sample) and `overrides.txt`.
        progress: draw a progress bar a source; its end is `length`, where the meta gives it.
        min_frames, max_frames: frames kept of a video.
    Raises:
        ConfigError: the meta is not such a JSON, an annotation is missing, a source's folder exists already, or the
            numbers of frames do not fit.
    """
    if not 1 <= min_frames <= max_frames:
        raise ConfigError(f"min_frames={min_frames} and max_frames={max_frames} do not fit")
    meta, out_dir = Path(meta), Path(out_dir)
    sources = _read_meta(meta)
    for name in sources:
        if (out_dir / name).exists():
            raise ConfigError(f"{out_dir / name} exists already: remove it or choose another --out")
    out_dir.mkdir(parents=True, exist_ok=True)
    report = ConversionReport()
    with (out_dir / "rejected.jsonl").open("w", encoding="utf-8") as rejected:
        for name, entry in sources.items():
            count = report.sources[name] = SourceReport()
            samples = read_jsonl_samples(
                Path(entry["annotation"]),
                Path(entry["root"]),
                prefix=name,
                min_frames=min_frames,
                max_frames=max_frames,
            )
            partial = out_dir / f".{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            kept = _keep(samples, name, count, rejected)
            count.shards = len(write_shards(kept, partial, samples_per_shard, progress, _length(entry)))
            partial.rename(out_dir / name)
            logger.info(
                "source %s: %d samples in %d shards, rejected: %s", name, count.written, count.shards, count.rejected
            )
    report.overrides = _overrides(sources, out_dir)
    write_atomic(out_dir / "overrides.txt", "".join(line + "\n" for line in report.overrides))
    return report


def _keep(
    samples: Iterator[RawSample | SampleError], source: str, count: SourceReport, rejected: TextIO
) -> Iterator[RawSample]:
    """Pass usable samples on; count and write down the others."""
    for sample in samples:
        if isinstance(sample, SampleError):
            count.rejected[sample.reason] = count.rejected.get(sample.reason, 0) + 1
            line = {"source": source, "key": sample.key, "reason": sample.reason, "detail": sample.detail}
            rejected.write(json.dumps(line, ensure_ascii=False) + "\n")
        else:
            count.written += 1
            yield sample


def _read_meta(meta: Path) -> dict[str, dict[str, Any]]:
    """Read and check the meta file."""
    try:
        sources = json.loads(meta.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"meta file {meta} cannot be read: {error}") from error
    if not isinstance(sources, dict) or not sources:
        raise ConfigError(f"meta file {meta} must map source names to settings")
    for name, entry in sources.items():
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("root", "annotation")):
            raise ConfigError(f"meta file {meta}: source {name!r} needs `root` and `annotation`")
        if not name or "/" in name or name.startswith("."):
            raise ConfigError(f"meta file {meta}: source name {name!r} cannot be a folder name")
        if not Path(entry["annotation"]).is_file():
            raise ConfigError(f"meta file {meta}: annotation {entry['annotation']} of source {name!r} does not exist")
    return sources


def _length(entry: Mapping[str, Any]) -> int | None:
    """Return the informational `length` of a source, where it is a number."""
    return entry["length"] if isinstance(entry.get("length"), int) else None


def _overrides(sources: Mapping[str, Mapping[str, Any]], out_dir: Path) -> list[str]:
    """Write the sources as Hydra overrides: the data group's own source goes, a `SourceConfig` a source comes."""
    added: dict[str, str] = {}
    for name, entry in sources.items():
        values = [f"shards:{_quoted(os.path.abspath(out_dir / name))}", f"repeat:{float(entry.get('repeat_time', 1))}"]
        if entry.get("max_dynamic_patch") is not None:
            values.append(f"max_tiles:{int(entry['max_dynamic_patch'])}")
        values.append(f"jpeg:{str(bool(entry.get('data_augment', False))).lower()}")
        key = re.sub(r"[^A-Za-z0-9_-]|^(?![A-Za-z])", "_", name)  # what Hydra reads as one key
        while key in added:
            key += "_"
        added[key] = f"+data.mixtures.{MIXTURE}.{key}={{{','.join(values)}}}"
    own = [] if MIXTURE in added else [f"~data.mixtures.{MIXTURE}.{MIXTURE}"]
    return own + list(added.values())


def _quoted(text: str) -> str:
    """Quote a string for Hydra: in front of a quote, and only there, backslashes count."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"
