"""Model and data modules import with plain torch: what DESIGN promises notebooks, checked at run time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("lightning", "pytorch_lightning", "hydra", "wandb"):
    sys.modules[name] = None  # importing it raises ImportError
package = importlib.import_module("internvl_lab." + sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name != "internvl_lab.data.datamodule":
        importlib.import_module(module.name)
"""


@pytest.mark.parametrize("room", ["config", "text", "models", "data"])
def test_room_imports_without_the_engines(room: str) -> None:
    if not (ROOT / "src" / "internvl_lab" / room / "__init__.py").exists():
        pytest.skip(f"no room {room}")
    code = IMPORT_ALL
    if room == "config":  # compose is the one module that is Hydra's
        code = code.replace('"internvl_lab.data.datamodule"', '"internvl_lab.config.compose"')
    result = subprocess.run(
        [sys.executable, "-c", code, room],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_config_does_not_import_torch() -> None:
    code = "import sys, internvl_lab.config; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr or "internvl_lab.config imports torch"
