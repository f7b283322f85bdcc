"""Loading a sharded model: the weights of a plain load, without the whole model in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from internvl_lab.checkpoints import initialise, save_model
from internvl_lab.config import InitConfig, LoraConfig
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL, build_on_meta
from internvl_lab.training.freezing import apply_stage
from internvl_lab.training.materialise import is_empty, materialise

CPU = torch.device("cpu")
SCRIPT = Path(__file__).with_name("sharded_load.py")


@pytest.fixture
def weights(tiny: ModuleType, tmp_path: Path) -> Path:
    return save_model(tiny.tiny_model(3), tmp_path / "weights", {})


@pytest.mark.parametrize("drawn", [(), ("projector",), ("vision", "language"), ("vision", "projector", "language")])
def test_an_empty_model_gets_what_a_plain_one_has(tiny: ModuleType, weights: Path, drawn: tuple[str, ...]) -> None:
    parts = {"vision": str(weights), "projector": str(weights), "language": str(weights)}
    init = InitConfig(**parts | dict.fromkeys(drawn))
    plain = tiny.tiny_model(seed=8)  # draws at this seed
    expected = initialise(plain, init)
    model = build_on_meta(plain.config, plain.image_token_id)
    assert is_empty(model)
    before = torch.get_rng_state()
    assert materialise(model, CPU, init, seed=8) == expected
    assert torch.equal(torch.get_rng_state(), before)
    assert not is_empty(model)
    ours, theirs = model.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    batch = tiny.tiny_batch(1)
    assert torch.equal(forward(model, batch), forward(plain, batch)), "the rotary tables are no parameters"


def forward(model: InternVL, batch: Any) -> torch.Tensor:
    names = ("input_ids", "position_ids", "cu_seqlens", "max_seqlen", "pixel_values")
    return model.eval()(**{name: getattr(batch, name) for name in names})  # type: ignore[no-any-return]


def test_adapters_change_nothing_at_first(tiny: ModuleType, weights: Path) -> None:
    init = InitConfig(vision=str(weights), projector=str(weights), language=str(weights))
    plain = tiny.tiny_model()
    initialise(plain, init)
    model = build_on_meta(plain.config, plain.image_token_id)
    lora = LoraConfig(parts=("language", "vision"), dropout=0.0)
    apply_stage(model, tiny.tiny_stage(1, trainable=(), lora=lora))
    materialise(model, CPU, init, seed=0)
    drawn = {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
    assert drawn and all(bool(p.any()) == (".lora_A." in name) for name, p in drawn.items())
    batch = tiny.tiny_batch(1)
    torch.testing.assert_close(forward(model, batch), forward(plain, batch), atol=0, rtol=0)


def test_weights_that_do_not_fit_are_refused(tiny: ModuleType, weights: Path) -> None:
    config = tiny.tiny_model().config
    wider = replace(config, language=replace(config.language, intermediate_size=48))
    model = build_on_meta(wider, tiny.IMAGE_ID)
    with pytest.raises(CheckpointError, match="intermediate_size=32 instead of 48"):
        materialise(model, CPU, InitConfig(language=str(weights)), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--lora",)], ids=["all", "lora"])
def test_no_process_holds_the_whole_model(tiny: ModuleType, tmp_path: Path, extra: tuple[str, ...]) -> None:
    config = tiny.tiny_model().config
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
    large = InternVL(replace(config, language=replace(config.language, **sizes)), tiny.IMAGE_ID)
    save_model(large, tmp_path / "weights", {})
    command = [sys.executable, str(SCRIPT)]
    shared = ("2", str(tmp_path / "rendezvous"), str(tmp_path / "weights"), *extra)
    source = Path(__file__).parents[2] / "src"
    # so that glibc gives every freed tensor back: what it kept of them was 70 MiB in one run and none in the next
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    environment = os.environ | exact | {"PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), *shared],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in ranks]
    assert all(process.returncode == 0 for process in ranks), outputs
    found = json.loads(outputs[0][0])
    assert found["equal"] and found["equal_buffers"]
    assert found["random_a"] and found["zero_b"] and bool(found["adapters"]) == bool(extra)
    if found["extra_peak_mib"] is not None:  # half the model, and one tensor at a time
        assert found["extra_peak_mib"] < 0.65 * found["whole_mib"], found
