"""Curation's rules against the authors' one rule: rate, recall and precision; and what a large run costs in memory.

The rates are of one thread over generated records of 1 kB; recall and precision are of the held-out labelled set.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from internvl_lab.atomic import write_atomic
from internvl_lab.bench.report import Report
from internvl_lab.bench.timing import Reading, describe_device, interleave, one_thread, spread
from internvl_lab.curation.duplicates import build_index, find_duplicates
from internvl_lab.curation.pipeline import curate
from internvl_lab.curation.planted import Size
from internvl_lab.curation.planted_words import sentence
from internvl_lab.curation.quality import measure_quality, quality_csv
from internvl_lab.curation.rules import Turns, apply_text_rules
from internvl_lab.curation.rules.loops import repeated_ngrams
from internvl_lab.curation.signatures import COLUMNS, Row, sign
from internvl_lab.errors import ConfigError

RECORD_BYTES = 1000
MEMORY_BYTES = 300
"""Of the records that memory is measured with, which does not depend on it: a million of them are made sooner."""
GOAL = 10_000_000
"""Records that the memory of a run is extrapolated to."""


def bench_curation(
    num_records: int = 1000,
    repeats: int = 3,
    seed: int = 0,
    csv: Path | None = None,
    memory: Sequence[int] = (),
    size: Size | None = None,
) -> Report:
    """Measure rates on `num_records` records, quality on the held-out set, and memory where asked.

    Args:
        num_records: of `RECORD_BYTES`, for the rates.
        repeats: readings of each rate.
        seed: of the records for the rates.
        csv: gets recall and precision of every rule and fault.
        memory: numbers of records of whole runs whose peak memory is measured.
        size: of the labelled set.
    Raises:
        ConfigError: no records to measure.
    """
    if num_records < 1 or min(memory, default=1) < 1:
        raise ConfigError("--records and --memory must be at least 1")
    records = [make_conversation(seed, i) for i in range(num_records)]
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        device = describe_device()
        readings = interleave(_runs(records, Path(folder)), repeats)
        quality = measure_quality(Path(folder) / "quality", size=size)
        peaks = {count: measure_peak(count, Path(folder) / str(count)) for count in memory}
    if csv is not None:
        write_atomic(csv, quality_csv(quality))
    rates = {name: _rate(of, num_records) for name, of in readings.items()}
    ours: dict[str, Any] = {"records_per_s": rates["rules"], "recall": quality.recall, "precision": quality.precision}
    ours |= {"signed_per_s": rates["signing"], "searched_per_s": rates["search"]}
    ours |= {f"mib_at_{count}": peak for count, peak in peaks.items()}
    if len(peaks) > 1:
        ours |= {"bytes_a_record": slope(peaks), "mib_at_10m": extrapolate(peaks)}
    rule = repeated_ngrams.__name__
    authors: dict[str, Any] = dict.fromkeys(ours)
    authors |= {"records_per_s": rates["authors"], "recall": quality.recall_of(rule)}
    authors["precision"] = quality.precision_of(rule)
    ratios = {"recall": quality.recall / max(quality.recall_of(rule), 1e-9)}
    ratios["rate"] = rates["rules"]["median"] / rates["authors"]["median"]
    setting = {"records": num_records, "bytes": RECORD_BYTES, "repeats": repeats, "seed": seed}
    setting["held_out_seed"] = quality.seed
    return Report(device, ours, {"authors_rule": authors}, ratios, setting)


def make_conversation(seed: int, number: int, num_bytes: int = RECORD_BYTES) -> tuple[tuple[str, str], ...]:
    """Make the turns of one record of about `num_bytes`; its text is like no other's."""
    rng = Random(f"{seed}/{number}")
    answer = sentence(rng)
    while len(answer) < num_bytes - 100:
        answer += " " + sentence(rng)
    return ("human", f"What happens here, number {number}?"), ("gpt", answer)


def measure_peak(num_records: int, folder: Path) -> float:
    """Curate generated records in a process of its own, and return its peak resident memory in MiB.

    The process measures in itself, as with one worker; more workers need the same again each, without the index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_records):
            turns = [{"from": role, "value": text} for role, text in make_conversation(0, number, MEMORY_BYTES)]
            file.write(json.dumps({"id": number, "conversations": turns}) + "\n")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_curate_and_send, args=(path, folder / "out", sender))
    process.start()
    sender.close()
    peak = float(receiver.recv())
    process.join()
    return peak


def slope(peaks: dict[int, float]) -> float:
    """Return the bytes that one more record costs, between the fewest and the most measured."""
    low, high = min(peaks), max(peaks)
    return (peaks[high] - peaks[low]) * 2**20 / (high - low)


def extrapolate(peaks: dict[int, float]) -> float:
    """Return the memory in MiB of a run over `GOAL` records, on the line through the measured ones."""
    high = max(peaks)
    return peaks[high] + slope(peaks) * (GOAL - high) / 2**20


def _curate_and_send(path: Path, out: Path, sender: Any) -> None:
    """Run in a process of its own."""
    curate(path, out, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sender.send(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _runs(records: Sequence[Turns], folder: Path) -> dict[str, Callable[[], float]]:
    """Build what is timed."""
    rows = [sign(turns, (), (), near_text=True) for turns in records]
    return {
        "rules": lambda: float(sum(len(apply_text_rules(turns)) for turns in records)),
        "authors": lambda: float(sum(repeated_ngrams(turns[1][1]).score for turns in records)),
        "signing": lambda: float(
            sum(row["bands"][0] % 2 for row in (sign(t, (), (), near_text=True) for t in records))
        ),
        "search": partial(_search, rows, folder / "index"),
    }


def _search(rows: Sequence[Row], folder: Path) -> float:
    """Build an index of all rows and search it; each repeat in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=folder.parent))
    np.savez(folder / "rows.npz", **{name: np.stack([row[name] for row in rows]) for name in COLUMNS})  # type: ignore[arg-type]
    build_index([folder / "rows.npz"], folder / "index")
    return float(len(find_duplicates(folder / "index")["near_duplicate"].record))


def _rate(readings: Sequence[Reading], num_records: int) -> dict[str, float]:
    """Turn CPU seconds into records a second."""
    return spread([num_records / max(reading.time_s, 1e-9) for reading in readings])
