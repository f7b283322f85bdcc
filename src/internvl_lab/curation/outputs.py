"""Write what curation decided: kept records in the format they came in, rejected ones with every rule that fired.

    (item, decision) ──> OUT/kept/NAME.jsonl + OUT/meta.json     bytes of the records as they stood
                         or OUT/kept/NAME/shard-*.tar            through data.shards
                         OUT/rejected.jsonl                      record, rules, scores
                         OUT/decisions.jsonl                     one line a record

Every file appears under its name when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from internvl_lab.atomic import write_atomic
from internvl_lab.curation.decisions import Decision
from internvl_lab.curation.inputs import Input, Source
from internvl_lab.curation.items import Item, dump, image_names, read_images
from internvl_lab.data.shards import RawSample, write_shards
from internvl_lab.errors import SampleError

SAMPLES_PER_SHARD = 1000

Decided = Iterator[tuple[Item, Decision]]


class Outputs:
    """Write all files of one run; `source` takes the records of one source, in order.

    Args:
        out: folder of the run.
        given: what is curated, for its format.
    """

    def __init__(self, out: Path, given: Input) -> None:
        self.out, self.given = Path(out), given
        self.lengths: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Outputs:
        """Open the files that all sources share."""
        self._rejected = self._stack.enter_context(appears_whole(self.out / "rejected.jsonl"))
        self._decisions = self._stack.enter_context(appears_whole(self.out / "decisions.jsonl"))
        return self

    def __exit__(self, *error: object) -> None:
        """Let the shared files appear, or forget them after an error."""
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def source(self, source: Source, decided: Decided) -> None:
        """Write one source's records."""
        kept = self._keep(source, decided)
        if self.given.kind == "shards":
            _write_shards(kept, self.out / "kept" / source.name)
            return
        with appears_whole(self.out / "kept" / f"{source.name}.jsonl") as file:
            for item in kept:
                file.write(item.payload + b"\n")

    def meta(self) -> None:
        """Write the meta JSON of the kept JSONL files; other settings of the sources stay as they were."""
        if self.given.kind == "shards":
            return
        entries = {
            source.name: {
                **source.meta,
                "annotation": str(self.out / "kept" / f"{source.name}.jsonl"),
                "length": self.lengths[source.name],
            }
            for source in self.given.sources
        }
        write_atomic(self.out / "meta.json", dump(entries) + "\n")

    def _keep(self, source: Source, decided: Decided) -> Iterator[Item]:
        """Write every decision down, and pass the kept records on."""
        self.lengths[source.name] = 0
        for item, decision in decided:
            line = {"key": item.key, "keep": decision.keep, "by": decision.by}
            _write_line(self._decisions, line | {"rules": [verdict.rule for verdict in decision.fired]})
            if decision.keep:
                self.lengths[source.name] += 1
                yield item
            else:
                _write_line(self._rejected, rejected_entry(item, decision))


def rejected_entry(item: Item, decision: Decision) -> dict[str, object]:
    """Describe one rejected record: enough to look at it, and to put it back.

    `record` is the JSON object, or null with the text in `line` where it is none; `images` are paths below `root`, or
    members of `shard`.
    """
    raw, names = item.raw, image_names(item)
    sound = not isinstance(raw, SampleError)
    place = {"root": item.source.root} if item.shard is None else {"shard": item.shard}
    return {
        "key": item.key,
        "source": item.source.name,
        "verdicts": [asdict(verdict) for verdict in decision.fired],
        "record": raw if sound else None,
        **({} if sound else {"line": item.payload.decode("utf-8", "backslashreplace")}),
        "images": [] if isinstance(names, SampleError) else list(names),
        **{name: os.path.abspath(path) for name, path in place.items()},
    }


@contextmanager
def appears_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name when it is complete; streams, unlike `write_atomic`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _write_line(file: BinaryIO, value: object) -> None:
    """Append one JSON line; half characters are escaped, as JSON writes them."""
    file.write(dump(value).encode("utf-8", "backslashreplace") + b"\n")


def _write_shards(kept: Iterator[Item], folder: Path) -> None:
    """Write shards beside their place, then swap."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_shards(map(raw_sample, kept), partial, SAMPLES_PER_SHARD)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def raw_sample(item: Item) -> RawSample:
    """Read a kept sample whole; rules have found it sound, or a person wants it."""
    if isinstance(item.raw, SampleError):
        raise item.raw
    members = [] if isinstance(item.members, SampleError) else item.members
    extensions = [member.name.rsplit(".", 1)[-1] for member in members]
    images = [data for data in read_images(item) if isinstance(data, bytes)]
    return RawSample(item.sample_key.lstrip("./"), item.raw, tuple(zip(extensions, images, strict=True)))
