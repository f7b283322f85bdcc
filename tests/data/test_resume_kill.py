"""kill -9 at random packs, other workers and ranks at every start: the joined stream is the uninterrupted one."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from internvl_lab.config import DataConfig, RunConfig, SourceConfig, StageConfig
from internvl_lab.data.shards import write_shards
from internvl_lab.text import ChatTemplate

sys.path.insert(0, str(Path(__file__).parent))  # the processes of the fork server import it by this name
import stream_driver as driver

STEPS = 30
STAGE = StageConfig(name="stage1", mixture="pretrain", max_steps=STEPS)
PACKS = STEPS * 4
STARTS = {
    "no workers": [(1, 0), (1, 0), (1, 0)],
    "2 workers": [(1, 2), (1, 2), (1, 2)],
    "4 workers": [(1, 4), (1, 4), (1, 4)],
    "workers 0-4-2": [(1, 0), (1, 4), (1, 2)],
    "workers 4-0-1": [(1, 4), (1, 0), (1, 1)],
    "ranks 1-2-1": [(1, 2), (2, 1), (1, 0)],
    "ranks 2-1-2": [(2, 0), (1, 2), (2, 1)],
}
"""(ranks, workers of each rank) of each start; all but the last are killed."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, kit: SimpleNamespace) -> dict[str, SourceConfig]:
    """Every kind of sample, fractional repeats, another tile limit, and two pictures that do not decode."""
    root = tmp_path_factory.mktemp("sources")
    write_shards((kit.sample(i) for i in range(60)), root / "much", 25)
    write_shards((kit.sample(i) for i in range(60, 90)), root / "little", 7)
    members = []
    for i in range(10):
        data = kit.picture(40, 40, i, "JPEG")
        members += [(f"f{i}.0.jpg", data[: len(data) // 2] if i in (2, 7) else data)]
        members += [(f"f{i}.json", kit.record_bytes(image="x.jpg"))]
    kit.write_tar(root / "faulty" / "s.tar", members)
    return {
        "much": SourceConfig(shards=str(root / "much"), repeat=1.3),
        "little": SourceConfig(shards=str(root / "little"), repeat=0.4, max_tiles=2, weight=2.0),
        "faulty": SourceConfig(shards=str(root / "faulty"), repeat=0.5),
    }


@pytest.fixture
def job(sources: dict[str, SourceConfig], kit: SimpleNamespace, template: ChatTemplate, run_dir: Path) -> driver.Job:
    data = DataConfig(mixtures={"pretrain": sources}, max_bad_share=1.0)
    cfg = RunConfig(seed=5, data=data, tiling=kit.tiling, packing=kit.packing)
    return driver.Job(cfg, STAGE, template, kit.cost, run_dir)


@pytest.fixture(scope="module")
def whole(
    sources: dict[str, SourceConfig],
    kit: SimpleNamespace,
    template: ChatTemplate,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[driver.Line], list[str]]:
    """The uninterrupted stream, and its quarantine."""
    data = DataConfig(mixtures={"pretrain": sources}, max_bad_share=1.0)
    cfg = RunConfig(seed=5, data=data, tiling=kit.tiling, packing=kit.packing)
    job = driver.Job(cfg, STAGE, template, kit.cost, tmp_path_factory.mktemp("whole"))
    lines = [driver.describe(batch) for batch in job.module().train_dataloader()]
    assert [line["pack"] for line in lines] == list(range(PACKS))
    assert sum(len(line["bad"]) for line in lines) > 2
    return lines, quarantined(job)


def quarantined(job: driver.Job) -> list[str]:
    """All ranks' quarantine lines."""
    return sorted(line for path in job.folder.glob("quarantine*.jsonl") for line in path.read_text().splitlines())


def run_with_kills(job: driver.Job, starts: list[tuple[int, int]], draw: random.Random) -> list[int]:
    """Run every start, kill all but the last; return the packs that were finished before each, and at the end."""
    bounds = [0]
    for number, (world_size, num_workers) in enumerate(starts):
        ranks = driver.launch(job, number, world_size, num_workers)
        if number + 1 < len(starts):
            left = (PACKS - bounds[-1]) // world_size
            driver.kill_at(job, number, ranks, draw.randint(1, max(1, left * 2 // 3)))
        else:
            driver.finish(ranks)
        bounds.append(job.next_pack())
    return bounds


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS)
def test_killed_readers_give_the_uninterrupted_stream(
    job: driver.Job, whole: tuple[list[driver.Line], list[str]], starts: list[tuple[int, int]], seed: int
) -> None:
    expected, bad = whole
    bounds = run_with_kills(job, starts, random.Random(f"{starts} {seed}"))
    world_sizes = [world_size for world_size, _ in starts]
    assert list(driver.committed(job, bounds, world_sizes)) == expected
    for start, world_size in enumerate(world_sizes):  # also what was read and not finished, and so comes again
        for line in (line for rank in range(world_size) for line in driver.read_lines(job, start, rank)):
            assert line == expected[line["pack"]]
    assert quarantined(job) == bad
    assert len(job.state.read_bytes()) <= 1024


def test_every_start_sees_the_same_stream_for_any_number_of_ranks(
    job: driver.Job, whole: tuple[list[driver.Line], list[str]]
) -> None:
    """The same without processes: 1, 2 and 4 ranks, from the middle of an epoch."""
    for world_size in (1, 2, 4):
        lines = []
        for rank in range(world_size):
            module = job.module(rank, world_size)
            module.commit(17)
            lines += [driver.describe(batch) for batch in module.train_dataloader()]
        assert sorted(lines, key=lambda line: int(line["pack"])) == whole[0][17 * 4 :]


def test_files_of_ranks_that_are_gone_are_cut_back_too(job: driver.Job) -> None:
    entries = [{"stage": "stage1", "key": f"k{step}", "step": step} for step in (1, 3)]
    for name in ("quarantine.jsonl", "quarantine.rank1.jsonl", "quarantine.rank3.jsonl"):
        (job.folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    module = job.module(0, 2)
    module.commit(2)
    module.train_dataloader()
    kept = {path.name: path.read_text().count("\n") for path in job.folder.glob("quarantine*")}
    assert kept == {"quarantine.jsonl": 1, "quarantine.rank1.jsonl": 2, "quarantine.rank3.jsonl": 1}
