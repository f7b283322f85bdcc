"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically and durably: a reader sees the old file or the whole new one."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` and rename it to that when the block ends well.

    An existing `folder` steps aside first and is deleted last; when the block raises, it stays as it was. What a killed
    process left behind is taken care of. A link is followed: what it points to is replaced.

    Raises:
        CheckpointError: nothing can be written there.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    temporary, old = (folder.with_name(f".{folder.name}.{kind}-{os.getpid()}") for kind in ("tmp", "old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_remains(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield temporary
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _clear_remains(folder: Path) -> None:
    """Delete the half-written folders of killed processes, and put back an old one that had just stepped aside."""
    for remains in folder.parent.glob(f".{glob.escape(folder.name)}.*-*"):
        kind, _, pid = remains.name.removeprefix(f".{folder.name}.").partition("-")
        if kind not in ("tmp", "old") or not pid.isdecimal() or _is_running(int(pid)):
            continue
        if kind == "old" and not folder.exists():
            os.replace(remains, folder)
        else:
            shutil.rmtree(remains, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Say whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
