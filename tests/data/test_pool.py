"""Work in processes: in order, no more in flight than allowed, and one clear error when a worker dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from internvl_lab.data.pool import IN_FLIGHT, map_in_order, progress_bar, usable_cpus
from internvl_lab.errors import InternVLLabError, SampleError


def square(value: int) -> int:
    return value * value


def die(value: int) -> int:
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def fail(value: int) -> int:
    raise SampleError(f"k{value}", "bad")


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_results_come_in_order_and_items_as_needed(num_workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 1000:
            yield taken
            taken += 1

    results = map_in_order(square, items(), num_workers)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert taken <= 5 + IN_FLIGHT * num_workers
    results.close()  # type: ignore[attr-defined]
    assert list(map_in_order(square, range(50), num_workers)) == [i * i for i in range(50)]
    assert list(map_in_order(square, [], num_workers)) == []


def test_errors_arrive() -> None:
    for num_workers in (0, 2):
        with pytest.raises(SampleError, match="k0: bad"):
            list(map_in_order(fail, range(5), num_workers))


def test_a_dead_worker_is_one_clear_error() -> None:
    with pytest.raises(InternVLLabError, match="a worker process died"):
        list(map_in_order(die, range(50), 2))


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as bar:
        list(bar.track(range(3)))
    assert capsys.readouterr() == ("", "")
    assert usable_cpus() >= 1
