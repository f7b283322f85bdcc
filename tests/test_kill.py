"""kill -9, SIGTERM and SIGUSR1 at random moments, then the same command: the run ends as if nothing had happened.

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


def start(repository, root, name, *overrides):
    """Start the command in a process group of its own."""
    command = [sys.executable, str(repository / "train.py"), *RUN, *overrides]
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


def output(root, name):
    return (root / f"{name}.log").read_text()


def signal_group(process, signum):
    """Signal the run and its loader workers, as a cluster does; a stopped run ends with status 0."""
    os.killpg(process.pid, signum)
    status = process.wait(timeout=120)
    assert status == (-signal.SIGKILL if signum == signal.SIGKILL else 0)


def run_with_kills(repository, root, name, kill_after, signals=(signal.SIGKILL,)):
    """Signal the run each time it has logged some more steps; then let it end."""
    for number, steps in enumerate(kill_after):
        goal = logged_steps(root, name) + steps
        process = start(repository, root, name)
        deadline = time.monotonic() + 240
        while logged_steps(root, name) < goal and process.poll() is None:
            assert time.monotonic() < deadline, output(root, name)[-3000:]
            time.sleep(0.02)
        signal_group(process, signals[number % len(signals)])
    assert start(repository, root, name).wait(timeout=400) == 0, output(root, name)[-3000:]
    return (root / name / "latest").resolve()


def draw_steps(number):
    draw = random.Random(os.environ.get("KILL_SEED", "7"))
    return [draw.randint(2, 11) for _ in range(number)]


def assert_equal_runs(killed, whole):
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


@pytest.fixture(scope="module")
def whole(repository, tmp_path_factory):
    """An uninterrupted run: (root with its data, run folder)."""
    root = tmp_path_factory.mktemp("kill")
    return root, run_with_kills(repository, root, "whole", kill_after=())


@pytest.mark.slow
def test_killed_runs_end_bit_equal_to_an_uninterrupted_one(repository, whole):
    root, expected = whole
    assert_equal_runs(run_with_kills(repository, root, "killed", draw_steps(4)), expected)


@pytest.mark.slow
def test_stopped_runs_end_bit_equal_to_an_uninterrupted_one(repository, whole):
    """Nothing is lost, so the stops are where the signals came, and no step is trained twice."""
    root, expected = whole
    steps, signals = draw_steps(3), (signal.SIGTERM, signal.SIGUSR1)
    assert_equal_runs(run_with_kills(repository, root, "stopped", steps, signals), expected)
    said = [line for line in output(root, "stopped").splitlines() if line.startswith("stopped by SIG")]
    assert len(said) == len(steps)
    assert all("the same command continues" in line for line in said)
    assert "Traceback" not in output(root, "stopped")


@pytest.mark.slow
def test_data_generation_and_evaluation_stop_in_one_line_and_continue(repository, tmp_path):
    """Signals that come before the first stage and after the last one."""
    long = ("stage=stage1", "data.miniworld.num_val=440", "evaluation.enabled=true", "evaluation.samples_per_task=40")
    long += ("data.miniworld.num_pretrain=4000", "evaluation.max_new_tokens=48", "max_steps_per_stage=2")
    moments = {"generating": "data/*/pretrain/*.tar*", "evaluating": "outputs/quickstart/*/stages/stage1/done.json"}
    for moment, pattern in moments.items():
        process = start(repository, tmp_path, "outputs", *long)
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob(pattern)):
            assert time.monotonic() < deadline and process.poll() is None, output(tmp_path, "outputs")[-3000:]
            time.sleep(0.02)
        signal_group(process, signal.SIGTERM)
        text = output(tmp_path, "outputs")
        assert text.rstrip().endswith("stopped by SIGTERM; the same command continues"), (moment, text[-3000:])
        assert "Traceback" not in text
        assert not list(tmp_path.glob("outputs/quickstart/*/finished.json"))
    assert start(repository, tmp_path, "outputs", *long).wait(timeout=400) == 0, output(tmp_path, "outputs")[-3000:]
    assert list(tmp_path.glob("outputs/quickstart/*/finished.json"))
