from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from internvl_lab.bench import variants as bench
from internvl_lab.bench.samples import WORKLOADS, draw_samples, pack_samples
from internvl_lab.bench.setting import StepSetting
from internvl_lab.bench.timing import CpuClock, clock_for
from internvl_lab.bench.variants import Variant, build_variants
from internvl_lab.config import LoraConfig, StageConfig
from internvl_lab.models import compile_layers, is_adapter
from internvl_lab.training.freezing import describe_parts

TINY = WORKLOADS["tiny"]
SAMPLES = draw_samples(TINY)
SETTING = StepSetting(TINY)
PEERS = ["padded", "length_sorted", "hf_packed", "recipe"]
CPU = torch.device("cpu")
STAGE1 = StageConfig(trainable=("projector",))
LORA = StageConfig(name="lora", trainable=(), lora=LoraConfig(parts=("language",), dropout=0.0))


def build(stage: StageConfig | None = None, seed: int = 0, **settings: object) -> dict[str, Variant]:
    chosen = replace(SETTING, **({"stage": stage} if stage else {}), **settings)  # type: ignore[arg-type]
    return build_variants(chosen, SAMPLES, CPU, seed)


def gradients(variant: Variant) -> dict[str, Tensor]:
    """Return the gradient of the mean loss over all samples, by our parameter names."""
    variant.prepare(CpuClock())
    variant.model.zero_grad()
    total = sum(step.num_targets for step in variant.steps)
    for step in variant.steps:
        for loss_of in step.losses:
            loss = loss_of() * step.num_targets / total
            if loss.requires_grad:
                loss.backward()
    named = variant.model.named_parameters()
    return {name.removeprefix("model."): p.grad.clone() for name, p in named if p.grad is not None}


@pytest.fixture(scope="module")
def variants() -> dict[str, Variant]:
    return build()


@pytest.mark.parametrize("stage", [None, STAGE1, LORA], ids=["stage2", "stage1", "lora"])
def test_all_variants_compute_the_same_loss_and_gradient(stage: StageConfig | None) -> None:
    built = build(stage, checkpointing="full")
    ours = gradients(built["ours"])
    loss = float(built["ours"].run_pass())
    assert loss == pytest.approx(math.log(TINY.model.language.vocab_size), abs=0.1)  # random weights know nothing
    trained = {name for name, p in built["ours"].model.named_parameters() if p.requires_grad}
    assert ours.keys() == trained
    assert stage is not LORA or all(map(is_adapter, trained))
    for name in PEERS:
        assert float(built[name].run_pass()) == pytest.approx(loss, abs=1e-4), name
        theirs = gradients(built[name])
        assert theirs.keys() == trained
        for parameter, gradient in theirs.items():
            torch.testing.assert_close(gradient, ours[parameter], atol=1e-5, rtol=1e-4, msg=f"{name} {parameter}")


def test_peers_of_an_internlm_compute_the_same_loss() -> None:
    """Rotary tables with dynamic scaling are shared as well."""
    language = replace(TINY.model.language, model_type="llama", rope_scaling_factor=2.0)
    workload = replace(TINY, model=replace(TINY.model, language=language))
    losses = [float(variant.run_pass()) for variant in build(workload=workload).values()]
    assert losses == pytest.approx([losses[0]] * 5, abs=1e-5)


def test_all_variants_hold_the_same_parameters_and_one_optimizer(variants: dict[str, Variant]) -> None:
    ours = [id(p) for p in variants["ours"].model.parameters()]
    for variant in variants.values():
        assert {id(p) for p in variant.model.parameters()} == set(ours)
        assert variant.optimizer is variants["ours"].optimizer
    assert variants["padded"].model is variants["hf_packed"].model is not variants["recipe"].model


def test_all_variants_see_the_same_targets_in_as_many_steps(variants: dict[str, Variant]) -> None:
    steps = len(pack_samples(SAMPLES, TINY.pack_tokens))
    targets = {sum(step.num_targets for step in variant.steps) for variant in variants.values()}
    assert len(targets) == 1
    assert {len(variant.steps) for variant in variants.values()} == {steps}
    assert [len(step.losses) for step in variants["ours"].steps] == [1] * steps
    assert sum(len(step.losses) for step in variants["padded"].steps) == math.ceil(TINY.num_samples / TINY.batch_size)


def test_padding_is_reported_where_there_is_some(variants: dict[str, Variant]) -> None:
    assert variants["padded"].padding > variants["length_sorted"].padding > 0
    assert variants["ours"].padding == variants["hf_packed"].padding == variants["recipe"].padding == 0


def test_a_pass_steps_the_optimizer_and_keeps_the_weights() -> None:
    variant = build()["ours"]
    before = [p.detach().clone() for p in variant.model.parameters()]
    assert variant.run_pass() == variant.run_pass()
    assert all(torch.equal(a, b) for a, b in zip(before, variant.model.parameters(), strict=True))
    counts = {int(state["step"]) for state in variant.optimizer.state.values()}
    assert counts == {2 * len(variant.steps)}
    assert len(variant.optimizer.state) == len(before)
    assert all(p.grad is None for p in variant.model.parameters())


def test_weights_depend_on_the_seed_alone() -> None:
    def loss(global_seed: int, seed: int) -> float:
        torch.manual_seed(global_seed)
        return float(build(seed=seed)["ours"].run_pass())

    assert loss(7, seed=3) == loss(8, seed=3)
    torch.manual_seed(8)
    drawn = torch.rand(1)
    torch.manual_seed(8)
    build()
    assert torch.equal(drawn, torch.rand(1)), "the caller's generator stays where it was"


def test_the_stage_says_what_trains() -> None:
    lines = describe_parts(build(STAGE1)["ours"].model)  # type: ignore[arg-type]
    assert ["Frozen" in line for line in lines] == [True, False, True]


class Gpu(CpuClock):
    """Stand in for a GPU's clock; the work stays on the CPU."""

    device = torch.device("cuda")
    releases = 0

    def release(self) -> None:
        self.releases += 1


def raising(fails: list[str], at: str, loss_of: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Run out of memory unless `at` is recomputed."""

    def run() -> Tensor:
        if fails[-1] != at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss_of()

    return run


@pytest.mark.parametrize(
    ("stage", "tried"),
    [
        (None, ["none", "language", "vision", "vision+language"]),
        (STAGE1, ["none", "language"]),
        (LORA, ["none", "language"]),
    ],
)
def test_ours_recomputes_as_little_as_fits(stage: StageConfig | None, tried: list[str]) -> None:
    ours = build(stage)["ours"]
    assert [name for name, _ in ours.ladder] == tried
    seen = ["-"]
    ours.ladder = [(name, lambda name=name, apply=apply: (apply(), seen.append(name))) for name, apply in ours.ladder]  # type: ignore[misc]
    clock = Gpu()
    ours.steps[-1].losses = [raising(seen, tried[-1], loss_of) for loss_of in ours.steps[-1].losses]
    assert ours.settle(clock)
    assert (seen[1:], ours.recomputes, clock.releases) == (tried, tried[-1], len(tried) - 1)
    assert all(p.grad is None for p in ours.model.parameters())
    model = ours.model
    assert model.language_model.gradient_checkpointing and model.language_model.training  # type: ignore[union-attr]


def test_ends_of_the_ladder_can_be_asked_for() -> None:
    assert [name for name, _ in build(checkpointing="none")["ours"].ladder] == ["none"]
    assert [name for name, _ in build(checkpointing="full")["ours"].ladder] == ["vision+language"]


def test_a_variant_that_fits_nowhere_says_so_and_leaves_no_gradient() -> None:
    padded = build()["padded"]
    padded.steps[-1].losses.append(raising(["-"], "never", padded.steps[0].losses[0]))
    clock = Gpu()
    assert not padded.settle(clock)
    assert (padded.recomputes, clock.releases) == ("all", 2)
    assert all(p.grad is None for p in padded.model.parameters())


def test_only_ours_is_compiled_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounter()  # inductor would take a minute here
    monkeypatch.setattr(bench, "compile_layers", partial(compile_layers, backend=counter))
    plain, compiled = (build(compiled=on)["ours"] for on in (False, True))
    built = build(compiled=True)
    assert built["padded"].settle(CpuClock())
    assert counter.frame_count == 0
    assert compiled.settle(CpuClock())
    assert counter.frame_count > 0
    assert float(compiled.run_pass()) == pytest.approx(float(plain.run_pass()), abs=1e-5)


@pytest.mark.gpu
def test_a_step_on_a_gpu_waits_for_nothing() -> None:
    clock = clock_for("cuda")
    setting = StepSetting(TINY.with_dtype("bfloat16"), "cuda", "bf16")
    model = replace(setting.workload.model, attention="auto")
    setting = replace(setting, workload=replace(setting.workload, model=model))
    ours = build_variants(setting, SAMPLES, clock.device)["ours"]
    if not ours.model.backend.needs_kernel:  # type: ignore[union-attr]
        pytest.skip("no packed attention kernel on this device")
    assert ours.settle(clock)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = ours.run_pass()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(loss) == pytest.approx(math.log(TINY.model.language.vocab_size), abs=0.1)
