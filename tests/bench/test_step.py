from __future__ import annotations

import math

import pytest
import torch

from internvl_lab.bench import step as bench
from internvl_lab.bench.samples import WORKLOADS, draw_samples, pack_samples
from internvl_lab.bench.step import Variant, bench_step, build_variants
from internvl_lab.errors import InternVLLabError

TINY = WORKLOADS["tiny"]
PEERS = ["padded", "length_sorted", "hf_packed", "recipe"]


def gradients(variant: Variant) -> dict[str, torch.Tensor]:
    """Return the gradient of the mean loss over all samples, by our parameter names."""
    variant.model.zero_grad()
    total = sum(step.num_targets for step in variant.steps)
    for step in variant.steps:
        for loss_of in step.losses:
            (loss_of() * step.num_targets / total).backward()
    named = variant.model.named_parameters()
    return {name.removeprefix("model."): p.grad.clone() for name, p in named if p.grad is not None}


@pytest.fixture(scope="module")
def variants() -> dict[str, Variant]:
    return build_variants(TINY, draw_samples(TINY))


def test_all_variants_compute_the_same_loss_and_gradient(variants: dict[str, Variant]) -> None:
    ours = gradients(variants["ours"])
    loss = variants["ours"].run_pass()
    assert loss == pytest.approx(math.log(TINY.model.language.vocab_size), abs=0.1)  # random weights know nothing
    for name in PEERS:
        assert variants[name].run_pass() == pytest.approx(loss, abs=1e-4), name
        theirs = gradients(variants[name])
        assert theirs.keys() == ours.keys()
        for parameter, gradient in theirs.items():
            torch.testing.assert_close(gradient, ours[parameter], atol=1e-5, rtol=1e-4, msg=f"{name} {parameter}")


def test_all_variants_see_the_same_targets_in_as_many_steps(variants: dict[str, Variant]) -> None:
    steps = len(pack_samples(draw_samples(TINY), TINY.pack_tokens))
    targets = {sum(step.num_targets for step in variant.steps) for variant in variants.values()}
    assert len(targets) == 1
    assert {len(variant.steps) for variant in variants.values()} == {steps}
    assert [len(step.losses) for step in variants["ours"].steps] == [1] * steps
    assert sum(len(step.losses) for step in variants["padded"].steps) == math.ceil(TINY.num_samples / TINY.batch_size)


def test_padding_is_reported_where_there_is_some(variants: dict[str, Variant]) -> None:
    assert variants["padded"].padding > variants["length_sorted"].padding > 0
    assert variants["ours"].padding == variants["hf_packed"].padding == 0


def test_a_pass_steps_the_optimizer_and_keeps_the_weights() -> None:
    variant = build_variants(TINY, draw_samples(TINY))["ours"]
    before = [p.detach().clone() for p in variant.model.parameters()]
    assert variant.run_pass() == variant.run_pass()
    assert all(torch.equal(a, b) for a, b in zip(before, variant.model.parameters(), strict=True))
    counts = {int(state["step"]) for state in variant.optimizer.state.values()}
    assert counts == {2 * len(variant.steps)}
    assert len(variant.optimizer.state) == len(before)
    assert all(p.grad is None for p in variant.model.parameters())


def test_weights_depend_on_the_seed_alone() -> None:
    samples = draw_samples(TINY)

    def loss(global_seed: int, seed: int) -> float:
        torch.manual_seed(global_seed)
        return build_variants(TINY, samples, seed)["ours"].run_pass()

    assert loss(7, seed=3) == loss(8, seed=3) != loss(7, seed=4)


def test_report_names_all_peers_with_the_ratios_of_the_medians() -> None:
    report = bench_step(TINY, repeats=2)
    assert list(report.peers) == list(report.ratios) == PEERS
    for name, values in report.peers.items():
        assert values.keys() == report.ours.keys()
        speed = values["tokens_per_cpu_s"]["median"]
        assert report.ratios[name] == report.ours["tokens_per_cpu_s"]["median"] / speed
    num_tokens = sum(len(s.input_ids) for s in draw_samples(TINY))
    assert report.setting["tokens"] == num_tokens
    assert report.ours["tokens_per_cpu_s"]["max"] == pytest.approx(num_tokens / report.ours["cpu_s"]["min"])


def test_bfloat16_variants_agree_within_their_tolerance() -> None:
    report = bench_step(TINY.with_dtype("bfloat16"), repeats=1)
    assert report.setting["dtype"] == "bfloat16"


def test_variants_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed_inputs = bench.peers.packed_inputs

    def leaky(*args: object) -> dict[str, torch.Tensor]:
        inputs = packed_inputs(*args)  # type: ignore[arg-type]
        return inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}  # samples now see each other

    monkeypatch.setattr(bench.peers, "packed_inputs", leaky)
    with pytest.raises(InternVLLabError, match="hf_packed"):
        bench_step(TINY, repeats=1)
