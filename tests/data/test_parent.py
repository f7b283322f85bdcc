"""A watched process ends when its parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

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
