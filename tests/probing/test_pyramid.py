import pytest
import torch
import torch.nn.functional as F

from internvl_lab.probing.pyramid import (
    AUXILIARY_MAPS,
    ChannelNorm,
    LinearSegmenter,
    UperSegmenter,
    linear_depth,
    pyramid_depths,
    to_map,
)

C, K, GRID = 8, 5, (6, 4)


def maps(number=4):
    return [torch.randn(2, C, *GRID) for _ in range(number)]


def test_the_authors_depths_of_48_layers_and_the_proportional_ones():
    assert pyramid_depths(48) == (12, 24, 36, 48)  # out_indices 11, 23, 35, 47
    assert linear_depth(48) == 45  # out_indices [44]
    assert pyramid_depths(45) == (11, 23, 34, 45)
    assert linear_depth(45) == 42
    assert pyramid_depths(4) == (1, 2, 3, 4)
    assert linear_depth(4) == 4
    assert pyramid_depths(4, (1, 1, 2, 3)) == (1, 1, 2, 3)
    assert linear_depth(4, 2) == 2


def test_patches_become_a_map_without_cls():
    tokens = torch.randn(2, 25, C)
    found = to_map(tokens, GRID)
    assert found.shape == (2, C, *GRID)
    assert torch.equal(found[1, :, 2, 3], tokens[1, 1 + 2 * 4 + 3])


def test_the_linear_head_is_batchnorm_and_a_matrix():
    head, (x,) = LinearSegmenter(C, K), maps(1)
    logits, auxiliary = head([x])
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    expected = torch.einsum("bchw,kc->bkhw", (x - mean) / (var + 1e-5).sqrt(), head.classifier.weight[..., 0, 0])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert auxiliary is None


def test_channel_norm_is_layer_norm_at_every_position():
    norm, x = ChannelNorm(C), torch.randn(2, C, 3, 3)
    torch.testing.assert_close(norm(x)[1, :, 2, 0], F.layer_norm(x[1, :, 2, 0], (C,)))


def test_the_pyramid_and_upernet_have_the_published_shapes():
    head, given = UperSegmenter(C, K, channels=12), maps()
    assert [tuple(x.shape[2:]) for x in head.pyramid(given)] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert torch.equal(head.pyramid(given)[2], given[2])
    assert torch.equal(head.pyramid(given)[3], F.max_pool2d(given[3], 2))
    logits, auxiliary = head(given)
    assert logits.shape == (2, K, 24, 16)
    assert auxiliary is not None
    assert auxiliary.shape == (2, K, 6, 4)
    assert head.eval()(given)[1] is None


def test_the_auxiliary_head_sees_the_authors_maps():
    """Second map (twice the size) in head tuning, third in full tuning."""
    for kind, size in (("upernet", (12, 8)), ("full", (6, 4))):
        head = UperSegmenter(C, K, 12, AUXILIARY_MAPS[kind])
        assert head(maps())[1].shape == (2, K, *size)


def test_the_published_channels_give_the_published_widths():
    with torch.device("meta"):
        head = UperSegmenter(3200, 150, 1536)
    weights = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert weights["head.bottleneck.conv.weight"] == (1536, 3200 + 4 * 1536, 3, 3)
    assert weights["head.fpn_bottleneck.conv.weight"] == (1536, 4 * 1536, 3, 3)
    assert weights["head.classifier.weight"] == (150, 1536, 1, 1)
    assert weights["auxiliary.convs.0.conv.weight"] == (1536, 3200, 3, 3)
    assert weights["scales.0.0.weight"] == (3200, 3200, 2, 2)


def test_classifiers_start_small():
    head = UperSegmenter(64, 40, channels=64)
    for classifier in (head.head.classifier, head.auxiliary.classifier, LinearSegmenter(64, 40).classifier):
        assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not classifier.bias.any()
