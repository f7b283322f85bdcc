"""Keep beside the weights what prepares their prompts: tokenizer, system message, tiling.

folder/  tokenizer.json, tokenizer_config.json
         processor.json    {"system_message": ..., "tiling": {...}}
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from internvl_lab.checkpoints.base import base_of
from internvl_lab.checkpoints.files import read_json, write_json
from internvl_lab.config import TilingConfig
from internvl_lab.errors import CheckpointError
from internvl_lab.text import ChatTemplate, load_tokenizer

PROCESSOR_FILE = "processor.json"


def save_processor(folder: Path, template: ChatTemplate, tiling: TilingConfig) -> None:
    """Write tokenizer, system message and tiling into a checkpoint folder.

    Args:
        folder: exists already.
        template: its tokenizer and system message are kept.
        tiling: how the model's images were cut in training.
    """
    template.tokenizer.save_pretrained(str(folder))
    write_json(folder / PROCESSOR_FILE, {"system_message": template.system_message, "tiling": asdict(tiling)})


def load_processor(folder: Path) -> tuple[ChatTemplate, TilingConfig]:
    """Read what `save_processor` wrote.

    Raises:
        CheckpointError: processor.json is missing or has unknown fields.
        MissingWeightsError: tokenizer.json is missing.
    """
    folder = base_of(folder)
    content = read_json(folder / PROCESSOR_FILE)
    try:
        tiling = TilingConfig(**content["tiling"])
        return ChatTemplate(load_tokenizer(folder), content["system_message"]), tiling
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / PROCESSOR_FILE} does not describe a processor: {error}") from error
