"""Start a run from weights: per part, an asset of this package, a folder, or nothing (random).

Weights only: optimizer, step and data position stay behind. A folder may hold a whole checkpoint or only the part.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from internvl_lab.checkpoints.base import ADAPTER_CONFIG_FILE, ASSET_PREFIX, asset_folder
from internvl_lab.checkpoints.handoff import last_stage_weights
from internvl_lab.checkpoints.native import load_part
from internvl_lab.checkpoints.storage import holds_weights, refuse_pickle
from internvl_lab.checkpoints.tensors import sha256_of
from internvl_lab.config import InitConfig, ModelConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import MissingWeightsError
from internvl_lab.models import InternVL

log = logging.getLogger(__name__)

PUBLISHED_WEIGHTS = {
    "internvit_300m": "OpenGVLab/InternViT-300M-448px-V2_5",
    "internvit_6b": "OpenGVLab/InternViT-6B-448px-V2_5",
    "qwen2_5_0_5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2_5_3b": "Qwen/Qwen2.5-3B-Instruct",
    "qwen2_5_32b": "Qwen/Qwen2.5-32B-Instruct",
    "qwen2_5_72b": "Qwen/Qwen2.5-72B-Instruct",
    "internlm2_5_1_8b": "internlm/internlm2_5-1_8b-chat",
    "internlm2_5_7b": "internlm/internlm2_5-7b-chat",
    "internlm2_5_20b": "internlm/internlm2_5-20b-chat",
}
"""Name of a part in the configuration to the repository its weights are published in."""


def resolve_source(source: str, part: str = "", name: str = "") -> Path:
    """Find the folder or file that a source names.

    Args:
        source: `asset:NAME` (shipped with this package), a folder or file with weights (see `open_source`),
            or a run's folder (`outputs/latest`), which stands for the weights of the stage it finished last.
        part: `vision`, `projector` or `language`, for the message.
        name: the part's name in the configuration, for the message.
    Raises:
        MissingWeightsError: nothing to load there; one sentence says what is missing and what to do.
        CheckpointError: a run's folder without a finished stage, or weights in pickle files.
    """
    folder = asset_folder(source) if source.startswith(ASSET_PREFIX) else Path(source).expanduser()
    if (folder / "stages").is_dir():
        return last_stage_weights(folder)
    if holds_weights(folder):
        refuse_pickle(folder)
        return folder
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        raise MissingWeightsError(
            f"{folder} holds a LoRA adapter and no weights: merge it into what it was trained on with "
            f"`python -m internvl_lab convert --in BASE --adapter {folder} --out DIR --format native`"
        )
    if source.startswith(ASSET_PREFIX):
        raise MissingWeightsError(f"{source} is not shipped with this version of internvl-lab (looked in {folder})")
    if (folder / "study.csv").is_file():
        raise MissingWeightsError(f"{folder} is a study: name the folder of one of its runs (study.csv lists them)")
    raise MissingWeightsError(missing_weights_message(part, name, f"not in {folder}"))


def locate(source: str) -> Path:
    """Find what a source names without looking into it: an asset's folder, a run's last weights, or the path itself.

    Raises:
        MissingWeightsError: an unknown asset.
        CheckpointError: a run's folder without a finished stage.
    """
    path = Path(source).expanduser()
    return resolve_source(source) if source.startswith(ASSET_PREFIX) or (path / "stages").is_dir() else path


def missing_weights_message(part: str, name: str, where: str) -> str:
    """Say in one sentence which weights are missing, where to get them, and how to point to them.

    Args:
        part: `vision`, `projector` or `language`, or empty.
        name: the part's name in the configuration, for example `internvit_6b`.
        where: what is known about where they are not.
    """
    what = f"the weights of model.{part} ({name})" if part else "the weights"
    published = PUBLISHED_WEIGHTS.get(name)
    get = f"download {published} from the Hugging Face hub" if published else "put them on this machine"
    override = f"init_from.{part}=DIR" if part else "init_from.<part>=DIR"
    return f"{what} are {where}: {get} and pass {override}, or use scale=mini, which needs no download"


def check_sources(init: InitConfig, model: ModelConfig, required: Collection[str] = ()) -> None:
    """Check before anything is built that all weights a run starts from are there.

    Args:
        init: source of each part.
        model: names the parts.
        required: parts that must not start from random weights.
    Raises:
        MissingWeightsError: the first part whose weights are missing.
    """
    for part in PARTS:
        source, name = init.part(part), getattr(model, part).name
        if source is not None:
            resolve_source(source, part, name)
        elif part in required:
            raise MissingWeightsError(missing_weights_message(part, name, "needed, and no source is given"))


def initialise(model: InternVL, init: InitConfig) -> dict[str, dict[str, Any]]:
    """Load each part from its source and leave parts without source random.

    Returns:
        Part to {"source", "sha256"}, for provenance; source "random" has sha256 null.
    Raises:
        MissingWeightsError: a source without weights; nothing is loaded then.
        CheckpointError: weights that do not fit, all listed.
    """
    check_sources(init, model.config)
    provenance: dict[str, dict[str, Any]] = {}
    hashes: dict[Path, str] = {}
    for part in PARTS:
        source = init.part(part)
        if source is None:
            provenance[part] = {"source": "random", "sha256": None}
            continue
        folder = resolve_source(source, part, getattr(model.config, part).name)
        load_part(model, part, folder)
        hashes[folder] = hashes.get(folder) or sha256_of(folder)
        provenance[part] = {"source": source, "sha256": hashes[folder]}
        log.info("%s: weights from %s (%s)", part, source, hashes[folder][:12])
    return provenance
