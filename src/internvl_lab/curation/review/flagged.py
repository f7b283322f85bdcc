"""Read what the pipeline flagged: `flagged.jsonl`, or `rejected.jsonl` where there is none, one JSON object a line.

{"key", "source", "record", "verdicts": [{rule, score, threshold, rejected, detail}, ...], "images": [names]}
and, as the pipeline writes it, where the images lie: "root" (a folder) or "shard" (a tar whose members they are); and
"line" in place of a record that is no JSON object.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_lab.curation.verdicts import Verdict
from internvl_lab.errors import ConfigError

FLAGGED = "flagged.jsonl"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class FlaggedSample:
    """Hold one flagged sample."""

    key: str
    source: str
    record: dict[str, Any]
    """The authors' JSONL record."""
    verdicts: tuple[Verdict, ...]
    images: tuple[str, ...]
    root: str | None = None
    """Folder that the images lie below; None = the output folder, or absolute paths."""
    shard: str | None = None
    """Tar that the images are members of."""

    @property
    def rules(self) -> tuple[str, ...]:
        """Name the rules that rejected it."""
        return tuple(verdict.rule for verdict in self.verdicts if verdict.rejected)

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Return (role, text) of each turn; what is no text is shown as JSON."""
        turns = self.record.get("conversations")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            return [("record", json.dumps(self.record, ensure_ascii=False, indent=1))]
        return [(str(turn.get("from")), _as_text(turn.get("value"))) for turn in turns]


class FlaggedFile:
    """Index the flagged samples of an output folder; position n names a sample, whose record stays on disk.

    Args:
        folder: output folder of `curate`.
        rule: keep only samples that this rule rejected.
    Raises:
        ConfigError: no such file, a line that is no such object, or a rule that flagged nothing.
    """

    def __init__(self, folder: Path, rule: str | None = None) -> None:
        found = [path for path in (folder / FLAGGED, folder / REJECTED) if path.is_file()]
        if not found:
            raise ConfigError(f"{folder / FLAGGED} does not exist: --in must be the output folder of `curate`")
        self.folder, self._path = folder, found[0]
        self.keys: list[str] = []
        self.rules: Counter[str] = Counter()
        """Rule to number of samples in the whole file."""
        self._offsets: list[int] = []
        with self._path.open("rb") as lines:
            offset = 0
            for number, line in enumerate(lines, start=1):
                sample = self._parse(line, number)
                self.rules.update(set(sample.rules))
                if rule is None or rule in sample.rules:
                    self.keys.append(sample.key)
                    self._offsets.append(offset)
                offset += len(line)
        if rule is not None and not self.keys:
            raise ConfigError(
                f"no sample was flagged by {rule!r}; there are: {', '.join(sorted(self.rules)) or 'none'}"
            )

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.keys)

    def __getitem__(self, position: int) -> FlaggedSample:
        """Read one sample."""
        with self._path.open("rb") as lines:
            lines.seek(self._offsets[position])
            return self._parse(lines.readline(), position + 1)

    def image(self, sample: FlaggedSample, number: int, max_size: int) -> bytes | None:
        """Return a sample's image as JPEG of at most `max_size` pixels an edge; None where it cannot be read.

        It is decoded and encoded anew, so that only pictures leave this function, whatever path a record names.
        """
        from PIL import Image

        if not 0 <= number < len(sample.images):
            return None
        try:
            with Image.open(io.BytesIO(self._read(sample, sample.images[number]))) as picture:
                picture.draft("RGB", (max_size, max_size))
                small = picture.convert("RGB")
        except (OSError, ValueError, SyntaxError, LookupError, tarfile.TarError, Image.DecompressionBombError):
            return None
        small.thumbnail((max_size, max_size))
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=90)
        return stream.getvalue()

    def _read(self, sample: FlaggedSample, name: str) -> bytes:
        """Read an image file from where it lies."""
        if sample.shard is None:
            return (self.folder / (sample.root or "") / name).read_bytes()  # an absolute name stands for itself
        with tarfile.open(sample.shard, "r:") as shard:
            member = shard.extractfile(name)
            return member.read() if member is not None else b""

    def _parse(self, line: bytes, number: int) -> FlaggedSample:
        try:
            entry = json.loads(line)
            verdicts = tuple(Verdict(**verdict) for verdict in entry["verdicts"])
            images = tuple(str(image) for image in entry["images"])
            record = entry["record"] if entry.get("record") is not None else {"line": entry["line"]}
            place = entry.get("root"), entry.get("shard")
            return FlaggedSample(str(entry["key"]), str(entry["source"]), dict(record), verdicts, images, *place)
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{self._path}:{number} is no flagged sample ({error}): run `curate` again") from error


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
