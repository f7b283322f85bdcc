"""A spool: what comes through it is indexed as if it lay in a shard."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from internvl_lab.data import spool as module
from internvl_lab.data.index import build_index
from internvl_lab.data.spool import Spool
from internvl_lab.data.tar_stream import read_tar
from internvl_lab.errors import ShardError
from internvl_lab.text import ChatTemplate


def test_its_index_is_that_of_the_shards(shards_dir: Path, template: ChatTemplate) -> None:
    spool, paths = Spool(), sorted(map(str, shards_dir.glob("*.tar")))
    for path in paths:
        for key, parts in read_tar(path, []):
            spool.add(0, path, key, parts)
    assert spool.index(1, template) is None
    found, expected = spool.index(0, template), build_index(shards_dir, template)
    assert found is not None and not found.problems and found.key.tolist() == expected.key.tolist()
    for name, column in expected.arrays().items():
        if not name.endswith("_offset"):
            assert np.array_equal(found.arrays()[name], column), name
    for row in (0, 31, 99):
        assert found.read_json(row) == expected.read_json(row)
        assert found.read_images(row) == expected.read_images(row)
        assert found.shard_set.location(int(found.shard[row])) == paths[row // 25]
    spool.close()


def test_faults_name_the_tar(kit: SimpleNamespace, template: ChatTemplate) -> None:
    spool = Spool()
    spool.add(0, "pipe:a", "one", {"json": kit.record_bytes()})
    spool.add(0, "pipe:a", "two", {"json": b"{"})
    spool.add(1, "pipe:c", "one", {"json": kit.record_bytes()})
    spool.add(0, "pipe:b", "one", {"json": kit.record_bytes()})
    spool.add(0, "pipe:b", "../up", {"json": kit.record_bytes()})
    first, second = spool.index(0, template), spool.index(1, template)
    assert first is not None and second is not None
    assert [(shard, key, reason) for shard, key, reason, _ in first.problems] == [
        ("pipe:a", "two", "bad_json"), ("pipe:b", "../up", "path_traversal"), ("pipe:b", "one", "duplicate_key"),
    ]  # fmt: skip
    assert first.key.tolist() == second.key.tolist() == ["one"] and not second.problems
    assert (spool.num_samples, spool.num_bytes) == (5, 4 * len(kit.record_bytes()) + 1)


def test_no_room_is_said(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "TemporaryFile", Full)
    with pytest.raises(ShardError, match=r"cannot be kept \(TMPDIR says where\): .*No space left"):
        Spool().add(0, "a", "k", {"json": b"{}"})
