"""Write the dataset as WebDataset shards, once: `root/<split>/*.tar` with a stamp beside them.

Beside the three splits there is `text`: text twins of the training splits, for language pretraining.

The stamp holds a hash of the settings and of this package's source, and the size of every shard.
It is written last, so a build that was killed has none and starts again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from internvl_lab.atomic import write_atomic
from internvl_lab.config import MiniworldConfig
from internvl_lab.data.miniworld.sample import check_choice, generate_range
from internvl_lab.data.miniworld.text_twin import text_range
from internvl_lab.data.pool import map_in_order
from internvl_lab.data.shards import RawSample, write_shards

logger = logging.getLogger(__name__)

TEXT = "text"
STAMP = "stamp.json"
CHUNK = 64
"""Samples that one process makes at a time."""

Job = tuple[str, int, int, int, tuple[str, ...]]
"""(split, start, stop, seed, tasks)."""


def source_hash() -> str:
    """Hash this package's source, so that a change of the generator makes the shards again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _job_hash(job: Job, samples_per_shard: int) -> str:
    """Hash everything that the bytes of a split depend on."""
    settings = [*job, samples_per_shard, source_hash()]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def is_complete(folder: Path, expected_hash: str) -> bool:
    """Tell whether a split's folder holds what its stamp promises, made from these settings."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        sizes = {path.name: path.stat().st_size for path in folder.glob("*.tar")}
        return bool(stamp["hash"] == expected_hash and stamp["shards"] == sizes)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_stamp(folder: Path, expected_hash: str, num_samples: int, paths: Sequence[Path]) -> None:
    """Declare a folder of shards complete, see `is_complete`; the last file to be written."""
    stamp = {"hash": expected_hash, "samples": num_samples, "shards": {p.name: p.stat().st_size for p in paths}}
    write_atomic(folder / STAMP, json.dumps(stamp, indent=1))


def _make_chunk(job: Job) -> list[RawSample]:
    """Make the samples of one job; runs in a worker process."""
    split, start, stop, seed, tasks = job
    if split == TEXT:
        return list(text_range(start, stop, seed, tasks))
    return list(generate_range(split, start, stop, seed, tasks))


def make_parallel(job: Job, num_processes: int, advance: Callable[[int], None] = lambda _: None) -> Iterator[RawSample]:
    """Yield a job's samples in order, made by several processes; the result does not depend on their number.

    Args:
        job: what to make.
        num_processes: 1 works in this process.
        advance: called with the number of samples after each chunk, for a progress bar.
    """
    split, start, stop, seed, tasks = job
    jobs = [(split, low, min(low + CHUNK, stop), seed, tasks) for low in range(start, stop, CHUNK)]
    # Not multiprocessing.Pool: a SIGTERM to the whole group killed its workers while one held the queue's lock, and the
    # pool's end then waited for that lock for ever (5 of 25 stops on 2 cores).
    for samples in map_in_order(_make_chunk, jobs, num_processes):
        yield from samples
        advance(len(samples))


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Let one process build at a time; the lock goes away with the process, also when it is killed."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def miniworld_root(settings: MiniworldConfig, data_dir: str) -> Path:
    """Name the folder of the splits: one a configuration, because two would make each other's shards anew."""
    name = hashlib.blake2b(repr(settings).encode(), digest_size=4).hexdigest()
    return Path(data_dir) / f"miniworld-{name}"


def _write_split(folder: Path, job: Job, samples_per_shard: int, num_processes: int, expected_hash: str) -> None:
    """Write one split from scratch, its stamp last."""
    split, start, stop, _, _ = job
    shutil.rmtree(folder, ignore_errors=True)
    columns = (TextColumn(f"miniworld {split:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Without automatic refresh no thread is running when the worker processes are forked.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        bar = progress.add_task(split, total=stop - start)
        samples = make_parallel(job, num_processes, lambda n: progress.update(bar, advance=n, refresh=True))
        paths = write_shards(samples, folder, samples_per_shard)
    write_stamp(folder, expected_hash, stop - start, paths)
    logger.info("miniworld: wrote %d samples of %s in %d shards", stop - start, split, len(paths))


def ensure_shards(cfg: MiniworldConfig, root: Path, num_processes: int = 2) -> dict[str, Path]:
    """Write the shards of all splits unless they are there already, and return each split's folder.

    A split is made again if its settings or the generator's source changed, or a shard is missing
    or has another size. Several processes may call this at once: the others wait for the first.

    Args:
        cfg: sizes, seed and tasks; a split of zero samples is left out.
        root: folder that gets one folder a split.
        num_processes: processes that paint; the bytes do not depend on it.
    Raises:
        ConfigError: unknown task.
    """
    sizes = {"pretrain": cfg.num_pretrain, "finetune": cfg.num_finetune, TEXT: cfg.num_text, "val": cfg.num_val}
    tasks = check_choice("val", cfg.tasks)
    folders = {split: root / split for split, number in sizes.items() if number > 0}
    with locked(root):
        for split, folder in folders.items():
            slow = check_choice(split, cfg.slow_tasks) if split == "finetune" and cfg.slow_tasks else ()
            job = (split, 0, sizes[split], cfg.seed, (*tasks, *slow))
            expected = _job_hash(job, cfg.samples_per_shard)
            if is_complete(folder, expected):
                logger.info("miniworld: %s is complete in %s", split, folder)
                continue
            _write_split(folder, job, cfg.samples_per_shard, num_processes, expected)
    return folders
