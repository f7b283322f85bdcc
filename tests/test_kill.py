"""kill -9 at random moments, then the same command again: the run ends as if nothing had happened.

What may differ is time: the `perf/` columns. Everything else, weights included, is compared to the bit.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

STAGES = ("stage1", "stage1_5", "stage2")
RUN = (
    "debug=tiny",
    "max_steps_per_stage=12",
    "recipe.stages.stage1.checkpoint_every=3",
    "recipe.stages.stage1_5.checkpoint_every=4",
    "recipe.stages.stage2.checkpoint_every=5",
    "recipe.stages.stage2.drop_path_rate=0.2",
    "packing.max_tokens=512",
    "packing.max_tiles=16",
    "packing.packs_per_step=2",
    "data.miniworld.num_pretrain=220",
    "data.miniworld.num_finetune=220",
    "data.num_workers=1",
    "data.journal=true",
    "evaluation.enabled=false",
    "logger=csv",
    "init_from={vision: null, projector: null, language: null}",
)


def start(repository, root, name):
    """Start the command in a process group of its own."""
    command = [sys.executable, str(repository / "train.py"), *RUN]
    command += [f"paths.output_dir={root}/{name}", f"paths.data_dir={root}/data"]
    log = (root / f"{name}.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def rows(folder):
    """Read metrics.csv without what depends on the clock."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]


def journal(folder):
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def logged_steps(root, name):
    files = list((root / name).glob("quickstart/*/metrics.csv"))
    return max(0, sum(file.read_bytes().count(b"\n") - 1 for file in files))


def run_with_kills(repository, root, name, kill_after):
    """Kill the run each time it has logged some more steps; then let it end."""
    for steps in kill_after:
        goal = logged_steps(root, name) + steps
        process = start(repository, root, name)
        deadline = time.monotonic() + 240
        while logged_steps(root, name) < goal and process.poll() is None:
            assert time.monotonic() < deadline, (root / f"{name}.log").read_text()[-3000:]
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(repository, root, name).wait(timeout=400) == 0, (root / f"{name}.log").read_text()[-3000:]
    return (root / name / "latest").resolve()


@pytest.mark.slow
def test_killed_runs_end_bit_equal_to_an_uninterrupted_one(repository, tmp_path):
    whole = run_with_kills(repository, tmp_path, "whole", kill_after=())
    draw = random.Random(os.environ.get("KILL_SEED", "7"))
    killed = run_with_kills(repository, tmp_path, "killed", [draw.randint(2, 11) for _ in range(4)])
    for stage in STAGES:
        expected = load_file(whole / "stages" / stage / "weights" / "model.safetensors")
        found = load_file(killed / "stages" / stage / "weights" / "model.safetensors")
        assert expected.keys() == found.keys()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items()), stage
    assert rows(killed) == rows(whole)
    assert journal(killed) == journal(whole)
    assert [(entry["stage"], entry["step"]) for entry in journal(whole)] == [
        (s, n) for s in STAGES for n in range(1, 13)
    ]
