"""Run curation from end to end: measure, find duplicates, decide, write.

    input ── chunks ──pool──> scores/, signatures/ ──> index/ (duplicates) ──> decisions ──> kept, rejected, report
             (each chunk's files appear whole: a killed run goes on)           (thresholds, reviews, LLM scorers)

Measuring knows no threshold. So the last step may be repeated with others: by the same command again, or from another
folder with `rescore_from`; both give what a fresh run gives.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from internvl_lab.atomic import held, write_atomic
from internvl_lab.config.curation import CurationConfig
from internvl_lab.curation.decisions import Decision, Review, decide, judge_scores, read_reviews
from internvl_lab.curation.duplicates import build_index, find_duplicates
from internvl_lab.curation.inputs import Chunk, Input, find_input, plan_chunks
from internvl_lab.curation.items import Item, read_items, to_record
from internvl_lab.curation.measure import (
    DIGITS,
    Measuring,
    Scores,
    measure_chunk,
    read_scores,
    remove_signatures,
    scores_path,
    signatures_path,
)
from internvl_lab.curation.outputs import Outputs
from internvl_lab.curation.report import write_report
from internvl_lab.curation.rules import Finding
from internvl_lab.curation.signatures import require_extra
from internvl_lab.curation.tally import Tally
from internvl_lab.curation.verdicts import CurationRecord, Scorer, Verdict
from internvl_lab.data.parent import exit_with_parent
from internvl_lab.errors import ConfigError

logger = logging.getLogger(__name__)

STAMP = "run.json"
QUEUE = 2
"""Chunks a worker has waiting."""


def curate(
    path: Path | None,
    out: Path,
    config: CurationConfig | None = None,
    *,
    root: Path | None = None,
    workers: int = 1,
    reviews: Path | None = None,
    scorers: Sequence[Scorer] = (),
    rescore_from: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Curate a meta JSON, a JSONL file or shards into `out`; a run that was killed goes on where it was.

    Args:
        path: the input; None with `rescore_from`, whose folder knows it.
        out: gets `kept/`, `rejected.jsonl`, `decisions.jsonl`, `summary.json`, `report.md`, `report.html`, and the
            scores.
        config: thresholds and the like.
        root: folder of the images of a single JSONL file.
        workers: processes that measure; the result does not depend on their number.
        reviews: decisions of people, see `decisions.read_reviews`.
        scorers: asked about records that no rule rejects and no person has decided on.
        rescore_from: folder of an earlier run whose scores are used instead of measuring.
        progress: draw a progress bar, on a terminal.
    Returns:
        The content of `summary.json`.
    Raises:
        ConfigError: the input is missing or has changed, `out` is another run's or in use, the extra is not installed.
        ShardError: a shard is damaged.
    """
    config, out = config or CurationConfig(), Path(out)
    if (path is None) == (rescore_from is None):
        raise ConfigError("give either --in or --rescore-from")
    measuring = Measuring.of(config)
    if measuring.near_text or measuring.near_images:
        require_extra()
    decided_by_people = read_reviews(reviews) if reviews is not None else {}
    with held(out, "--out", "curate"):
        given = find_input(path, root) if path is not None else _input_of(Path(rescore_from or out))
        scored = out if rescore_from is None else Path(rescore_from)
        measuring = _check_stamp(scored, given, measuring, root, create=rescore_from is None)
        chunks = list(plan_chunks(given))
        if rescore_from is None:
            _measure_all(chunks, measuring, out, workers, progress)
        elif not (scored / "index").is_dir():
            raise ConfigError(f"--rescore-from {scored}: its scores are not complete; run it to its end first")
        stream = _Deciding(scored, chunks, config, decided_by_people, scorers)
        tally = _write_all(given, stream, out, progress)
        return write_report(out, tally, config.rules)


def _measure_all(chunks: Sequence[Chunk], settings: Measuring, out: Path, workers: int, progress: bool) -> None:
    """Measure what is not measured yet, then build and search the index of duplicates."""
    indexed = (out / "index").is_dir()
    paths = [signatures_path(out, chunk.number) for chunk in chunks]
    done = [scores_path(out, c.number).exists() and (indexed or paths[c.number].exists()) for c in chunks]
    todo = [chunk for chunk, is_done in zip(chunks, done, strict=True) if not is_done]
    if len(todo) < len(chunks):
        logger.info("%d of %d chunks are measured already", len(chunks) - len(todo), len(chunks))
    with _progress_bar(progress) as bar:
        task = bar.add_task("measuring", total=len(chunks), completed=len(chunks) - len(todo))
        for _ in _parallel(todo, settings, out, workers):
            bar.advance(task)
            bar.refresh()
    if not indexed:
        build_index(paths, out / "index")
    remove_signatures(out)
    find_duplicates(out / "index")


def _parallel(todo: Sequence[Chunk], settings: Measuring, out: Path, workers: int) -> Iterator[int]:
    """Measure chunks in worker processes, few waiting at a time; yields the records of each as it is done."""
    if workers <= 1 or len(todo) <= 1:
        yield from (measure_chunk(chunk, settings, out) for chunk in todo)
        return
    waiting = iter(todo)
    with ProcessPoolExecutor(min(workers, len(todo)), initializer=exit_with_parent) as pool:
        running: set[Future[int]] = set()
        while True:
            for chunk in islice(waiting, QUEUE * workers - len(running)):
                running.add(pool.submit(measure_chunk, chunk, settings, out))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _write_all(given: Input, stream: _Deciding, out: Path, progress: bool) -> Tally:
    """Write the outputs of every source and count."""
    tally = Tally()
    with _progress_bar(progress) as bar, Outputs(out, given) as outputs:
        task = bar.add_task("deciding", total=len(stream.chunks))

        def decided(chunks: Iterable[Chunk]) -> Iterator[tuple[Item, Decision]]:
            """Yield the records of some chunks with what became of them, counting."""
            for chunk in chunks:
                for item, scores, decision in stream.of_chunk(chunk):
                    tally.add(item, scores, decision)
                    yield item, decision
                bar.advance(task)
                bar.refresh()

        groups = {name: list(group) for name, group in groupby(stream.chunks, lambda chunk: chunk.source.name)}
        for source in given.sources:
            outputs.source(source, decided(groups.get(source.name, ())))
        outputs.meta()
    return tally


class _Deciding:
    """Read records and scores side by side, and decide.

    Args:
        folder: holds the scores and the index.
        chunks: all of the input.
        config, reviews, scorers: see `curate`.
    """

    def __init__(
        self,
        folder: Path,
        chunks: Sequence[Chunk],
        config: CurationConfig,
        reviews: Mapping[str, Review],
        scorers: Sequence[Scorer],
    ) -> None:
        self.folder, self.chunks, self.config = folder, chunks, config
        self.reviews, self.scorers = reviews, scorers
        self.duplicates = find_duplicates(folder / "index")
        self._starts: list[int] = [0]
        """Number of the first record of each chunk so far."""
        self._keys = lru_cache(maxsize=16)(self._read_keys)

    def of_chunk(self, chunk: Chunk) -> Iterator[tuple[Item, Scores, Decision]]:
        """Decide about the records of a chunk; chunks come in order."""
        pairs: list[tuple[Item, Scores]] = []
        scored = read_scores(scores_path(self.folder, chunk.number))
        for item, (key, scores) in zip(read_items(chunk), scored, strict=True):
            if item.key != key:
                raise ConfigError(f"{self.folder}: the scores of {key} do not belong to {item.key}; measure again")
            pairs.append((item, scores))
        start = self._starts[chunk.number]
        self._starts.append(start + len(pairs))
        for rule, matches in self.duplicates.items():
            for number, original, score in matches.within(start, start + len(pairs)):
                pairs[number - start][1][rule] = Finding(round(score, DIGITS), f"like {self._key_of(original)}")
        verdicts = [judge_scores(scores, chunk.source.name, self.config.rules) for _, scores in pairs]
        if self.scorers:
            verdicts = self._ask_scorers(pairs, verdicts)
        for (item, scores), found in zip(pairs, verdicts, strict=True):
            yield item, scores, decide(item.key, found, self.reviews)

    def _ask_scorers(
        self, pairs: Sequence[tuple[Item, Scores]], verdicts: Sequence[tuple[Verdict, ...]]
    ) -> list[tuple[Verdict, ...]]:
        """Add the scorers' verdicts on records that nobody has rejected or decided on; they cost money."""
        records: dict[int, CurationRecord] = {}
        for number, ((item, _), found) in enumerate(zip(pairs, verdicts, strict=True)):
            if item.key not in self.reviews and not any(verdict.rejected for verdict in found):
                record = to_record(item)
                if isinstance(record, CurationRecord):
                    records[number] = record
        result = list(verdicts)
        for scorer in self.scorers if records else ():
            for number, more in zip(records, scorer.score(list(records.values())), strict=True):
                result[number] = (*result[number], *more)
        return result

    def _key_of(self, number: int) -> str:
        """Look up the key of an earlier record."""
        chunk = bisect_right(self._starts, number) - 1
        return self._keys(chunk)[number - self._starts[chunk]]

    def _read_keys(self, chunk: int) -> list[str]:
        return [key for key, _ in read_scores(scores_path(self.folder, chunk))]


def _input_of(folder: Path) -> Input:
    """Find the input of an earlier run."""
    stamp = _read_stamp(folder)
    if stamp is None:
        raise ConfigError(f"--rescore-from {folder} holds no run of curate ({STAMP})")
    return find_input(Path(stamp["input"]), Path(stamp["root"]) if stamp["root"] else None)


def _read_stamp(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / STAMP).read_bytes()))
    except (OSError, ValueError):
        return None


def _check_stamp(folder: Path, given: Input, wanted: Measuring, root: Path | None, create: bool) -> Measuring:
    """Refuse scores of another input or of other rules; return what is measured: at least what is wanted."""
    stamp = {
        "input": str(given.path.resolve()),
        "root": str(root.resolve()) if root else None,
        "input_fingerprint": given.fingerprint,
        "rules_fingerprint": wanted.fingerprint,
        "near_text": wanted.near_text,
        "near_images": wanted.near_images,
    }
    found = _read_stamp(folder)
    if found is None and create:
        write_atomic(folder / STAMP, json.dumps(stamp, indent=1) + "\n")
        return wanted
    for name, what in (("input_fingerprint", "input"), ("rules_fingerprint", "measuring settings")):
        if found is None or found.get(name) != stamp[name]:
            raise ConfigError(f"{folder} holds scores of another {what}: choose another --out, or remove it")
    assert found is not None
    near = {name: bool(found.get(name)) for name in ("near_text", "near_images")}
    for name, is_measured in near.items():
        if stamp[name] and not is_measured:
            raise ConfigError(f"{folder} was measured without near duplicates ({name}): choose another --out")
    return replace(wanted, near_text=near["near_text"], near_images=near["near_images"])


def _progress_bar(enabled: bool) -> Progress:
    """Build a progress bar on a terminal; without automatic refresh no thread runs when workers are forked."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn())
    shown = enabled and console.is_terminal
    return Progress(*columns, TimeRemainingColumn(), console=console, auto_refresh=False, disable=not shown)
