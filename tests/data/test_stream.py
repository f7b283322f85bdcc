"""Streams: every sample once an epoch whoever reads, in bounded windows, in an order that the seed fixes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.config import SourceConfig
from internvl_lab.data import stream
from internvl_lab.data.stream import Reader, StreamSource, read_windows, share_out
from internvl_lab.errors import ShardError

ALONE = Reader(0, 1)


@pytest.fixture
def source(shards_dir: Path) -> StreamSource:
    return StreamSource("a", SourceConfig(), tuple(f"pipe:cat {path}" for path in sorted(shards_dir.glob("*.tar"))))


def keys(sources: list[StreamSource], epoch: int = 0, reader: Reader = ALONE, size: int = 30) -> list[list[str]]:
    """Read the keys of each window."""
    windows = []
    for window in read_windows(sources, 1, epoch, reader, size):
        by_tar = [members for tars in window.spool._members.values() for members in tars.values()]
        ordered = sorted((member for members in by_tar for member in members), key=lambda member: member.offset)
        windows.append(list(dict.fromkeys(member.name.partition(".")[0] for member in ordered)))
        assert len(windows[-1]) == window.spool.num_samples
    return windows


@given(st.integers(1, 12), st.integers(1, 40))
def test_readers_share_every_sample_of_every_tar_out(num_tars: int, readers: int) -> None:
    tars = [f"{i}.tar" for i in range(num_tars)]
    taken: Counter[tuple[str, int]] = Counter()
    for number in range(readers):
        for tar, first, step in share_out(tars, Reader(number, readers)):
            taken.update((tar, sample) for sample in range(first, 100, step))
    assert set(taken.values()) == {1} and len(taken) == num_tars * 100


@pytest.mark.parametrize("readers", [1, 2, 3, 7])
def test_an_epoch_holds_every_sample_once(source: StreamSource, readers: int) -> None:
    for epoch in (0, 1):
        read = [keys([source], epoch, Reader(number, readers)) for number in range(readers)]
        flat = [key for windows in read for window in windows for key in window]
        assert sorted(flat) == [f"s{i:05d}" for i in range(100)]


def test_windows_are_bounded(source: StreamSource, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(window) for window in keys([source])] == [30, 30, 30, 10]
    assert [len(window) for window in keys([source], size=50)] == [50, 50]
    monkeypatch.setattr(stream, "WINDOW_BYTES", 20_000)
    sizes = [window.spool.num_bytes for window in read_windows([source], 1, 0, Reader(0, 1), 1000)]
    assert len(sizes) > 3 and max(sizes) < 40_000


def test_the_order_follows_from_seed_and_epoch(source: StreamSource) -> None:
    assert keys([source]) == keys([source])
    assert keys([source]) != keys([source], epoch=1)
    seeds = {window.seed for epoch in (0, 1) for window in read_windows([source], 1, epoch, Reader(0, 1), 30)}
    assert len(seeds) == 8


def test_sources_are_mixed_in_proportion(source: StreamSource, kit: SimpleNamespace, tmp_path: Path) -> None:
    texts = [
        kit.write_tar(tmp_path / f"{n}.tar", [(f"t{n}{i}.json", kit.record_bytes()) for i in range(25)]) for n in "ab"
    ]
    small = StreamSource("b", SourceConfig(), tuple(map(str, texts)))
    windows = keys([source, small])
    assert sum(map(len, windows)) == 150
    for window in windows[:3]:
        assert 3 <= sum(key.startswith("t") for key in window) <= 17  # a third of 30 on average
    assert sum(key.startswith("t") for window in windows for key in window) == 50


def test_a_tar_that_fails_ends_the_reading(source: StreamSource) -> None:
    broken = StreamSource("a", SourceConfig(), (*source.tars, "pipe:false"))
    with pytest.raises(ShardError, match="pipe:false ended with status 1"):
        keys([broken])
