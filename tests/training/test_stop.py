"""SIGTERM and SIGUSR1: a saved step, status 0, and the bits of the uninterrupted run after the same command."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import torch

from internvl_lab.data.parent import STOP_SIGNALS
from internvl_lab.tracking import read_metrics
from internvl_lab.training import find_resume
from internvl_lab.training.stop import RunStopped, StopSignals


def rows_without_times(run_dir: Path) -> dict[str, list[Any]]:
    return {key: values for key, values in read_metrics(run_dir).items() if not key.startswith("perf/")}


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class SignalAt(L.Callback):
    """Send a signal to this process from a hook, once, when a step is reached."""

    def __init__(self, hook: str, step: int, signum: int) -> None:
        self.step, self.signum = step, signum
        setattr(self, hook, self.send)

    def send(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.step and self.signum:
            signum, self.signum = self.signum, 0
            signal.raise_signal(signum)


def stopped_run(tiny: ModuleType, folder: Path, stage: Any, sender: SignalAt, **settings: Any) -> RunStopped:
    """Train until the sender's signal stops it; return how."""
    signals = StopSignals()
    with signals.caught(), pytest.raises(RunStopped) as caught:
        tiny.fit(folder, stage, tiny.TinyData(9, 2, val_packs=1), callbacks=[sender], signals=signals, **settings)
    return caught.value


@pytest.mark.parametrize("signum", STOP_SIGNALS)
@pytest.mark.parametrize(
    ("hook", "step", "saved"),
    [
        ("on_train_batch_start", 4, 4),  # noted before the callback looks: no further step
        ("on_before_zero_grad", 4, 5),  # in the middle of a step, which is finished
        ("on_after_backward", 2, 3),  # between the two packs of a step: not inside the accumulation
        ("on_validation_batch_start", 3, 3),  # the validation of step 3 is finished, and not run again
        ("on_train_epoch_end", 9, 9),  # after the last step
    ],
)
def test_a_stopped_run_continues_to_the_bit(
    tiny: ModuleType, tmp_path: Path, hook: str, step: int, saved: int, signum: int
) -> None:
    stage = tiny.tiny_stage(9, checkpoint_every=100)
    settings = {"val_check_interval": 6, "check_val_every_n_epoch": None}  # batches: every 3 steps
    whole = tiny.fit(tmp_path / "whole", stage, tiny.TinyData(9, 2, val_packs=1), **settings)
    stop = stopped_run(tiny, tmp_path / "stopped", stage, SignalAt(hook, step, signum), **settings)
    assert (stop.code, stop.signum) == (0, signum)
    name = signal.Signals(signum).name
    assert str(stop) == f"stopped by {name} in stage2 after step {saved} of 9; the same command continues"
    resume = find_resume(tmp_path / "stopped" / "stages" / "stage2")
    assert resume is not None
    assert resume.name == f"step_{saved:08d}.ckpt"
    torch.rand(3)  # whatever this process draws must not matter
    resumed = tiny.fit(tmp_path / "stopped", stage, tiny.TinyData(9, 2, val_packs=1), **settings)
    assert same_weights(resumed.model.state_dict(), whole.model.state_dict())
    assert rows_without_times(tmp_path / "stopped") == rows_without_times(tmp_path / "whole")
    assert (tmp_path / "stopped" / "journal.jsonl").read_text() == (tmp_path / "whole" / "journal.jsonl").read_text()


def test_a_signal_after_training_is_not_lost(tiny: ModuleType, run_dir: Path) -> None:
    stop = stopped_run(tiny, run_dir, tiny.tiny_stage(9), SignalAt("on_fit_end", 9, signal.SIGTERM))
    assert str(stop) == "stopped by SIGTERM; the same command continues"


def test_outside_training_a_signal_stops_at_once_and_only_once() -> None:
    signals = StopSignals()
    with signals.caught(), pytest.raises(RunStopped, match="stopped by SIGUSR1; the same command continues"):
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.raise_signal(signal.SIGUSR1)  # repeated while cleaning up


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_was_dropped_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python drops what a handler raises inside a destructor."""

    class Careless:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("internvl_lab.training.stop.QUIET_S", 0.0)
    with StopSignals().caught():
        Careless()
        with pytest.raises(RunStopped):
            signal.raise_signal(signal.SIGTERM)


def test_forked_workers_obey_their_pool() -> None:
    """A pool ends its workers by SIGTERM, wherever they are, and waits for them."""
    others = set(multiprocessing.active_children())
    with StopSignals().caught():
        for _ in range(5):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(abs, [-1, -2]) == [1, 2]
                workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    assert all(worker.exitcode is not None for worker in workers)


def test_a_fork_forgets_the_handlers_of_its_parent_only() -> None:
    def work() -> None:
        os._exit([signal.getsignal(signum) for signum in STOP_SIGNALS].count(signal.SIG_DFL))

    signals = StopSignals()
    with signals.caught():
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join(30)
        assert signal.getsignal(signal.SIGTERM) == signals._handle
    assert process.exitcode == len(STOP_SIGNALS)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(signum) for signum in STOP_SIGNALS]
    signals = StopSignals()
    with signals.caught():
        signals.install()
        assert all(signal.getsignal(signum) == signals._handle for signum in STOP_SIGNALS)
    assert [signal.getsignal(signum) for signum in STOP_SIGNALS] == before


def test_a_run_in_a_thread_leaves_signals_alone() -> None:
    before = [signal.getsignal(signum) for signum in STOP_SIGNALS]
    seen: list[Any] = []

    def work() -> None:
        with StopSignals().caught():
            seen.extend(signal.getsignal(signum) for signum in STOP_SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_stop_at_the_step_of_the_one_that_was_told(
    tiny_command: list[str], tmp_path: Path, rank: int
) -> None:
    """Two gloo processes; the signal reaches one of them in the middle of step 5."""

    def run(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*tiny_command, str(tmp_path / folder), "--packs", "4", "--devices", "2", *arguments]
        return subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)

    assert run("whole").returncode == 0
    stopped = run("stopped", "--signal-rank", str(rank), "--signal-step", "5")
    assert stopped.returncode == 0, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "stopped" / "final.pt").exists()
    resume = find_resume(tmp_path / "stopped" / "stages" / "stage2")
    assert resume is not None
    assert resume.name == "step_00000005.ckpt"
    assert run("stopped").returncode == 0
    whole, continued = (torch.load(tmp_path / name / "final.pt") for name in ("whole", "stopped"))
    assert same_weights(continued, whole)


@pytest.mark.slow
def test_sigterm_at_a_random_step(tiny_command: list[str], tmp_path: Path) -> None:
    """Told to stop twice, each time somewhere in a random step, then run to the end."""
    subprocess.run([*tiny_command, str(tmp_path / "whole")], check=True, timeout=300, capture_output=True)
    folder = tmp_path / "stopped"
    first = random.randint(1, 5)
    for rows in (first, first + random.randint(1, 5)):
        process = subprocess.Popen([*tiny_command, str(folder), "--sleep", "0.02"], start_new_session=True)
        deadline = time.monotonic() + 120
        while not ((folder / "metrics.csv").is_file() and (folder / "metrics.csv").read_bytes().count(b"\n") > rows):
            assert process.poll() is None, "the run ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(process.pid, random.choice(STOP_SIGNALS))
        assert process.wait(timeout=60) == 0
    subprocess.run([*tiny_command, str(folder)], check=True, timeout=300, capture_output=True)
    assert same_weights(*(torch.load(tmp_path / name / "final.pt") for name in ("whole", "stopped")))
    assert rows_without_times(folder) == rows_without_times(tmp_path / "whole")


FORKED = """
import os, signal
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))  # runs before our hook in the child
from internvl_lab.training.stop import StopSignals
with StopSignals().caught():
    child = os.fork()
    if child == 0:
        os._exit(7)
    status = os.waitpid(child, 0)[1]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status))
"""


def test_a_signal_in_the_middle_of_a_fork_ends_the_worker() -> None:
    """It was raised inside a fork hook, where Python drops exceptions: its pool then waited for ever."""
    source = Path(__file__).parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, "-c", FORKED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == str(int(signal.SIGTERM)), done.stderr
