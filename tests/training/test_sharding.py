"""FSDP2 on gloo: the losses of DDP, checkpoints that continue on another number of ranks and export."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from internvl_lab.checkpoints.sources import open_source
from internvl_lab.constants import PARTS
from internvl_lab.tracking import read_metrics

STEPS, PACKS = 6, 4


def run(command: list[str], folder: Path, *arguments: Any) -> dict[str, torch.Tensor]:
    """Train in processes of their own and return the final weights."""
    fixed = ("--packs", PACKS, "--steps", STEPS)
    words = [*command, str(folder), *map(str, (*fixed, *arguments))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    weights: dict[str, torch.Tensor] = torch.load(folder / "final.pt") if (folder / "final.pt").exists() else {}
    return weights


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--lora",)], ids=["all", "lora"])
def test_fsdp2_trains_as_ddp(tiny_command: list[str], tmp_path: Path, extra: tuple[str, ...]) -> None:
    ddp = run(tiny_command, tmp_path / "ddp", "--devices", 2, *extra)
    fsdp = run(tiny_command, tmp_path / "fsdp2", "--devices", 2, "--strategy", "fsdp2", *extra)
    assert_close(ddp, fsdp)
    losses = [read_metrics(tmp_path / name)["train/loss"] for name in ("ddp", "fsdp2")]
    assert [loss for loss in losses[0] if loss] == pytest.approx([loss for loss in losses[1] if loss], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_a_sharded_checkpoint_continues_on_any_number_of_ranks(
    tiny_command: list[str], tmp_path: Path, before: int, after: int
) -> None:
    whole = run(tiny_command, tmp_path / "whole")
    fsdp = ("--strategy", "fsdp2")
    run(tiny_command, tmp_path / "moved", "--devices", before, *fsdp, "--stop-after", 4)
    moved = run(tiny_command, tmp_path / "moved", "--devices", after, *fsdp)
    assert_close(whole, moved)
    samples = [[n for n in read_metrics(tmp_path / name)["samples"] if n] for name in ("whole", "moved")]
    assert samples[0] == samples[1]


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--lora",)], ids=["all", "lora"])
def test_a_sharded_checkpoint_reads_as_the_weights_it_was_made_of(
    tiny_command: list[str], tmp_path: Path, extra: tuple[str, ...]
) -> None:
    final = run(tiny_command, tmp_path / "run", "--devices", 2, "--strategy", "fsdp2", *extra)
    source = open_source(tmp_path / "run" / "stages" / "stage2" / f"step_{STEPS:08d}.ckpt")
    read = {key.removeprefix("model."): tensor for key, tensor in source.tensors(PARTS)}
    assert read.keys() == final.keys()
    assert all(torch.equal(read[name], weight) for name, weight in final.items())
