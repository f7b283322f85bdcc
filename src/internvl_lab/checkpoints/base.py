"""An adapter that names its base stands for those weights with the adapter added.

    adapter_config.json          "base_model_name_or_path": "asset:quickstart"   ┐ wherever weights are asked for:
    adapter_model.safetensors    A and B                                         ┘ `asset:quickstart` + B A

Settings and processor are the base's. An adapter without a base, or whose base is not on this machine, is no source of
weights; `convert --adapter` merges it into what it belongs to.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from internvl_lab.checkpoints.files import read_json

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
BASE_KEY = "base_model_name_or_path"
"""peft's name of the field."""
ASSET_PREFIX = "asset:"


def asset_folder(source: str) -> Path:
    """Return the folder of `asset:NAME`, whether it is there or not."""
    return Path(str(files("internvl_lab"))) / "assets" / source.removeprefix(ASSET_PREFIX)


def base_of(path: Path) -> Path:
    """Return the folder that an adapter's weights are added to; any other source is its own base."""
    if not (path / ADAPTER_CONFIG_FILE).is_file():
        return path
    named = read_json(path / ADAPTER_CONFIG_FILE).get(BASE_KEY) or ""
    base = asset_folder(named) if named.startswith(ASSET_PREFIX) else Path(named).expanduser()
    return base if named and base.is_dir() else path
