"""What every test gets: one thread, fixed seeds, offline tracking, and no way out of this machine."""

from __future__ import annotations

import os

# Before torch and numpy are imported anywhere: two test processes share two cores.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    MPLBACKEND="agg",
)

import importlib.util
import ipaddress
import random
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

hypothesis.settings.register_profile("repository", derandomize=True, deadline=None, database=None, max_examples=50)
hypothesis.settings.load_profile("repository")

SEED = 20241205


class NetworkBlockedError(RuntimeError):
    """A test tried to reach another machine."""


def is_local(address: object) -> bool:
    """Tell whether a socket address stays on this machine (AF_UNIX path, loopback, or none at all)."""
    if not isinstance(address, tuple) or not address:
        return True
    host = address[0]
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(str(host).split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse connections and look-ups that leave this machine; loopback and AF_UNIX work."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, original: Any = original) -> Any:
            if not is_local(address):
                raise NetworkBlockedError(f"tests are offline, refused to reach {address!r}")
            return original(self, address)

        patch.setattr(socket.socket, name, guarded)

    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not is_local((host,)):
            raise NetworkBlockedError(f"tests are offline, refused to look up {host!r}")
        return look_up(host, *args, **kwargs)

    patch.setattr(socket, "getaddrinfo", guarded_look_up)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed every random generator before every test, so that a test's order never matters."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.fixture(autouse=True)
def private_tracking(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what wandb writes by default out of the checkout."""
    monkeypatch.setenv("WANDB_DIR", str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Give an empty run folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def import_file() -> Callable[[Path], ModuleType]:
    """Give what imports a file beside the tests, under its own name, so that its classes can be pickled."""

    def load(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def judge_server(import_file: Callable[[Path], ModuleType]) -> ModuleType:
    """Give the module of the stand-in judge's server, which several rooms ask."""
    return import_file(Path(__file__).resolve().parent / "text" / "judging" / "judge_server.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run: `gpu` without CUDA, `browser` without Chromium."""
    missing = {
        "gpu": not torch.cuda.is_available(),
        "browser": shutil.which("chromium") is None and shutil.which("chromium-browser") is None,
    }
    for item in items:
        for marker, absent in missing.items():
            if absent and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=f"needs {marker}"))
