"""Convert the authors' meta JSON (several sources) into one folder of shards a source.

```
meta.json {name: {root, annotation, ...}} ──> OUT/name/shard-*.tar   OUT/rejected.jsonl   OUT/overrides.txt
```

`overrides.txt` holds the overrides, one a line, that make `train.py` read these sources as mixture `finetune`.
A source's folder appears when it is complete; the same command goes on where it was interrupted (`conversion`).
Source of the format: spec section 7 (authors' `chat_data_format.md`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.constants import STORED_FRAMES
from internvl_lab.data.conversion import (
    REJECTED,
    Source,
    SourceReport,
    check_folders,
    convert_source,
    join_rejected,
)
from internvl_lab.errors import ConfigError

logger = logging.getLogger(__name__)

MIXTURE = "finetune"
"""Mixture that `overrides.txt` fills; stages 2 read it. Another one: replace the word."""


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
    progress: bool | None = None,
    stored_frames: int = STORED_FRAMES,
    num_workers: int = 0,
) -> ConversionReport:
    """Convert every source of a meta file, or go on with it.

    Args:
        meta: the authors' JSON, name to {root, annotation, data_augment, max_dynamic_patch, repeat_time, length}; paths
            relative to the current directory, as in the authors' scripts.
        out_dir: gets one folder a source, `rejected.jsonl` (one line a rejected sample) and `overrides.txt`.
        samples_per_shard: lines of an annotation that become one shard.
        progress: draw a progress bar a source; None = on a terminal.
        stored_frames: most frames that are kept of a video; training draws from these.
        num_workers: processes; 0 or 1 = this one.
    Raises:
        ConfigError: the meta is not such a JSON, an annotation is missing, a number is below 1, or a source's folder
            exists already and was made from something else.
        ShardError: a shard cannot be written.
    """
    for name, value in (("samples_per_shard", samples_per_shard), ("stored_frames", stored_frames)):
        if value < 1:
            raise ConfigError(f"{name}={value} must be at least 1")
    meta, out_dir = Path(meta), Path(out_dir)
    entries = _read_meta(meta)
    sources = [
        Source(name, Path(entry["annotation"]), Path(entry["root"]), samples_per_shard, stored_frames)
        for name, entry in entries.items()
    ]
    check_folders(sources, out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    report = ConversionReport()
    for source in sources:
        count = report.sources[source.name] = convert_source(source, out_dir, num_workers, progress)
        logger.info("source %s: %d samples in %d shards", source.name, count.written, count.shards)
    join_rejected([out_dir / source.name for source in sources], out_dir / REJECTED)
    report.overrides = _overrides(entries, out_dir)
    write_atomic(out_dir / "overrides.txt", "".join(line + "\n" for line in report.overrides))
    return report


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
