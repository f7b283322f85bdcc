"""kill -9 in the middle of writing a checkpoint, through `train.py`: what is half written is never read.

The kill comes from `sitecustomize.py`, which Python imports at its start: the program itself knows nothing of it.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SITE = """
import os, signal, sys

kind, _, number = os.environ["KILL_WRITING"].partition(":")
left = int(number or 0)


def watch(event, args):
    global left
    if kind == "half" and event == "shutil.move" and ".writing-" in str(args[1]):
        left -= 1
        if left == 0:  # as a move to another file system leaves it
            data = open(args[0], "rb").read()
            with open(args[1], "wb") as target:
                target.write(data[: len(data) // 2])
            os.killpg(0, signal.SIGKILL)
    if kind == "whole" and event == "open" and ".writing-" in str(args[0]):
        left -= 1
        if left == 0:  # written, and about to be given its name
            os.killpg(0, signal.SIGKILL)


sys.addaudithook(watch)
"""
STEPS, PACKS = 14, 2
RUN = (
    "debug=tiny",
    "stage=stage1",
    f"max_steps_per_stage={STEPS}",
    "stage.checkpoint_every=3",
    "packing.max_tokens=512",
    "packing.max_tiles=16",
    "data.num_workers=1",
    "data.journal=true",
    "evaluation.enabled=false",
    "callbacks.model_summary=false",
    "callbacks.progress_bar=false",
    "logger=csv",
    "init_from={vision: null, projector: null, language: null}",
)


class Command:
    """Run `train.py` in a process group of its own, killed at a moment that the environment names."""

    def __init__(self, repository: Path, root: Path) -> None:
        self.repository, self.root = repository, root
        (root / "site").mkdir(exist_ok=True)
        (root / "site" / "sitecustomize.py").write_text(SITE)

    def __call__(self, name: str, kill: str = "", *overrides: str) -> int:
        command = [sys.executable, str(self.repository / "train.py"), *RUN, *overrides]
        command += [f"stage.packs_per_step={PACKS}", f"paths.output_dir={self.root / name}"]
        command += [f"paths.data_dir={self.root / 'data'}"]
        path = os.pathsep.join(filter(None, [str(self.root / "site"), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "KILL_WRITING": kill}
        with (self.root / f"{name}.log").open("ab") as log:
            run = subprocess.run(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, timeout=600, check=False
            )
        return run.returncode

    def folder(self, name: str) -> Path:
        (found,) = (path.parent for path in (self.root / name).glob("quickstart/*/config.yaml"))
        return found

    def checkpoints(self, name: str) -> list[str]:
        return sorted(path.name for path in (self.folder(name) / "stages/stage1/checkpoints").iterdir())


def journal(folder: Path, name: str = "journal.jsonl") -> list[list[str]]:
    entries = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, len(entries) + 1))
    return [entry["keys"] for entry in entries]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def command(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command, with an uninterrupted run `whole` to compare with."""
    command = Command(repository, tmp_path_factory.mktemp("train"))
    assert command("whole") == 0, (command.root / "whole.log").read_text()[-3000:]
    keys = Counter(key for step in journal(command.folder("whole")) for key in step)
    assert len(keys) == 66 and max(keys.values()) >= 2  # past the end of the first epoch
    return command


@pytest.mark.slow
def test_kills_while_a_checkpoint_is_written(command: Command) -> None:
    assert command("killed", "half:2") == -signal.SIGKILL
    left = command.folder("killed") / "stages/stage1/checkpoints"
    assert command.checkpoints("killed") == [".writing-step_00000006.ckpt", "step_00000003.ckpt"]
    half = (left / ".writing-step_00000006.ckpt").stat().st_size
    assert 0 < half < (left / "step_00000003.ckpt").stat().st_size * 0.6
    assert command("killed", "whole:2") == -signal.SIGKILL
    assert command.checkpoints("killed") == [".writing-step_00000009.ckpt", "step_00000003.ckpt", "step_00000006.ckpt"]
    assert command("killed") == 0, (command.root / "killed.log").read_text()[-3000:]
    killed, whole = command.folder("killed"), command.folder("whole")
    assert not list((killed / "stages").rglob(".writing-*"))
    assert journal(killed) == journal(whole)
    assert rows(killed) == rows(whole)
    found, expected = (load_file(run / "stages/stage1/weights/model.safetensors") for run in (killed, whole))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.slow
def test_ranks_1_2_1_through_train_py(command: Command) -> None:
    """The weights differ by the order of sums on two ranks; the samples of every step do not."""
    assert command("ranks", "whole:2", "trainer=cpu") == -signal.SIGKILL
    assert command("ranks", "half:2", "trainer=ddp_sim") == -signal.SIGKILL
    assert "step_00000006.ckpt" in command.checkpoints("ranks")
    folder = command.folder("ranks")
    alone = journal(folder)
    halves = [
        {entry["step"]: entry["keys"] for entry in map(json.loads, (folder / name).read_text().splitlines())}
        for name in ("journal.rank0.jsonl", "journal.rank1.jsonl")
    ]
    assert command("ranks", "", "trainer=cpu") == 0, (command.root / "ranks.log").read_text()[-3000:]
    whole = journal(command.folder("whole"))
    assert alone == whole[: len(alone)]
    assert set(halves[0]) == set(halves[1]) >= {4, 5, 6}
    for step in halves[0]:
        assert halves[0][step] + halves[1][step] == whole[step - 1]
    last = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert [entry["keys"] for entry in last if entry["step"] > 6] == whole[6:]
