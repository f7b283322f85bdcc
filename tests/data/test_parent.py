"""A watched process ends when its parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from internvl_lab.data.parent import STOP_SIGNALS, signals_held

CHILD = (
    "from internvl_lab.data.parent import exit_with_parent; exit_with_parent(); "
    "import time; print('up', flush=True); time.sleep(60)"
)
PARENT = (
    f"import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', {CHILD!r}]); "
    "print(c.pid, flush=True); time.sleep(60)"
)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended but was not reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_child_ends_with_its_killed_parent() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert parent.stdout.readline() == "up\n"
        for signum in (signal.SIGTERM, signal.SIGUSR1):  # a cluster signals all processes of a job
            os.kill(child, signum)
        time.sleep(0.5)
        assert alive(child)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 15
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(child)


HOLDER = """
import sys, time
from torch.utils.data import DataLoader
from internvl_lab.data.loader import _init_worker
batches = iter(DataLoader(range(1000), batch_size=None, num_workers=1, prefetch_factor=1, worker_init_fn=_init_worker))
next(batches)
print(batches._workers[0].pid, flush=True)
sys.modules["holder"] = batches  # alive until the very end, as in the traceback of an exception
"""


def test_a_process_ends_although_its_loader_is_alive() -> None:
    """At exit torch and multiprocessing end the workers by SIGTERM and wait: a worker must take it from its parent."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        assert holder.wait(timeout=60) == 0
        assert not alive(worker)
    finally:
        holder.kill()


def test_signals_wait_while_workers_are_made() -> None:
    arrived: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: arrived.append(signum))
    try:
        with signals_held():
            # to this thread: one for the process may go to another thread, which takes it
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert arrived == []
            if (child := os.fork()) == 0:  # a worker begins with what was blocked
                os._exit(len(signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(STOP_SIGNALS)))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(STOP_SIGNALS)
        assert arrived == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="cannot tell who sent a signal")
def test_a_worker_ends_on_its_parents_word_only() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        subprocess.run(["/bin/sh", "-c", f"kill -TERM {child.pid}; kill -USR1 {child.pid}"], check=True)
        time.sleep(0.5)
        assert alive(child.pid)
        child.terminate()
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
