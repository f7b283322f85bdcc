"""InternViT: transformers' encoder plus what the report trains with, stochastic depth.

    pixel_values (N, 3, H, W) -> patches + CLS (N, 1+P, C) -> L pre-norm layers -> (N, 1+P, C)

There is no final norm (transformers' `use_mean_pooling` removes it), as in the authors' model.
transformers' layer has no drop path; ours adds it on both residual branches. It also adds the scaled
branch to the residual in one pass (`addcmul`) instead of two, which saves memory traffic in a part
that is bound by it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
from transformers.models.internvl.modeling_internvl import (
    InternVLVisionEmbeddings,
    InternVLVisionEncoder,
    InternVLVisionLayer,
    InternVLVisionModel,
)

from internvl_lab.config import VisionConfig
from internvl_lab.models.attention import resolve_tiles

INITIALIZER_RANGE = 0.02
"""Standard deviation of all randomly initialised matrices and embeddings."""


def to_transformers_vision(cfg: VisionConfig) -> InternVLVisionConfig:
    """Translate our vision settings into transformers' config class."""
    return InternVLVisionConfig(
        hidden_size=cfg.hidden_size,
        num_hidden_layers=cfg.num_hidden_layers,
        num_attention_heads=cfg.num_attention_heads,
        intermediate_size=cfg.intermediate_size,
        norm_type=cfg.norm_type,
        use_qk_norm=cfg.use_qk_norm,
        attention_bias=cfg.attention_bias,
        layer_norm_eps=cfg.layer_norm_eps,
        layer_scale_init_value=cfg.layer_scale_init,
        image_size=[cfg.image_size, cfg.image_size],
        patch_size=[cfg.patch_size, cfg.patch_size],
        initializer_range=INITIALIZER_RANGE,
        use_mean_pooling=True,
    )


class VisionLayer(InternVLVisionLayer):
    """Add drop path to transformers' layer: x += dp(attn(norm x) * l1); x += dp(mlp(norm x) * l2)."""

    drop_path_rate: float = 0.0

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Run one layer: (N, 1+P, C) -> (N, 1+P, C)."""
        attended, _ = self.attention(self.layernorm_before(hidden_states))
        hidden_states = torch.addcmul(hidden_states, attended, self._branch_scale(self.lambda_1, hidden_states))
        widened = self.mlp(self.layernorm_after(hidden_states))
        return torch.addcmul(hidden_states, widened, self._branch_scale(self.lambda_2, hidden_states))

    def _branch_scale(self, layer_scale: Tensor, hidden_states: Tensor) -> Tensor:
        """Return the factor of a residual branch, (C,), or (N, 1, C) where drop path acts per tile."""
        if not self.training or self.drop_path_rate == 0.0:
            return layer_scale
        keep = 1.0 - self.drop_path_rate
        mask = hidden_states.new_empty(hidden_states.shape[0], 1, 1).bernoulli_(keep).div_(keep)
        return mask * layer_scale


class VisionEncoder(InternVLVisionEncoder):
    """Hold layers with drop path instead of transformers' own."""

    def __init__(self, config: InternVLVisionConfig) -> None:
        """Build `num_hidden_layers` layers."""
        nn.Module.__init__(self)  # the parent would build (and initialise) its own layers first
        self.config = config
        self.layer = nn.ModuleList([VisionLayer(config) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False


class VisionTower(InternVLVisionModel):
    """Be transformers' `InternVLVisionModel`, with the same parameter names, and with drop path."""

    def __init__(self, config: InternVLVisionConfig) -> None:
        """Build the encoder with random weights."""
        super(InternVLVisionModel, self).__init__(config)
        self.embeddings = InternVLVisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.layernorm = nn.Identity()
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw CLS and position embeddings too: transformers leaves them zero, which learns slowly from scratch."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, InternVLVisionEmbeddings):
            for parameter in (module.cls_token, module.position_embeddings):
                if not getattr(parameter, "_is_hf_initialized", False):
                    parameter.normal_(0.0, INITIALIZER_RANGE)


def build_vision(cfg: VisionConfig, attention: str = "auto") -> VisionTower:
    """Build one InternViT with random weights, in torch's default dtype.

    Args:
        cfg: sizes and switches.
        attention: backend, a key of `attention.TILE_BACKENDS` or `auto`.
    Raises:
        ConfigError: an unknown backend, or one that is not installed.
    """
    config = to_transformers_vision(cfg)
    config._attn_implementation = resolve_tiles(attention).registered_name
    return VisionTower(config)


def set_drop_path(vision: nn.Module, rate: float) -> None:
    """Set stochastic depth, growing linearly over the layers from 0 to `rate`.

    Whole branches are dropped per tile, and the kept ones divided by the probability of keeping, in
    training mode only. Source: authors' `modeling_intern_vit.py` (timm's DropPath); spec section 1.3.

    Raises:
        ValueError: a rate outside [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"drop path rate {rate} must lie in [0, 1)")
    layers = [module for module in vision.modules() if isinstance(module, VisionLayer)]
    for index, layer in enumerate(layers):
        layer.drop_path_rate = rate * index / max(len(layers) - 1, 1)
