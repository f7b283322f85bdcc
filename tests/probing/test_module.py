import copy

import pytest
import torch
from torch.optim import SGD
from torch.utils.data import DataLoader

from internvl_lab.config import ClassificationConfig
from internvl_lab.probing.heads import LinearProbes, probe_losses
from internvl_lab.probing.module import EMA, ProbeAxis, ProbeModule, build_heads, rate_factor

AXIS = ProbeAxis(("shape", "count"), (3, 4), (0.1, 0.4))
STEPS, B = 6, 16


def batches(encoder, steps=STEPS, number=B):
    torch.manual_seed(5)
    made = [
        {
            "pixel_values": torch.randint(0, 256, (number, 3, 28, 28), dtype=torch.uint8),
            "labels": torch.stack([torch.randint(k, (number,)) for k in AXIS.num_classes], 1),
            "rows": torch.arange(number),
        }
        for _ in range(steps)
    ]
    return DataLoader(made, batch_size=None)


def make(encoder, axis=AXIS, kinds=("linear", "attention"), **config):
    settings = ClassificationConfig(heads=kinds, learning_rates=axis.learning_rates, **config)
    torch.manual_seed(0)
    heads = build_heads(encoder, kinds, (1, 3), axis)
    return ProbeModule(encoder, heads, axis, settings, B, STEPS, warmup_steps=2)


def test_a_head_for_every_kind_and_depth(encoder):
    module = make(encoder)
    assert set(module.heads) == {"linear@1", "linear@3", "attention@1", "attention@3"}
    assert AXIS.heads == [(0, 0.1), (0, 0.4), (1, 0.1), (1, 0.4)]
    assert AXIS.place(1, 0) == 2
    assert module.rates.tolist() == pytest.approx([rate * B / 512 for rate in (0.1, 0.4, 0.1, 0.4)])


def test_the_encoder_is_no_part_of_the_module(encoder):
    module = make(encoder)
    ours = {id(p) for p in module.parameters()}
    assert not ours & {id(p) for p in encoder.tower.parameters()}
    assert not any("tower" in name for name in module.state_dict())


def test_training_leaves_every_tensor_of_the_encoder_bit_equal(encoder, build_trainer):
    before = {name: tensor.clone() for name, tensor in encoder.tower.state_dict().items()}
    module = make(encoder)
    start = copy.deepcopy(module.heads.state_dict())
    build_trainer(max_epochs=1).fit(module, batches(encoder))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.tower.state_dict().items())
    assert any(not torch.equal(start[name], tensor) for name, tensor in module.heads.state_dict().items())


def test_rates_trained_together_equal_each_trained_alone_by_plain_sgd(encoder, build_trainer):
    module = make(encoder, kinds=("linear",), ema_decay=None)
    alone = copy.deepcopy(module.heads)
    given = batches(encoder)
    build_trainer(max_epochs=1).fit(module, given)
    for j, (target, rate) in enumerate(AXIS.heads):
        head = alone["linear@3"]
        single = LinearProbes(48, [max(AXIS.num_classes)])
        single.classifiers.valid = head.classifiers.valid[j : j + 1]
        with torch.no_grad():
            single.classifiers.weight.copy_(head.classifiers.weight[j : j + 1])
        optimizer = SGD(single.parameters(), lr=rate * B / 512, momentum=0.9, nesterov=True)
        for step, batch in enumerate(given):
            optimizer.param_groups[0]["lr"] = rate * B / 512 * rate_factor(step, STEPS, 2)
            optimizer.zero_grad()
            loss = probe_losses(single(module.features_of(batch)["linear@3"]), batch["labels"][:, target : target + 1])
            loss.sum().backward()
            optimizer.step()
        mine = module.heads["linear@3"].classifiers.weight[j]
        torch.testing.assert_close(mine, single.classifiers.weight[0], atol=1e-6, rtol=1e-5)


def test_the_moving_average_follows_the_heads(encoder, build_trainer):
    module = make(encoder, kinds=("linear",), ema_decay=0.5)
    seen = []
    update = module.ema.update_parameters
    module.ema.update_parameters = lambda heads: (
        seen.append(heads["linear@3"].classifiers.bias.detach().clone()),
        update(heads),
    )
    build_trainer(max_epochs=1).fit(module, batches(encoder, steps=3))
    expected = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]
    torch.testing.assert_close(module.ema.module["linear@3"].classifiers.bias, expected)


def test_predictions_come_from_both_and_only_among_the_allowed_classes(encoder, build_trainer):
    module = make(encoder, kinds=("linear",), ema_decay=0.5)
    trainer = build_trainer(max_epochs=1)
    trainer.fit(module, batches(encoder))
    (found,) = trainer.predict(module, batches(encoder, 1))
    assert set(found) == {"rows", "linear@1", "linear@3", f"{EMA}linear@1", f"{EMA}linear@3"}
    assert found["linear@3"].shape == (B, 4)
    assert found["linear@3"][:, :2].max() <= 2  # `shape` has three classes of the padded four
    module.among = (1, 2)
    (found,) = trainer.predict(module, batches(encoder, 1))
    assert set(found["linear@3"].unique().tolist()) <= {1, 2}


def test_the_rate_rises_and_falls_to_zero():
    factors = [rate_factor(step, 100, 10) for step in range(101)]
    assert factors[:2] == [0, 0.1]
    assert factors[10] == pytest.approx(0.9755, abs=1e-4)
    assert factors[100] == 0
    assert rate_factor(0, 100, 0) == 1
