"""The batched heads against one plain torch module each, written as the authors' code is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from internvl_lab.probing.heads import AttentionProbes, LinearProbes, pool_tokens, probe_losses

B, P, C, H = 6, 9, 12, 3
CLASSES = (4, 7)
EXACT = {"atol": 1e-9, "rtol": 1e-9}


class PlainAttention(nn.Module):
    """One head: three LayerNorms, projections of every token with biases, softmax, output, BN, linear."""

    def __init__(self, probes: AttentionProbes, j: int) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(C, eps=1e-5) for name in ("query", "key", "value")})
        self.maps = nn.ModuleDict({name: nn.Linear(C, C) for name in ("query", "key", "value", "out")})
        self.bn = nn.BatchNorm1d(C, eps=1e-6)
        self.head = nn.Linear(C, CLASSES[j])
        self.double()
        with torch.no_grad():
            for name, norm in self.norms.items():
                norm.weight.copy_(getattr(probes, f"{name}_scale")[j])
                if name != "key":  # its shift and its bias cannot matter: any value does
                    norm.bias.copy_(getattr(probes, f"{name}_shift")[j])
                else:
                    norm.bias.normal_()
            for name, linear in self.maps.items():
                linear.weight.copy_(getattr(probes, f"{name}_weight")[j])
                if name != "key":
                    linear.bias.copy_(getattr(probes, f"{name}_bias")[j])
            self.bn.weight.copy_(probes.norm.weight.view(-1, C)[j])
            self.bn.bias.copy_(probes.norm.bias.view(-1, C)[j])
            self.head.weight.copy_(probes.classifiers.weight[j, : CLASSES[j]])
            self.head.bias.copy_(probes.classifiers.bias[j, : CLASSES[j]])
        self.train(probes.training)

    def forward(self, tokens):
        query = self.maps["query"](self.norms["query"](tokens.mean(1, keepdim=True)))
        key = self.maps["key"](self.norms["key"](tokens))
        value = self.maps["value"](self.norms["value"](tokens))
        split = [x.unflatten(-1, (H, C // H)).transpose(1, 2) for x in (query, key, value)]
        pooled = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return self.head(self.bn(self.maps["out"](pooled).squeeze(1)))


def disturb(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("training", [True, False])
def test_attention_pooling_equals_the_plain_one(training):
    """In float64, where only an error of the algebra is larger than 1e-9 (rounding: below 1e-12, measured)."""
    probes = disturb(AttentionProbes(C, H, CLASSES).double()).train(training)
    labels = torch.stack([torch.randint(k, (B,)) for k in CLASSES], 1)
    tokens = 2 * torch.randn(B, 1 + P, C, dtype=torch.float64)
    logits = probes(tokens)
    (3 * probe_losses(logits, labels)).sum().backward()
    for j in range(len(CLASSES)):
        plain = PlainAttention(probes, j)
        expected = plain(tokens)
        torch.testing.assert_close(logits[:, j, : CLASSES[j]], expected, **EXACT)
        assert torch.isinf(logits[:, j, CLASSES[j] :]).all()
        (3 * F.cross_entropy(expected, labels[:, j])).backward()
        for name, linear in plain.maps.items():
            torch.testing.assert_close(getattr(probes, f"{name}_weight").grad[j], linear.weight.grad, **EXACT)
            if name != "key":
                torch.testing.assert_close(getattr(probes, f"{name}_bias").grad[j], linear.bias.grad, **EXACT)
        for name, norm in plain.norms.items():
            torch.testing.assert_close(getattr(probes, f"{name}_scale").grad[j], norm.weight.grad, **EXACT)
            if name != "key":
                torch.testing.assert_close(getattr(probes, f"{name}_shift").grad[j], norm.bias.grad, **EXACT)
        assert plain.maps["key"].bias.grad.abs().max() < 1e-9
        assert plain.norms["key"].bias.grad.abs().max() < 1e-9


def attention_flops(width, num_attention_heads, num_tokens, num_probes):
    """Count forward and backward per picture by torch's own counter, on tensors without memory."""
    with torch.device("meta"):
        probes = AttentionProbes(width, num_attention_heads, [10] * num_probes)
        tokens = torch.empty(64, num_tokens, width)
    with FlopCounterMode(display=False) as counter:
        probes(tokens).nan_to_num().sum().backward()
    return counter.get_total_flops() / 64


def test_the_docstring_s_count_of_operations_holds():
    """The classifiers' 10 classes and the folded biases are what the formula leaves out."""
    width, heads, tokens = 128, 4, 65
    counted = attention_flops(width, heads, tokens, 40)
    assert counted == pytest.approx(40 * 2 * (11 * width**2 + 4 * heads * tokens * width), rel=0.05)
    assert attention_flops(width, heads, tokens, 4) == pytest.approx(counted / 10, rel=0.01)


def test_ten_rates_cost_the_6b_encoder_s_pass_nothing_to_speak_of():
    """One pass of 45 layers of width 3,200 over 1,025 tokens, then ten epochs on its stored features."""
    forward = 45 * (2 * 12 * 1025 * 3200**2 + 4 * 1025**2 * 3200)
    one, ten = (forward + 10 * attention_flops(3200, 25, 1025, rates) for rates in (1, 10))
    assert ten / one < 1.01


@pytest.mark.parametrize("training", [True, False])
def test_linear_probes_equal_batchnorm_and_linear(training):
    probes = disturb(LinearProbes(2 * C, CLASSES)).train(training)
    x, labels = 3 + torch.randn(B, 2 * C), torch.stack([torch.randint(k, (B,)) for k in CLASSES], 1)
    logits = probes(x)
    probe_losses(logits, labels).sum().backward()
    for j, classes in enumerate(CLASSES):
        norm, linear = nn.BatchNorm1d(2 * C, eps=1e-6).train(training), nn.Linear(2 * C, classes)
        with torch.no_grad():
            norm.weight.copy_(probes.scale[j])
            norm.bias.copy_(probes.shift[j])
            linear.weight.copy_(probes.classifiers.weight[j, :classes])
            linear.bias.copy_(probes.classifiers.bias[j, :classes])
        expected = linear(norm(x))
        torch.testing.assert_close(logits[:, j, :classes], expected, atol=1e-5, rtol=1e-4)
        F.cross_entropy(expected, labels[:, j]).backward()
        torch.testing.assert_close(probes.scale.grad[j], norm.weight.grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            probes.classifiers.weight.grad[j, :classes], linear.weight.grad, atol=1e-5, rtol=1e-4
        )
        if training:
            torch.testing.assert_close(probes.norm.running_var, norm.running_var)


def test_classifiers_start_as_published():
    for probes in (LinearProbes(400, [50]), AttentionProbes(400, 4, [50])):
        assert probes.classifiers.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not probes.classifiers.bias.any()


def test_pooling_joins_cls_and_mean_patch():
    tokens = torch.randn(B, 1 + P, C)
    pooled = pool_tokens(tokens)
    assert torch.equal(pooled[:, :C], tokens[:, 0])
    torch.testing.assert_close(pooled[:, C:], sum(tokens[:, i] for i in range(1, 1 + P)) / P)


def test_a_missing_label_counts_for_no_head():
    logits, labels = torch.randn(4, 2, 5), torch.tensor([[1, -1], [0, -1], [-1, -1], [2, -1]])
    losses = probe_losses(logits, labels)
    rows = [0, 1, 3]
    assert losses[0].item() == pytest.approx(F.cross_entropy(logits[rows, 0], labels[rows, 0]).item())
    assert losses[1].item() == 0
