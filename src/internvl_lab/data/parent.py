"""Let worker processes die with the process that started them, also when that one is killed, and not before it."""

from __future__ import annotations

import os
import signal
import threading
import time

POLL_S = 1.0
"""Seconds between two looks at the parent."""


def exit_with_parent() -> None:
    """End this process at once when its parent is gone, and keep it through the signals of a cluster.

    A cluster signals all processes of a job; the main one finishes its step and then ends its workers.

    A worker of a killed process can otherwise wait for ever: its siblings hold the other end of its pipe open. Polling
    works on every platform, and unlike Linux' parent-death signal it does not depend on the thread that forked.
    """
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="exit-with-parent").start()


def _watch(parent: int) -> None:
    """Wait until this process has another parent."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)
