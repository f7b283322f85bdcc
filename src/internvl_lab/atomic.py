"""Write files that appear whole or not at all, for readers, kills and power cuts alike."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from internvl_lab.errors import ConfigError


def write_atomic(path: Path, data: str | bytes) -> Path:
    """Write `data` to `path` so that a reader sees all of it or the old file; returns `path`.

    The folder is made where it is missing. Text is written as UTF-8. Threads and processes may write the same file at
    once: the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    with partial.open("wb") as stream:
        stream.write(data.encode("utf-8") if isinstance(data, str) else data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)
    return path


@contextmanager
def held(folder: Path, name: str, writer: str = "process") -> Iterator[None]:
    """Let one process write a folder; the lock goes away with the process, also when it is killed.

    Args:
        folder: made where it is missing.
        name: setting that names it, for the message.
        writer: what the other one is called there.
    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another {writer} is writing to {folder}: wait for it or choose another {name}"
            ) from error
        yield
