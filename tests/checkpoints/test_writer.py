"""Files of bounded size, in order, with an index; one file alone keeps the plain name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from internvl_lab.checkpoints import convert
from internvl_lab.checkpoints import writer as writer_module
from internvl_lab.checkpoints.writer import Output, plan_shards, write_weights
from internvl_lab.errors import CheckpointError


def output(name: str, tensor: Tensor, dtype: torch.dtype = torch.float32) -> Output:
    return Output(name, torch.empty_like(tensor, dtype=dtype, device="meta"), lambda: tensor)


def names_of(sizes: list[int], limit: int) -> list[list[str]]:
    outputs = [output(str(number), torch.zeros(size)) for number, size in enumerate(sizes)]
    return [[item.name for item in shard] for shard in plan_shards(outputs, limit)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1, 1, 1], [["0", "1", "2"]]),
        ([2, 2, 1], [["0"], ["1", "2"]]),
        ([1, 9, 1], [["0"], ["1"], ["2"]]),
        ([3, 0, 3], [["0", "1"], ["2"]]),
    ],
)
def test_files_are_cut_by_hand(sizes: list[int], expected: list[list[str]]) -> None:
    assert names_of(sizes, limit=12) == expected


def test_one_file_has_no_index(tmp_path: Path) -> None:
    write_weights(tmp_path, [output("a", torch.ones(3))])
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_shards_hold_what_the_index_says(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    outputs = [output("half", base[0], torch.bfloat16), output("view", base.T), output("rest", base[1:])]
    write_weights(tmp_path, outputs, max_shard_bytes=56)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 8 + 48 + 32},
        "weight_map": {
            "half": "model-00001-of-00002.safetensors",
            "view": "model-00001-of-00002.safetensors",
            "rest": "model-00002-of-00002.safetensors",
        },
    }
    first = load_file(tmp_path / "model-00001-of-00002.safetensors")
    assert torch.equal(first["half"], base[0].bfloat16())
    assert torch.equal(first["view"], base.T)
    assert torch.equal(load_file(tmp_path / "model-00002-of-00002.safetensors")["rest"], base[1:])


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    for outputs, limit in (([], 5), ([output("a", torch.ones(1))], 0)):
        with pytest.raises(CheckpointError, match="cannot be written"):
            write_weights(tmp_path, outputs, limit)


def test_what_lies_in_the_way_is_never_lost(golden: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(golden / "300m_qwen2", tmp_path / "models" / "source"))
    for out in (source, source.parent):  # the source itself, and the folder that holds it
        with pytest.raises(CheckpointError, match="internvl-lab did not write"):
            convert([source], out, "native")
    mine = convert([source], tmp_path / "mine", "native")
    kept = shutil.copytree(source, mine / "kept")
    with pytest.raises(CheckpointError, match=f"holds {kept}"):
        convert([kept], mine, "native")
    with pytest.raises(CheckpointError, match=r"config\.json is a file"):
        convert([source], source / "config.json", "native")
    assert (source / "model.safetensors").is_file()
    assert json.loads((convert([mine], mine, "official") / "config.json").read_text())["ps_version"] == "v2"


def test_a_full_disk_is_one_error(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module, "save_file", full)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written: .*No space left"):
        convert([golden / "300m_qwen2"], tmp_path / "out", "native")
    assert not list(tmp_path.iterdir())
