"""Write files that appear whole or not at all, for readers, kills and power cuts alike."""

from __future__ import annotations

import os
import threading
from pathlib import Path


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
