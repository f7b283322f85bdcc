"""InternVL 2.5: vision encoder, projector and language model, over one pack.

    pixel_values (N,3,H,W) -> vision_tower -> (N,1+P,C) -> pixel unshuffle -> (N,V,4C) -> projector -> visual (N,V,D)
    input_ids (1,T) -> embeddings (1,T,D) -> visual scattered over <IMG_CONTEXT> -> language_model -> hidden (1,T,D)
    hidden, labels (1,T) -> lm_head on supervised rows -> losses (R,)

T tokens, S samples, N tiles in a pack; P patches and V visual tokens a tile; C and D widths of the encoder and
the language model. The parts are transformers' own modules under transformers' own names. This class owns what it
lacks: the explicit packing contract, the strict scatter and the loss head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from internvl_lab.config import ModelConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError, TokenMismatchError
from internvl_lab.models import attention
from internvl_lab.models.language import build_head, build_language
from internvl_lab.models.loss_head import TokenLosses, supervised_losses
from internvl_lab.models.pixels import normalise
from internvl_lab.models.projector import build_projector, pixel_unshuffle
from internvl_lab.models.vision import VisionTower, build_vision, set_drop_path

if TYPE_CHECKING:
    from transformers.models.internvl.modeling_internvl import InternVLMultiModalProjector
    from transformers.models.llama.modeling_llama import LlamaModel
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

PART_OF_MODULE = {
    "vision_tower": "vision",
    "multi_modal_projector": "projector",
    "language_model": "language",
    "lm_head": "language",
}
"""Module name to part, as stages and checkpoints name them."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Create parameters in `dtype`; a cast afterwards would spoil the rotary tables, which stay fp32."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def build_modules(config: ModelConfig) -> Iterator[tuple[str, nn.Module]]:
    """Build the modules of `InternVL` with random weights, one when asked for the next, in the order of their draws.

    Returns:
        (name in `InternVL`, module).
    """
    builders: dict[str, Callable[[], nn.Module]] = {
        "vision_tower": partial(build_vision, config.vision, config.vision_attention),
        "multi_modal_projector": partial(build_projector, config),
        "language_model": partial(build_language, config.language, attention.PACKED_ATTENTION),
        "lm_head": partial(build_head, config.language),
    }
    for name, build in builders.items():
        with _default_dtype(_DTYPES[config.dtype]):
            module = build()
        yield name, module


class InternVL(nn.Module):
    """Assemble the three parts and run packs through them.

    Args:
        config: sizes, attention backend, dtype, byte budget of the logits.
        image_token_id: id of `<IMG_CONTEXT>`.
    Raises:
        ConfigError: an unknown attention backend or dtype, or a backend that is not installed.
    """

    vision_tower: VisionTower
    multi_modal_projector: InternVLMultiModalProjector
    language_model: Qwen2Model | LlamaModel
    lm_head: nn.Linear

    def __init__(self, config: ModelConfig, image_token_id: int) -> None:
        """Build all parts with random weights: N(0, 0.02), zero biases, layer scale as configured."""
        super().__init__()
        if config.dtype not in _DTYPES:
            raise ConfigError(f"model.dtype={config.dtype!r} must be one of {', '.join(_DTYPES)}")
        self.config, self.image_token_id = config, image_token_id
        attention.check_installed(config.attention)
        for name, module in build_modules(config):
            self.add_module(name, module)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the parameters."""
        return self.lm_head.weight.dtype

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters."""
        return self.lm_head.weight.device

    @property
    def backend(self) -> attention.Backend:
        """Return the packed attention for the device and dtype of the moment.

        Raises:
            ConfigError: the backend asked for cannot run there.
        """
        device = self.device.type
        return attention.resolve(self.config.attention, device, attention.is_half(self.dtype, device))

    def encode_tiles(self, pixel_values: Tensor) -> Tensor:
        """Turn tiles into visual tokens.

        Args:
            pixel_values: (N, 3, H, W); uint8 is normalised here, floats are taken as normalised.
        Returns:
            (N, V, D) in the model's dtype.
        """
        features = self.vision_tower(pixel_values=self._normalise(pixel_values)).last_hidden_state[:, 1:]
        height, width = (edge // self.config.vision.patch_size for edge in pixel_values.shape[2:])
        grid = features.view(features.shape[0], height, width, features.shape[2])
        visual: Tensor = self.multi_modal_projector(
            pixel_unshuffle(grid, self.config.projector.downsample_ratio).flatten(1, 2)
        )
        return visual

    def embed(self, input_ids: Tensor, visual: Tensor | None, positions: Tensor | None = None) -> Tensor:
        """Look up token embeddings and put visual tokens in the place of `<IMG_CONTEXT>`, in order.

        Args:
            input_ids: (B, T) int64.
            visual: (N, V, D), or None for no image.
            positions: (M,) int64 of `<IMG_CONTEXT>` in the flattened ids, where they are known; None = look for them.
        Returns:
            (B, T, D).
        Raises:
            TokenMismatchError: N * V differs from the number of `<IMG_CONTEXT>` ids; nothing is ever cut.
        """
        embeddings: Tensor = self.language_model.get_input_embeddings()(input_ids)
        if positions is None:
            positions = (input_ids.flatten() == self.image_token_id).nonzero().flatten()
        num_tiles, tokens_per_tile = (0, self.config.num_visual_tokens) if visual is None else visual.shape[:2]
        if len(positions) != num_tiles * tokens_per_tile:
            raise TokenMismatchError(
                f"the text holds {len(positions)} <IMG_CONTEXT> tokens (id {self.image_token_id}), but {num_tiles} "
                f"tiles give {num_tiles} x {tokens_per_tile} = {num_tiles * tokens_per_tile} visual tokens"
            )
        if visual is None or num_tiles == 0:
            return embeddings
        rows = visual.flatten(0, 1).to(embeddings.dtype)
        return embeddings.flatten(0, 1).index_copy(0, positions, rows).view_as(embeddings)

    def forward(
        self,
        *,
        input_ids: Tensor,
        position_ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        pixel_values: Tensor,
        visual_positions: Tensor | None = None,
    ) -> Tensor:
        """Run one pack; no sample sees another.

        Args:
            input_ids: (1, T) int64.
            position_ids: (1, T) int64, restarting at 0 in each sample.
            cu_seqlens: (S + 1,) int32 boundaries of the samples.
            max_seqlen: longest sample.
            pixel_values: (N, 3, H, W) uint8, or normalised floats; N may be 0.
            visual_positions: (N * V,) int64 of `<IMG_CONTEXT>`; None = look for them, for which a GPU is waited for.
        Returns:
            (1, T, D) last hidden states, after the final norm.
        Raises:
            TokenMismatchError: tiles and `<IMG_CONTEXT>` ids do not match.
        """
        if pixel_values.shape[0]:
            embeddings = self.embed(input_ids, self.encode_tiles(pixel_values), visual_positions)
        else:
            # All parts take part in every step, so that ranks stay in step and no gradient is missing.
            blank = torch.zeros(1, *pixel_values.shape[1:], dtype=self.dtype, device=pixel_values.device)
            embeddings = self.embed(input_ids, None, visual_positions) + self.encode_tiles(blank).sum() * 0.0
        hidden: Tensor = self.language_model(
            inputs_embeds=embeddings,
            position_ids=position_ids,
            use_cache=False,
            **self.backend.lay_out(cu_seqlens, max_seqlen),
        ).last_hidden_state
        return hidden

    def token_losses(self, hidden: Tensor, labels: Tensor, rows: Tensor | None = None) -> TokenLosses:
        """Compute the cross-entropy of every supervised position.

        Args:
            hidden: (1, T, D) from `forward`.
            labels: (1, T) int64 target of each position (shifted inside its sample), IGNORE_INDEX = none.
            rows: (R,) int64 positions with a label; None = look for them, for which a GPU is waited for.
        Returns:
            Rows (R,) int64 and losses (R,) fp32, in chunks above `config.logits_byte_budget`.
        """
        return supervised_losses(
            self.lm_head, hidden, labels, self.config.language.vocab_size, self.config.logits_byte_budget, rows
        )

    def parts(self) -> dict[str, nn.Module]:
        """Return the three parts by name; `language` is a view of the decoder and its head."""
        language = nn.ModuleDict({"language_model": self.language_model, "lm_head": self.lm_head})
        return {"vision": self.vision_tower, "projector": self.multi_modal_projector, "language": language}

    def set_gradient_checkpointing(self, parts: Sequence[str]) -> None:
        """Recompute activations of the given parts (`vision`, `language`) in the backward pass, of no others.

        Raises:
            ConfigError: a part that is unknown or has no layers to checkpoint.
        """
        towers = {"vision": self.vision_tower, "language": self.language_model}
        for name in parts:
            if name not in towers:
                raise ConfigError(f"stage.gradient_checkpointing: {name!r} must be one of {', '.join(towers)}")
        for name, tower in towers.items():
            if name in parts:
                tower.activation_checkpointing_enable({"use_reentrant": False})
            else:
                tower.activation_checkpointing_disable()  # type: ignore[no-untyped-call]

    def set_drop_path(self, rate: float) -> None:
        """Set stochastic depth of the vision encoder, linear over its layers from 0 to `rate`."""
        set_drop_path(self.vision_tower, rate)

    def _normalise(self, pixel_values: Tensor) -> Tensor:
        """Subtract ImageNet's mean and divide by its deviation: uint8 (N, 3, H, W) -> the model's dtype."""
        if pixel_values.dtype != torch.uint8:
            return pixel_values.to(self.dtype)
        return normalise(pixel_values, self.dtype)


def part_of(name: str) -> str:
    """Say which part (`vision`, `projector`, `language`) a parameter or checkpoint key belongs to.

    Args:
        name: a name as in `InternVL.named_parameters` or in a transformers checkpoint (`model.` in front).
    Raises:
        ConfigError: a name of no part.
    """
    module = name.removeprefix("model.").partition(".")[0]
    if module not in PART_OF_MODULE:
        raise ConfigError(f"{name!r} belongs to no part; parts are {', '.join(PARTS)}")
    return PART_OF_MODULE[module]
