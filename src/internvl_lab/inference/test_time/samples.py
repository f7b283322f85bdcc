"""What a test-time run keeps of every question, and the file that makes it resumable.

::

    out/settings.json     what the answers depend on; another run's folder is refused, never overwritten
    out/samples.jsonl     one line a question, checkpoint and arm; appended chunk by chunk, a torn last line is dropped
    out/scores.jsonl      one line a question: what the critic says of its candidates
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.config import ModelConfig
from internvl_lab.errors import ConfigError
from internvl_lab.models.flops import step_flops
from internvl_lab.tracking.append_only import complete_lines

PLACE = ("checkpoint", "arm", "task", "key")
Place = tuple[str, str, str, str]
"""The fields of PLACE: what identifies a record."""


@dataclass(frozen=True)
class Sample:
    """Hold one answer of a model."""

    text: str
    answer: str
    """The final answer in it; empty where there is none."""
    how: str
    """How the final answer was found, see `answers.Extracted`."""
    right: bool
    num_tokens: int
    """Generated tokens, the end token included."""
    mean_logprob: float
    ended: bool
    """Whether the model ended the answer itself."""
    looping: bool
    """Whether most of it repeats itself."""
    flops: float
    """Operations of generating it, behind the prompt."""


@dataclass(frozen=True)
class Record:
    """Hold all answers of one checkpoint to one question, asked in one way."""

    checkpoint: str
    arm: str
    task: str
    key: str
    question: str
    reference: str
    samples: tuple[Sample, ...]
    """Empty where the question could not be asked."""
    prompt_tokens: int = 0
    num_tiles: int = 0
    prompt_flops: float = 0.0
    """Operations of pictures and prompt, once for all samples."""
    error: str = ""
    """Why the question could not be asked; such a question is counted, and left out of all scores."""

    @property
    def place(self) -> Place:
        """Return what identifies the record."""
        return (self.checkpoint, self.arm, self.task, self.key)


def forward_flops(config: ModelConfig, tokens: int, tiles: int = 0, rows: int = 1, behind: int = 0) -> float:
    """Count the operations of a forward over a prompt, or over tokens behind one.

    Args:
        config: sizes.
        tokens: new tokens.
        tiles: tiles encoded.
        rows: positions whose logits are computed.
        behind: tokens that are cached already.
    """
    squares = float((behind + tokens) ** 2 - behind**2)
    return step_flops(config, tokens=tokens, sum_sq=squares, tiles=tiles, supervised_rows=rows, trainable=())


class JsonlFile:
    """Append rows to a file that survives a kill: whole lines only, on the disk before the call returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = complete_lines(path)
        if path.is_file() and path.stat().st_size != sum(len(line.encode()) for line in lines):
            write_atomic(path, "".join(lines))  # cut the torn line off, or the next one would be glued to it
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows and remember them."""
        new = [dict(row) for row in rows]
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in new))
            stream.flush()
            os.fsync(stream.fileno())
        self.rows += new


class SampleStore:
    """Keep the records of a run.

    Args:
        folder: of the run.
        settings: everything the answers depend on.
    Raises:
        ConfigError: the folder holds answers that were made with other settings; names what differs.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        stamp = folder / "settings.json"
        wanted = json.loads(json.dumps(settings))
        if stamp.is_file() and (found := json.loads(stamp.read_text(encoding="utf-8"))) != wanted:
            differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            raise ConfigError(
                f"out={folder} holds answers made with another {', '.join(differing)}: choose another out"
            )
        write_atomic(stamp, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
        self._file = JsonlFile(folder / "samples.jsonl")
        self.records: dict[Place, Record] = {record.place: record for record in map(_read, self._file.rows)}

    def add(self, records: Iterable[Record]) -> None:
        """Keep records, on disk first."""
        new = list(records)
        self._file.append(asdict(record) for record in new)
        self.records |= {record.place: record for record in new}


def _read(row: Mapping[str, Any]) -> Record:
    """Turn a line back into a record."""
    return Record(**{**row, "samples": tuple(Sample(**sample) for sample in row["samples"])})
