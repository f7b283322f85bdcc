"""Pack fill and lost samples."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from internvl_lab.data.batch import Batch
from internvl_lab.tracking import read_metrics
from internvl_lab.training import PackMonitor


def test_fill_is_the_share_of_the_budget(tiny: ModuleType, run_dir: Path) -> None:
    tiny.fit(run_dir, tiny.tiny_stage(2), tiny.TinyData(2, 2))
    metrics = read_metrics(run_dir)
    packs = [tiny.tiny_batch(k) for k in range(4)]
    for step in range(2):
        mine = packs[2 * step : 2 * step + 2]
        assert metrics["data/pack_fill_tokens"][step] == pytest.approx(sum(b.num_tokens for b in mine) / 2 / 64)
        assert metrics["data/pack_fill_tiles"][step] == pytest.approx(sum(b.num_tiles for b in mine) / 2 / 4)


def test_lost_samples_are_counted(tiny: ModuleType, run_dir: Path) -> None:
    def make(pack: int) -> Batch:
        batch = tiny.tiny_batch(pack)
        batch.bad_samples = [(f"bad{i}", "corrupt_image", "") for i in range(pack % 3)]
        return batch

    tiny.fit(run_dir, tiny.tiny_stage(4), tiny.TinyData(4, 1, make))
    assert read_metrics(run_dir)["data/skipped"] == [0, 1, 3, 3]


def test_count_survives_a_restart(tiny: ModuleType) -> None:
    first, second = PackMonitor(tiny.PACKING), PackMonitor(tiny.PACKING)
    first.skipped = 4
    second.load_state_dict(first.state_dict())
    assert second.skipped == 4
