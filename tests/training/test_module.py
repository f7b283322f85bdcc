"""The LightningModule: exact steps, skipped steps, validation, ranks."""

from __future__ import annotations

import logging
import math
import subprocess
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from internvl_lab.config import OptimizerConfig, SchedulerConfig
from internvl_lab.data.batch import Batch
from internvl_lab.errors import NonFiniteError
from internvl_lab.tracking import read_metrics
from internvl_lab.training import InternVLModule
from internvl_lab.training.module import as_step_module

ARGUMENTS = ("input_ids", "position_ids", "cu_seqlens", "max_seqlen", "pixel_values")
"""Fields of a batch that `InternVL.forward` takes."""


class Recorder(InternVLModule):
    """Keep the gradients that reach the optimizer."""

    recorded: dict[str, torch.Tensor]

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        self.recorded = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}


def one_step(tiny: ModuleType, run_dir: Path, batches: list[Batch], max_grad_norm: float = 0.0) -> Recorder:
    """Take one optimizer step over the batches, without drop path."""
    stage = tiny.tiny_stage(1, drop_path_rate=0.0)
    module = Recorder(
        tiny.tiny_model(), stage, OptimizerConfig(max_grad_norm=max_grad_norm), SchedulerConfig(), 7,
        source_names=tiny.SOURCES,
    )  # fmt: skip
    tiny.fit(run_dir, stage, tiny.TinyData(1, len(batches), batches.__getitem__), module)
    return module


def make_samples(tiny: ModuleType, count: int, averaging: str) -> list[Any]:
    """Return samples as dictionaries of arrays."""
    return [tiny.tiny_sample(np.random.default_rng(100 + number), averaging) for number in range(count)]


def losses_by_hand(model: Any, batch: Batch) -> tuple[torch.Tensor, float]:
    """Return the sum of w*CE and the sum of w of a batch, by plain torch."""
    hidden = model(**{name: getattr(batch, name) for name in ARGUMENTS})
    logits = model.lm_head(hidden)[0]
    entropy = torch.nn.functional.cross_entropy(logits, batch.labels[0], reduction="none", ignore_index=-100)
    return (entropy * batch.loss_weights[0]).sum(), batch.loss_weights.sum().item()


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Compare gradients, 1e-5 relative to each tensor's largest entry.

    Biases of keys have gradient zero (softmax does not see them) and hold rounding noise: hence the floor.
    """
    assert a.keys() == b.keys()
    floor = 1e-7 * max(expected.abs().max() for expected in b.values())
    for name, expected in b.items():
        assert (a[name] - expected).abs().max() <= 1e-5 * expected.abs().max() + floor, name


@pytest.mark.parametrize("averaging", ["token", "sample", "square"])
def test_packed_step_equals_per_sample_gradients(tiny: ModuleType, run_dir: Path, averaging: str) -> None:
    samples = make_samples(tiny, 6, averaging)
    packs = [tiny.make_batch(samples[:4], list("abcd")), tiny.make_batch(samples[4:], list("ef"))]
    recorded = one_step(tiny, run_dir, packs).recorded
    model = tiny.tiny_model()
    singles = [losses_by_hand(model, tiny.make_batch([sample], ["x"])) for sample in samples]
    loss = sum(total for total, _ in singles) / sum(weight for _, weight in singles)
    loss.backward()
    close(recorded, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert read_metrics(run_dir)["train/loss"][0] == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("averaging", ["token", "sample", "square"])
def test_accumulation_of_four_equals_one(tiny: ModuleType, tmp_path: Path, averaging: str) -> None:
    samples = make_samples(tiny, 8, averaging)
    whole = one_step(tiny, tmp_path / "1", [tiny.make_batch(samples, list("abcdefgh"))])
    quarters = [tiny.make_batch(samples[i : i + 2], ["x", "y"]) for i in range(0, 8, 2)]
    split = one_step(tiny, tmp_path / "4", quarters)
    close(split.recorded, whole.recorded)
    assert split.metrics["train/loss"] == pytest.approx(whole.metrics["train/loss"], rel=1e-6)
    assert split.metrics["optim/grad_norm"] == pytest.approx(whole.metrics["optim/grad_norm"], rel=1e-5)


def test_a_pack_full_of_short_answers_does_not_weigh_as_much_as_one_of_long(tiny: ModuleType, run_dir: Path) -> None:
    """The mean of the packs' own means (Lightning's default) is another number."""
    batches = [tiny.tiny_batch(3, "token"), tiny.tiny_batch(4, "token")]
    module = one_step(tiny, run_dir, batches)
    model = tiny.tiny_model()
    (a, m), (b, n) = (losses_by_hand(model, batch) for batch in batches)
    assert m != n
    assert module.metrics["train/loss"] == pytest.approx(((a + b) / (m + n)).item(), rel=1e-6)
    assert module.metrics["train/loss"] != pytest.approx(((a / m + b / n) / 2).item(), rel=1e-4)


def test_gradient_is_clipped_and_its_norm_before_is_logged(tiny: ModuleType, tmp_path: Path) -> None:
    batches = [tiny.tiny_batch(0), tiny.tiny_batch(1)]
    free = one_step(tiny, tmp_path / "free", batches)
    clipped = one_step(tiny, tmp_path / "clipped", batches, max_grad_norm=0.01)
    norm = torch.nn.utils.get_total_norm(list(clipped.recorded.values()))
    assert norm.item() == pytest.approx(0.01, rel=1e-3)
    assert clipped.metrics["optim/grad_norm"] == pytest.approx(free.metrics["optim/grad_norm"], rel=1e-6)
    assert free.metrics["optim/grad_norm"] > 0.01


def poisoned(tiny: ModuleType, bad: set[int]) -> Any:
    """Return a maker of packs where those in `bad` have an infinite loss."""

    def make(pack: int) -> Batch:
        batch = tiny.tiny_batch(pack)
        if pack in bad:
            batch.loss_weights[batch.loss_weights > 0] = math.inf
        return batch

    return make


class Watch(L.Callback):
    """Keep the weights and moments after every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.moments: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.weights.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})
        state = trainer.optimizers[0].state
        self.moments.append(torch.cat([s["exp_avg"].flatten() for s in state.values()]) if state else torch.zeros(0))


def test_a_non_finite_step_changes_nothing_and_training_goes_on(
    tiny: ModuleType, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch()
    data = tiny.TinyData(4, 1, poisoned(tiny, {2}))
    with caplog.at_level(logging.WARNING):
        tiny.fit(run_dir, tiny.tiny_stage(4), data, callbacks=[watch])
    _, second, third, fourth = watch.weights
    assert all(torch.equal(second[k], third[k]) for k in second)
    assert torch.equal(watch.moments[1], watch.moments[2])
    assert any(not torch.equal(third[k], fourth[k]) for k in third)
    assert all(torch.isfinite(v).all() for v in fourth.values())
    assert tiny.tiny_batch(2).sample_keys[0] in caplog.text
    metrics = read_metrics(run_dir)
    assert metrics["train/skipped_steps"] == [0, 0, 1, 1]
    assert not math.isfinite(metrics["train/loss"][2])


def test_too_many_bad_steps_in_a_row_stop_the_run(tiny: ModuleType, run_dir: Path) -> None:
    stage = tiny.tiny_stage(9)
    module = tiny.tiny_module(stage, max_bad_steps=3)
    with pytest.raises(NonFiniteError, match="3 steps in a row"):
        tiny.fit(run_dir, stage, tiny.TinyData(9, 1, poisoned(tiny, {2, 4, 5, 6})), module)
    assert module.global_step == 6


def test_a_step_without_labels_is_skipped(tiny: ModuleType, run_dir: Path) -> None:
    def make(pack: int) -> Batch:
        batch = tiny.tiny_batch(pack)
        if pack == 1:
            batch.loss_weights.zero_()
            batch.labels.fill_(-100)
        return batch

    watch = Watch()
    tiny.fit(run_dir, tiny.tiny_stage(3), tiny.TinyData(3, 1, make), callbacks=[watch])
    assert all(torch.equal(watch.weights[0][k], watch.weights[1][k]) for k in watch.weights[0])
    assert read_metrics(run_dir)["train/skipped_steps"] == [0, 1, 1]


def test_validation_loss_is_normalised_over_all_packs(tiny: ModuleType, run_dir: Path) -> None:
    stage = tiny.tiny_stage(2, learning_rate=0.0)
    module = tiny.fit(run_dir, stage, tiny.TinyData(2, 1, val_packs=3))
    module.model.eval()
    with torch.no_grad():
        packs = [losses_by_hand(module.model, tiny.tiny_batch(10_000 + k)) for k in range(3)]
    expected = sum(total.item() for total, _ in packs) / sum(weight for _, weight in packs)
    metrics = read_metrics(run_dir)
    assert metrics["val/loss"] == [None, None, pytest.approx(expected, rel=1e-6)]
    assert metrics["step"] == [1, 2, 2]
    assert float(module.trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-5)


def test_data_module_is_told_the_consumed_step(tiny: ModuleType, run_dir: Path) -> None:
    data = tiny.TinyData(4, 2)
    committed: list[int] = []
    data.commit = committed.append
    tiny.fit(run_dir, tiny.tiny_stage(4), data)
    assert committed == [1, 2, 3, 4]


def test_metrics_hold_rates_and_norm_of_every_step(tiny: ModuleType, run_dir: Path) -> None:
    tiny.fit(run_dir, tiny.tiny_stage(4, learning_rate=0.1, warmup_steps=3), tiny.TinyData(4, 1))
    metrics = read_metrics(run_dir)
    assert metrics["optim/lr/decay"] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert metrics["optim/lr/no_decay"] == metrics["optim/lr/decay"]
    assert all(norm > 0 for norm in metrics["optim/grad_norm"])


def test_batch_moves_to_a_device_whole(tiny: ModuleType) -> None:
    module = tiny.tiny_module(tiny.tiny_stage(1))
    batch = tiny.tiny_batch(0)
    assert module.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert moved.input_ids.is_meta and moved.pixel_values.is_meta
    assert moved.sample_keys == batch.sample_keys
    assert not batch.input_ids.is_meta


def test_callbacks_refuse_other_modules() -> None:
    with pytest.raises(TypeError, match="InternVLModule"):
        as_step_module(L.LightningModule())


def run(command: list[str], *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the tiny command to its end."""
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=True)


@pytest.mark.slow
def test_two_ranks_train_as_one(tiny_command: list[str], tmp_path: Path) -> None:
    """Drop path is on: a pack draws the same numbers on whichever rank it lands."""
    for ranks in (1, 2):
        run(tiny_command, tmp_path / str(ranks), "--devices", ranks, "--packs", 4, "--steps", 6)
    one, two = (torch.load(tmp_path / str(ranks) / "final.pt") for ranks in (1, 2))
    for name, weight in one.items():  # measured 1.2e-7
        assert torch.allclose(two[name], weight, rtol=0, atol=1e-6), name
    rows_one, rows_two = (read_metrics(tmp_path / str(ranks)) for ranks in (1, 2))
    assert rows_one.keys() == rows_two.keys()
    for key in rows_one:
        if not key.startswith(("perf/", "stage")):
            for a, b in zip(rows_one[key], rows_two[key], strict=True):
                assert a == b or a == pytest.approx(b, rel=1e-5), key


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_two_ranks_skip_a_bad_step_alike(tiny_command: list[str], tmp_path: Path, rank: int) -> None:
    arguments = ["--packs", 2, "--steps", 5, "--poison-rank", rank]
    done = run(tiny_command, tmp_path / "2", "--devices", 2, *arguments)
    metrics = read_metrics(tmp_path / "2")
    steps = [value for value in metrics["train/skipped_steps"] if value is not None]
    assert steps == [0, 0, 1, 1, 1]
    assert f"samples [{4 + rank}-0" in done.stderr
    assert f"samples [{4 + 1 - rank}-0" not in done.stderr
    assert all(torch.isfinite(v).all() for v in torch.load(tmp_path / "2" / "final.pt").values())


class Waits(TorchDispatchMode):
    """Note every operation for which a GPU's host has to wait: what comes out depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in WAITING:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


WAITING = (torch.ops.aten.nonzero, torch.ops.aten._local_scalar_dense, torch.ops.aten.masked_select)


@pytest.mark.parametrize("pack", [1, 2, 5])
def test_a_located_pack_is_trained_on_without_waiting_for_the_device(
    tiny: ModuleType, pack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of `sdpa_docs`, the CPU's attention, reads lengths on the host; the kernels of GPUs do not."""
    stage = tiny.tiny_stage(1)
    module = InternVLModule(
        tiny.tiny_model(), stage, OptimizerConfig(), SchedulerConfig(), 7, source_names=tiny.SOURCES
    )
    batch = tiny.tiny_batch(pack)
    layout = module.model.backend.lay_out(batch.cu_seqlens, batch.max_seqlen)
    backend = replace(module.model.backend, lay_out=lambda *_: layout)
    monkeypatch.setattr(type(module.model), "backend", property(lambda _: backend))
    module.model(**{name: getattr(batch, name) for name in ARGUMENTS})  # constants go to the device once
    gradients, waits = [], []
    for given in (batch, batch.locate(tiny.IMAGE_ID)):
        module.zero_grad()
        with Waits() as mode:
            module._add(module.totals, given).backward()
        waits.append(mode.seen)
        gradients.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
    assert len(waits[0]) == 2, "the unlocated pack searches twice"
    assert waits[1] == []
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_does_not_synchronise(tiny: ModuleType) -> None:
    stage = tiny.tiny_stage(1)
    model = tiny.tiny_model().to("cuda", torch.bfloat16)
    module = InternVLModule(model, stage, OptimizerConfig(), SchedulerConfig(), 7, source_names=tiny.SOURCES)
    if not model.backend.needs_kernel:
        pytest.skip("no packed attention kernel on this device")
    batch = tiny.tiny_batch(1).locate(tiny.IMAGE_ID).pin_memory()
    device = torch.device("cuda")
    module._add(module.totals, module.transfer_batch_to_device(batch, device, 0)).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        module._add(module.totals, module.transfer_batch_to_device(batch, device, 0)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
