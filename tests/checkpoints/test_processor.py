"""The processor comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.checkpoints import load_processor, save_processor
from internvl_lab.config import TilingConfig
from internvl_lab.errors import CheckpointError
from internvl_lab.text import ChatTemplate, Turn, train_tokenizer


def test_tokens_system_message_and_tiling_round_trip(tmp_path: Path) -> None:
    template = ChatTemplate(train_tokenizer(["a red circle 12"] * 9, 300))
    tiling = TilingConfig(tile_size=112, num_visual_tokens=16, max_tiles=4, use_thumbnail=False)
    save_processor(tmp_path, template, tiling)
    loaded, loaded_tiling = load_processor(tmp_path)
    assert loaded_tiling == tiling
    turns = [Turn("human", "<image>\nHow many?"), Turn("gpt", "12")]
    assert (loaded.encode(turns, [16]).input_ids == template.encode(turns, [16]).input_ids).all()


def test_no_or_another_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"processor\.json"):
        load_processor(tmp_path)
    (tmp_path / "processor.json").write_text(json.dumps({"tiling": {"size": 3}, "system_message": ""}))
    with pytest.raises(CheckpointError, match="does not describe a processor"):
        load_processor(tmp_path)
