"""Let worker processes die with the process that started them, or on its word, and on nobody else's.

A cluster signals all processes of a job; the main one finishes its step and then ends its workers. So a worker has to
tell its parent's SIGTERM, with which pools and loaders end workers that do not end by themselves, from the cluster's.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What a cluster sends to all processes of a job that should stop."""

POLL_S = 1.0
"""Seconds between two looks at the parent."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals of this thread wait while it makes workers, which begin with waiting signals as well.

    Else one that came in between killed a worker that had not called `exit_with_parent` yet, and with it the run. A
    worker that was made here must call `exit_with_parent`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_with_parent() -> None:
    """End this process at once when its parent is gone or sends SIGTERM, and keep it through others' signals.

    A worker of a killed process can otherwise wait for ever: its siblings hold the other end of its pipe open. Polling
    works on every platform, and unlike Linux' parent-death signal it does not depend on the thread that forked.
    A worker that ignored its parent's SIGTERM, too, kept that one waiting at its exit for ever.
    """
    # Where the sender of a signal cannot be told (macOS), SIGTERM ends a worker whoever sends it.
    watched = set(STOP_SIGNALS) if hasattr(signal, "sigtimedwait") else {signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # threads made from here on inherit this
    signal.pthread_sigmask(signal.SIG_UNBLOCK, set(STOP_SIGNALS) - watched)
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="exit-with-parent").start()


def _watch(parent: int) -> None:
    """Wait until this process has another parent, or this one asks it to end."""
    while os.getppid() == parent:
        if hasattr(signal, "sigtimedwait"):
            info = signal.sigtimedwait(STOP_SIGNALS, POLL_S)
            if info is not None and info.si_signo == signal.SIGTERM and info.si_pid == parent:
                os._exit(0)  # as torch's own handler; another status looks like a failure to the loader
        else:
            time.sleep(POLL_S)
    os._exit(1)
