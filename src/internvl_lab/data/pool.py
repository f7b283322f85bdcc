"""Spread work over processes, with results in order, bounded memory, and a clear end when a worker dies."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from internvl_lab.data.parent import exit_with_parent, signals_held
from internvl_lab.errors import InternVLLabError

A = TypeVar("A")
B = TypeVar("B")

IN_FLIGHT = 4
"""Items a worker that are handed out before the first of them has to be ready."""


def map_in_order(function: Callable[[A], B], items: Iterable[A], num_workers: int) -> Iterator[B]:
    """Apply a function to items that are taken as they are needed, and yield the results in order.

    Args:
        function: reaches the workers once, not with every item.
        num_workers: processes; 0 or 1 = this one.
    Raises:
        InternVLLabError: a worker died.
    """
    if num_workers <= 1:
        yield from map(function, items)
        return
    pending: deque[Future[B]] = deque()
    pool = ProcessPoolExecutor(num_workers, initializer=_begin, initargs=(function,))
    try:
        for item in items:
            with signals_held():
                pending.append(pool.submit(_call, item))
            if len(pending) >= IN_FLIGHT * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise InternVLLabError(
            f"a worker process died, perhaps for lack of memory: use fewer workers ({error})"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cpus() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def progress_bar(enabled: bool | None = None) -> Progress:
    """Build a progress bar on standard error.

    Args:
        enabled: None = only where a person looks at a terminal.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    shown = sys.stderr.isatty() if enabled is None else enabled
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


_work: list[Callable[[Any], Any]] = []
"""What this process does as a worker."""


def _begin(function: Callable[[Any], Any]) -> None:
    """Prepare a worker."""
    exit_with_parent()
    _work.append(function)


def _call(item: Any) -> Any:
    """Do one item's work in a worker."""
    return _work[-1](item)
