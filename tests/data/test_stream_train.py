"""Streams through `train.py`: from commands, from a plain web server on two ranks, stopped and resumed, or failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from internvl_lab.data.miniworld import generate
from internvl_lab.data.shards import write_shards

pytestmark = pytest.mark.slow

RUN = (
    "debug=tiny",
    "stage=stage1",
    "stage.packs_per_step=2",
    "packing.max_tokens=512",
    "packing.max_tiles=16",
    "data.journal=true",
    "evaluation.enabled=false",
    "callbacks.model_summary=false",
    "callbacks.progress_bar=false",
    "logger=csv",
    "init_from={vision: null, projector: null, language: null}",
    "~data.mixtures.val",
)


class Train:
    """Run `train.py` on shards that its configuration names as a stream."""

    def __init__(self, repository: Path, root: Path) -> None:
        self.repository, self.root, self.tars = repository, root, root / "tars"
        self.samples = list(generate("pretrain", 66, seed=0))
        write_shards(iter(self.samples), self.tars, 22)

    def start(self, shards: str, *overrides: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.repository / "train.py"), *RUN, *overrides]
        command += [f"paths.output_dir={self.root / 'out'}", f"paths.data_dir={self.root / 'data'}"]
        command += [f"data.mixtures.pretrain.pretrain.shards='{shards}'"]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __call__(self, shards: str, *overrides: str) -> tuple[int, str, str]:
        run = self.start(shards, *overrides)
        out, err = run.communicate(timeout=600)
        return run.returncode, out, err

    def journal(self, name: str = "journal.jsonl") -> list[list[str]]:
        (path,) = (self.root / "out").glob(f"quickstart/*/{name}")
        return [json.loads(line)["keys"] for line in path.read_text().splitlines()]


@pytest.fixture
def train(repository: Path, tmp_path: Path) -> Train:
    return Train(repository, tmp_path)


def test_a_command_is_streamed_stopped_and_resumed(train: Train) -> None:
    shards = f"pipe:cat {train.tars}/shard-{{000000..000002}}.tar"
    options = ("max_steps_per_stage=60", "data.num_workers=2")
    run = train.start(shards, *options)
    deadline = time.monotonic() + 600
    while not list(train.root.glob("out/quickstart/*/journal.jsonl")) or len(train.journal()) < 12:
        assert time.monotonic() < deadline and run.poll() is None, run.communicate()
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGTERM)
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    assert "stage stage1: pretrain is streamed, 3 tars by 2 readers" in out
    first = train.journal()
    assert 12 <= len(first) < 60
    status, out, err = train(shards, *options)
    assert status == 0, err
    assert f"a stream does not resume exactly: step {len(first)} goes on with the beginning of epoch" in out
    whole = train.journal()
    assert whole[: len(first)] == first and len(whole) == 60
    counts = Counter(key for keys in whole for key in keys)
    assert set(counts) == {sample.key for sample in train.samples}


def test_a_plain_web_server_feeds_two_ranks(train: Train, plain_server: Any) -> None:
    plain_server.folder = train.tars
    urls = f"{plain_server.url}/shard-{{000000..000002}}.tar"
    status, _, err = train(
        urls, "+data.mixtures.pretrain.pretrain.stream=true", "max_steps_per_stage=30", "trainer=ddp_sim"
    )
    assert status == 0, err
    ranks = [train.journal(f"journal.rank{rank}.jsonl") for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == 30
    seen = {key for rank in ranks for keys in rank for key in keys}
    assert seen == {sample.key for sample in train.samples}


def test_a_command_that_fails_is_one_line(train: Train) -> None:
    status, out, err = train(f"pipe:cat {train.tars}/shard-000000.tar::pipe:cat /gone.tar", "max_steps_per_stage=500")
    assert status == 2
    assert err.strip().splitlines()[-1] == (
        "error: pipe:cat /gone.tar ended with status 1: cat: /gone.tar: No such file or directory"
    ), err + out
