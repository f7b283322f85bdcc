"""Resume: the same bits as without an interruption, wherever it comes, and on another number of ranks."""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import torch

from internvl_lab.constants import STATE_KEY
from internvl_lab.errors import ResumeError
from internvl_lab.tracking import read_metrics
from internvl_lab.training.resume import RunPosition, rewrite_loop_counters


def rows_without_times(run_dir: Path) -> dict[str, list[Any]]:
    """Return the logged columns but for those that measure time; NaN-free, so == compares bits."""
    return {key: values for key, values in read_metrics(run_dir).items() if not key.startswith("perf/")}


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Compare two state dictionaries bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["stage", "seed", "packs_per_step"])
def test_a_checkpoint_of_another_run_is_refused(name: str) -> None:
    saved = {"stage": "stage1", "seed": 1, "packs_per_step": 4}
    RunPosition(**saved).check({**saved, "skipped_steps": 0})
    other = {**saved, name: "other"}
    with pytest.raises(ResumeError, match=f"{name}='other'"):
        RunPosition(**saved).check(other)


def test_rewritten_counters_are_lightnings_own(tiny: ModuleType, run_dir: Path) -> None:
    """At a checkpoint of the same accumulation the rewrite must say what Lightning counted itself."""
    tiny.fit(run_dir, tiny.tiny_stage(6), tiny.TinyData(6, 2), callbacks=[])
    path = run_dir / "stages" / "stage2" / "step_00000003.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    before = copy.deepcopy(checkpoint["loops"]["fit_loop"])
    rewrite_loop_counters(checkpoint, accumulation=2)
    after = checkpoint["loops"]["fit_loop"]
    assert after.keys() == before.keys()
    for key in before:
        if key not in ("epoch_loop.batch_progress", "epoch_loop.state_dict"):
            assert after[key] == before[key], key
    # saved when batch 6 is fetched but not begun; the rewrite says that it was never asked for
    assert before["epoch_loop.batch_progress"]["current"]["completed"] == 6
    assert after["epoch_loop.batch_progress"]["current"] == {"ready": 6, "started": 6, "processed": 6, "completed": 6}
    assert checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"] == {"_batches_that_stepped": 3}


def test_counters_follow_the_new_accumulation() -> None:
    checkpoint: dict[str, Any] = {"global_step": 5, "loops": {"fit_loop": {}}}
    rewrite_loop_counters(checkpoint, accumulation=8)
    loop = checkpoint["loops"]["fit_loop"]
    assert loop["epoch_loop.batch_progress"]["total"]["completed"] == 40
    assert loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"] == 5


@pytest.mark.parametrize("stop_after", [1, 4, 7, 9])
def test_resumed_run_equals_the_uninterrupted_one(tiny: ModuleType, tmp_path: Path, stop_after: int) -> None:
    """Stops between, at and after checkpoints (every 3 steps), with drop path, accumulation and validation."""
    stage = tiny.tiny_stage(10)

    def data() -> Any:
        return tiny.TinyData(10, 2)

    whole = tiny.fit(tmp_path / "whole", stage, data())
    broken = tmp_path / "broken"
    interrupted = tiny.tiny_module(stage)
    with pytest.raises(RuntimeError, match="power cut"):
        tiny.fit(broken, stage, data(), interrupted, callbacks=[PowerCut(stop_after)])
    torch.rand(stop_after)  # whatever this process draws must not matter
    resumed = tiny.fit(broken, stage, data())
    assert same_weights(resumed.model.state_dict(), whole.model.state_dict())
    assert rows_without_times(broken) == rows_without_times(tmp_path / "whole")
    assert (broken / "journal.jsonl").read_text() == (tmp_path / "whole" / "journal.jsonl").read_text()
    assert resumed.trainer.global_step == 10


class PowerCut(L.Callback):
    """Raise in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: Any, *_: Any) -> None:
        """Raise once the step is reached."""
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


def test_a_validation_that_ran_is_not_repeated(tiny: ModuleType, tmp_path: Path) -> None:
    """Step 6 is checkpointed after its validation; the resumed run must go on to step 7."""
    stage = tiny.tiny_stage(9)
    settings = {"val_check_interval": 6, "check_val_every_n_epoch": None}  # batches: every 3 steps
    tiny.fit(tmp_path / "whole", stage, tiny.TinyData(9, 2, val_packs=2), **settings)
    with pytest.raises(RuntimeError, match="power cut"):
        data = tiny.TinyData(9, 2, val_packs=2)
        tiny.fit(tmp_path / "broken", stage, data, callbacks=[PowerCut(7)], **settings)
    tiny.fit(tmp_path / "broken", stage, tiny.TinyData(9, 2, val_packs=2), **settings)
    rows = rows_without_times(tmp_path / "broken")
    assert rows == rows_without_times(tmp_path / "whole")
    assert sum(value is not None for value in rows["val/loss"]) == 3


def test_a_finished_stage_trains_no_further(tiny: ModuleType, run_dir: Path) -> None:
    stage = tiny.tiny_stage(4)
    first = tiny.fit(run_dir, stage, tiny.TinyData(4, 1))
    rows = read_metrics(run_dir)
    again = tiny.fit(run_dir, stage, tiny.TinyData(4, 1))
    assert same_weights(first.model.state_dict(), again.model.state_dict())
    assert read_metrics(run_dir) == rows


def test_another_seed_is_refused_at_resume(tiny: ModuleType, run_dir: Path) -> None:
    stage = tiny.tiny_stage(6)
    with pytest.raises(RuntimeError, match="power cut"):
        tiny.fit(run_dir, stage, tiny.TinyData(6, 1), callbacks=[PowerCut(4)])
    with pytest.raises(ResumeError, match="seed=7, this run has 8"):
        tiny.fit(run_dir, stage, tiny.TinyData(6, 1), tiny.tiny_module(stage, seed=8))


def test_guard_counts_are_part_of_the_checkpoint(tiny: ModuleType, run_dir: Path) -> None:
    tiny.fit(run_dir, tiny.tiny_stage(3), tiny.TinyData(3, 1))
    checkpoint = torch.load(run_dir / "stages" / "stage2" / "step_00000003.ckpt", weights_only=True)
    assert checkpoint[STATE_KEY] == {
        "stage": "stage2", "seed": 7, "packs_per_step": 1, "skipped_steps": 0, "bad_in_row": 0,
    }  # fmt: skip


def test_skipped_steps_are_remembered(tiny: ModuleType, run_dir: Path) -> None:
    def make(pack: int) -> Any:
        batch = tiny.tiny_batch(pack)
        if pack == 1:
            batch.loss_weights *= float("inf")  # 0 * inf is NaN: every weight is bad
        return batch

    stage = tiny.tiny_stage(6)
    with pytest.raises(RuntimeError, match="power cut"):
        tiny.fit(run_dir, stage, tiny.TinyData(6, 1, make), callbacks=[PowerCut(4)])
    tiny.fit(run_dir, stage, tiny.TinyData(6, 1, make))
    assert read_metrics(run_dir)["train/skipped_steps"] == [0, 1, 1, 1, 1, 1]


def test_nothing_is_said_that_does_not_hold(tiny: ModuleType, run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Lightning's tips and its warnings about frozen parts, loaders and hooks would only unsettle."""
    stage = tiny.tiny_stage(4, trainable=("projector",))
    with warnings.catch_warnings(record=True) as caught:
        tiny.silence_lightning()
        with pytest.raises(RuntimeError, match="power cut"):
            tiny.fit(run_dir, stage, tiny.TinyData(4, 1), callbacks=[PowerCut(3)])
        tiny.fit(run_dir, stage, tiny.TinyData(4, 1))
    assert [str(w.message) for w in caught if "lightning" in str(w.filename)] == []
    assert "litlogger" not in capfd.readouterr().err


def kill_after(command: list[str], run_dir: Path, rows: int) -> None:
    """Start the command and SIGKILL it, and its children, once `rows` steps are logged."""
    process = subprocess.Popen(
        [*command, str(run_dir), "--sleep", "0.02"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    metrics = run_dir / "metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.is_file() and metrics.read_bytes().count(b"\n") > rows:
            break
        time.sleep(0.001)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_kill_9_at_a_random_step(tiny_command: list[str], tmp_path: Path) -> None:
    """Killed twice, each time somewhere in a random step, then run to the end."""
    subprocess.run([*tiny_command, str(tmp_path / "whole")], check=True, timeout=300, capture_output=True)
    first = random.randint(1, 5)
    for rows in (first, first + random.randint(1, 5)):
        kill_after(tiny_command, tmp_path / "killed", rows)
    subprocess.run([*tiny_command, str(tmp_path / "killed")], check=True, timeout=300, capture_output=True)
    whole, killed = (torch.load(tmp_path / name / "final.pt") for name in ("whole", "killed"))
    assert same_weights(killed, whole)
    assert rows_without_times(tmp_path / "killed") == rows_without_times(tmp_path / "whole")
    assert (tmp_path / "killed" / "journal.jsonl").read_text() == (tmp_path / "whole" / "journal.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_resume_on_another_number_of_ranks(tiny_command: list[str], tmp_path: Path, before: int, after: int) -> None:
    """No pack is skipped or seen twice, and the result is that of one rank."""

    def run(folder: str, *arguments: str) -> None:
        command = [*tiny_command, str(tmp_path / folder), "--packs", "4", *arguments]
        subprocess.run(command, check=True, timeout=300, capture_output=True)

    run("whole")
    run("moved", "--devices", str(before), "--stop-after", "5")
    run("moved", "--devices", str(after))
    whole, moved = (torch.load(tmp_path / name / "final.pt") for name in ("whole", "moved"))
    for name, weight in whole.items():  # measured 1.2e-7
        assert torch.allclose(moved[name], weight, rtol=0, atol=1e-6), name
    assert read_metrics(tmp_path / "moved")["samples"][-2] == read_metrics(tmp_path / "whole")["samples"][-2]
