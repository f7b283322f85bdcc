"""Heads for segmentation on the layers of a plain ViT.

    tokens (B, 1+P, C) of one layer   ─ BN ─ 1x1 convolution ─────────────────────────────> (B, K, h, w)
    tokens of four layers ─ x4, x2, x1, x1/2 ─ UperNet (transformers' head) ──────────────> (B, K, 4h, 4w)
                     one of the four maps ─ auxiliary convolution head, training only ─> (B, K, h', w')

Source: InternVL 2.5, section 7.2; authors' `segmentation/.../intern_vit_6b.py` (pyramid) and configs; spec section
11.3. Their heads also drop 10 % of the channels before classifying, which transformers' do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from torch import Tensor, nn
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

POOL_SCALES = (1, 2, 3, 6)
LINEAR_SHARE = 45 / 48
"""How far up the linear head looks: the authors' out_indices [44] of 48 layers."""
INIT_STD = 0.01
AUXILIARY_MAPS = {"upernet": 1, "full": 2}
"""The auxiliary head's map, from 0: `in_index=1` in the authors' config of head tuning, the base's 2 in full tuning."""


def linear_depth(num_layers: int, asked: int | None = None) -> int:
    """Return the layer of the linear head: the one asked for, or 45/48 of the way up, at least 1."""
    return asked if asked is not None else max(1, round(LINEAR_SHARE * num_layers))


def pyramid_depths(num_layers: int, asked: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the four layers of the pyramid: those asked for, or every quarter.

    12, 24, 36, 48 of 48 layers are the authors' (out_indices 11, 23, 35, 47). For 45 layers theirs are unpublished:
    11, 23, 34, 45 here are the proportional choice.
    """
    return tuple(asked) or tuple(max(1, int(quarter * num_layers / 4 + 0.5)) for quarter in (1, 2, 3, 4))


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Drop CLS and arrange patches: (B, 1+h*w, C) -> (B, C, h, w) in fp32."""
    patches: Tensor = tokens[:, 1:].mT.unflatten(2, grid)
    return patches.float()


class LinearSegmenter(nn.Module):
    """Classify every patch: BN and a 1x1 convolution.

    Args:
        width: C.
        num_classes: K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        _start(self.classifier)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, None]:
        """Map one feature map (B, C, h, w) to logits (B, K, h, w); there is no auxiliary output."""
        return self.classifier(self.norm(maps[0])), None


class ChannelNorm(nn.LayerNorm):
    """Normalise every position over its channels: (B, C, h, w) -> (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply LayerNorm to the channels of (B, C, h, w)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class UperSegmenter(nn.Module):
    """Build a pyramid from four layers of a plain ViT and segment with UperNet.

    Args:
        width: C.
        num_classes: K.
        channels: width of UperNet (the report: 1536).
        auxiliary_map: which of the pyramid's maps, from 0, the auxiliary head sees.
    """

    def __init__(
        self, width: int, num_classes: int, channels: int, auxiliary_map: int = AUXILIARY_MAPS["full"]
    ) -> None:
        super().__init__()
        double = nn.ConvTranspose2d(width, width, 2, 2)
        quadruple = (nn.ConvTranspose2d(width, width, 2, 2), ChannelNorm(width), nn.GELU())
        self.scales = nn.ModuleList(
            [
                nn.Sequential(*quadruple, nn.ConvTranspose2d(width, width, 2, 2)),
                double,
                nn.Identity(),
                nn.MaxPool2d(2, 2),
            ]
        )
        settings = SimpleNamespace(
            pool_scales=POOL_SCALES,
            hidden_size=channels,
            num_labels=num_classes,
            auxiliary_in_channels=None,
            auxiliary_channels=channels,
            auxiliary_num_convs=1,
            auxiliary_concat_input=False,
        )
        self.head = UperNetHead(settings, [width] * 4)
        self.auxiliary = UperNetFCNHead(settings, [width] * 4, in_index=auxiliary_map)
        for classifier in (self.head.classifier, self.auxiliary.classifier):
            _start(classifier)

    def pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Scale four maps (B, C, h, w) to 4, 2, 1 and 1/2 times their size."""
        return [scale(x) for scale, x in zip(self.scales, maps, strict=True)]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Map four feature maps (B, C, h, w) to logits (B, K, 4h, 4w), in training auxiliary ones (B, K, h', w')."""
        levels = self.pyramid(maps)
        return self.head(levels), self.auxiliary(levels) if self.training else None


def _start(classifier: nn.Conv2d) -> None:
    nn.init.normal_(classifier.weight, std=INIT_STD)
    assert classifier.bias is not None
    nn.init.zeros_(classifier.bias)
