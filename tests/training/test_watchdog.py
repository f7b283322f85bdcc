"""The watchdog: one report a hang, with stacks, rank and samples; silence while packs come."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest

from internvl_lab.training.watchdog import ABORT_STATUS, Watchdog


def sleep_here_for_the_stack(seconds: float) -> None:
    time.sleep(seconds)


class SleepAt(L.Callback):
    """Hang in one step."""

    def __init__(self, step: int, seconds: float) -> None:
        self.step, self.seconds = step, seconds

    def on_before_zero_grad(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step + 1 == self.step:
            sleep_here_for_the_stack(self.seconds)


def reports(run_dir: Path) -> list[str]:
    path = run_dir / "hang.rank0.txt"
    return [line for line in path.read_text().splitlines() if "rank 0 hangs" in line] if path.exists() else []


def test_a_hang_in_a_step_names_the_samples_and_shows_the_stacks_once(
    tiny: ModuleType, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        callbacks = [Watchdog(run_dir, 0.3), SleepAt(3, 1.5)]
        module = tiny.fit(run_dir, tiny.tiny_stage(5), tiny.TinyData(5, 1), callbacks=callbacks)
    assert module.trainer.global_step == 5, "carried on"
    keys = ", ".join(tiny.tiny_batch(2).sample_keys)
    assert len(reports(run_dir)) == 1, "once, although the hang is five times as long"
    assert f"stage2, step 3, working on the pack of samples {keys} for more than 0.3 s" in reports(run_dir)[0]
    assert "sleep_here_for_the_stack" in (run_dir / "hang.rank0.txt").read_text()
    assert "rank 0 hangs" in caplog.text
    assert "hang.rank0.txt" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_a_hang_while_fetching_is_told_apart_and_two_hangs_are_two_reports(tiny: ModuleType, run_dir: Path) -> None:
    def make(pack: int) -> Any:
        if pack in (3, 6):
            time.sleep(1.0)
        return tiny.tiny_batch(pack)

    tiny.fit(run_dir, tiny.tiny_stage(9), tiny.TinyData(9, 1, make), callbacks=[Watchdog(run_dir, 0.3)])
    assert len(reports(run_dir)) == 2
    assert all("fetching the next pack" in line for line in reports(run_dir))


def test_a_run_that_goes_on_is_never_reported(tiny: ModuleType, run_dir: Path) -> None:
    """Longer than the timeout in all, no pack longer than it; validation counts as going on."""

    class Steady(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            time.sleep(0.05)

        def on_validation_batch_end(self, *_: Any) -> None:
            time.sleep(0.05)

    callbacks = [Steady(), Watchdog(run_dir, 1.0)]
    data = tiny.TinyData(12, 1, val_packs=25)
    tiny.fit(run_dir, tiny.tiny_stage(12), data, callbacks=callbacks)
    assert reports(run_dir) == []


def test_the_watch_ends_with_an_error_too(tiny: ModuleType, run_dir: Path) -> None:
    class Fail(L.Callback):
        def on_before_zero_grad(self, *_: Any) -> None:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        tiny.fit(run_dir, tiny.tiny_stage(3), tiny.TinyData(3, 1), callbacks=[Watchdog(run_dir, 60.0), Fail()])
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_a_step_pays_next_to_nothing(tiny: ModuleType, run_dir: Path) -> None:
    """Measured 0.5 us for both hooks; 20 us would still be a thousandth of the shortest real step."""
    watchdog, batch = Watchdog(run_dir, 60.0), tiny.tiny_batch(0)
    start = time.process_time()
    for _ in range(10_000):
        watchdog.on_train_batch_start(None, None, batch, 0)
        watchdog.on_train_batch_end(None, None, None, batch, 0)
    assert (time.process_time() - start) / 10_000 < 20e-6


def test_abort_ends_the_process_after_the_report(tmp_path: Path) -> None:
    program = (
        "import sys, time; from types import SimpleNamespace as N; from pathlib import Path\n"
        "from internvl_lab.training.watchdog import Watchdog\n"
        "watchdog = Watchdog(Path(sys.argv[1]), 0.1, abort=True)\n"
        "watchdog._watch(N(global_rank=0, global_step=4), 'stage1')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True)
    assert done.returncode == ABORT_STATUS, done.stderr
    assert "stage1, step 5, fetching the next pack" in reports(tmp_path)[0]
