import pytest
from torch import nn

from internvl_lab.probing.layer_decay import decayed_groups, rate_scale


class Whole(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.tower, self.segmenter = encoder.tower.requires_grad_(True), nn.Conv2d(24, 3, 1)


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("tower.embeddings.cls_token", 49),
        ("tower.embeddings.patch_embeddings.projection.weight", 49),
        ("tower.encoder.layer.0.mlp.fc1.weight", 48),
        ("tower.encoder.layer.47.lambda_1", 1),
        ("segmenter.head.classifier.weight", 0),
        ("segmenter.scales.0.0.weight", 0),
    ],
)
def test_rates_are_the_authors_for_48_layers(name, power):
    """Their scale is d^(num_layers + 2 - layer_id - 1), with layer_id 0 for embeddings and i + 1 for block i."""
    assert rate_scale(name, 48, 0.95) == pytest.approx(0.95**power)


def test_groups_hold_every_parameter_once_and_spare_vectors(encoder):
    whole = Whole(encoder)
    groups = decayed_groups(whole.named_parameters(), 3, 1e-3, 0.05, 0.5)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(whole.parameters()))
    of = {id(p): group for group in groups for p in group["params"]}
    named = dict(whole.named_parameters())

    def settings(name):
        group = of[id(named[name])]
        return group["lr"], group["weight_decay"]

    assert settings("tower.encoder.layer.2.mlp.fc1.weight") == (0.5e-3, 0.05)
    assert settings("tower.encoder.layer.2.mlp.fc1.bias") == (0.5e-3, 0.0)
    assert settings("tower.encoder.layer.0.mlp.fc1.weight") == (0.125e-3, 0.05)
    assert settings("tower.embeddings.patch_embeddings.projection.weight") == (0.0625e-3, 0.05)
    assert settings("tower.embeddings.position_embeddings") == (0.0625e-3, 0.0)
    assert settings("tower.encoder.layer.1.lambda_1") == (0.25e-3, 0.0)
    assert settings("segmenter.weight") == (1e-3, 0.05)
    assert len(groups) == 2 * (1 + 3 + 1)


def test_frozen_parameters_have_no_group(encoder):
    whole = Whole(encoder)
    whole.tower.requires_grad_(False)
    groups = decayed_groups(whole.named_parameters(), 3, 1e-3, 0.05, 0.5)
    assert sum(len(group["params"]) for group in groups) == 2
