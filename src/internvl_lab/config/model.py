"""Settings of the three parts of the model.

Field names follow transformers' configs, because the parts are transformers' own modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_lab.config.checks import above_zero, at_least
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError

LAYER_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(frozen=True)
class VisionConfig:
    """Describe one InternViT. Source of the published sizes: spec section 1.3."""

    name: str = "internvit_300m"
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    norm_type: str = "layer_norm"
    """`layer_norm` (300M) or `rms_norm` (6B)."""
    use_qk_norm: bool = False
    """RMSNorm over the full width of queries and keys, before the head split (6B)."""
    attention_bias: bool = True
    """Bias of the query, key and value projections (300M yes, 6B no)."""
    layer_norm_eps: float = 1e-6
    layer_scale_init: float = 0.1
    image_size: int = 448
    """Edge of a tile in pixels."""
    patch_size: int = 14
    weights: str | None = None
    """Where this encoder's weights come from by default: `asset:NAME`, a folder, or null (random)."""

    def __post_init__(self) -> None:
        """Refuse sizes below 1 or that do not divide."""
        at_least(self, "model.vision", 1, *LAYER_SIZES, "image_size", "patch_size")
        above_zero(self, "model.vision", "layer_norm_eps")
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"model.vision.image_size={self.image_size} is no multiple of model.vision.patch_size={self.patch_size}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"model.vision.hidden_size={self.hidden_size} is no multiple of "
                f"model.vision.num_attention_heads={self.num_attention_heads}"
            )
        if self.norm_type not in ("layer_norm", "rms_norm"):
            raise ConfigError(f"model.vision.norm_type={self.norm_type!r} must be layer_norm or rms_norm")


@dataclass(frozen=True)
class ProjectorConfig:
    """Describe the two-layer MLP between encoder and language model. Source: spec section 1.4."""

    name: str = "mlp2x"
    downsample_ratio: float = 0.5
    """Pixel unshuffle: edge of the visual-token grid over edge of the patch grid."""
    weights: str | None = None

    def __post_init__(self) -> None:
        """Refuse ratios outside (0, 1]."""
        if not 0 < self.downsample_ratio <= 1:
            raise ConfigError(f"model.projector.downsample_ratio={self.downsample_ratio} must lie in (0, 1]")


@dataclass(frozen=True)
class LanguageConfig:
    """Describe one causal language model. Source of the published sizes: spec section 1.2."""

    name: str = "qwen2_5_0_5b"
    model_type: str = "qwen2"
    """`qwen2`, or `llama` (InternLM2.5 runs as Llama)."""
    hidden_size: int = 896
    num_hidden_layers: int = 24
    num_attention_heads: int = 14
    num_key_value_heads: int = 2
    intermediate_size: int = 4864
    vocab_size: int = 151674
    max_position_embeddings: int = 32768
    rope_theta: float = 1e6
    rope_scaling_factor: float | None = None
    """Factor of dynamic NTK scaling (InternLM2.5); acts only beyond `max_position_embeddings`."""
    rms_norm_eps: float = 1e-6
    tokenizer: str | None = None
    """`asset:tokenizer`, a folder with `tokenizer.json`, or null: taken from beside the weights."""
    weights: str | None = None

    def __post_init__(self) -> None:
        """Refuse unknown architectures, sizes below 1 and heads that do not divide."""
        sizes = (*LAYER_SIZES, "num_key_value_heads", "vocab_size", "max_position_embeddings")
        at_least(self, "model.language", 1, *sizes)
        above_zero(self, "model.language", "rope_theta", "rope_scaling_factor", "rms_norm_eps")
        if self.model_type not in ("qwen2", "llama"):
            raise ConfigError(f"model.language.model_type={self.model_type!r} must be qwen2 or llama")
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"model.language: hidden_size={self.hidden_size}, num_attention_heads={self.num_attention_heads} "
                f"and num_key_value_heads={self.num_key_value_heads} do not divide"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Put the three parts together."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    attention: str = "auto"
    """Packed attention of the language model: `auto`, `flash2`, `flash4`, `torch_varlen`, `sdpa_docs`, `dense`."""
    vision_attention: str = "auto"
    """Attention of the encoder, inside tiles: `auto`, `sdpa`, `flash2`, `eager`."""
    dtype: str = "float32"
    """Type of the parameters: `float32` or `bfloat16`."""
    logits_byte_budget: int = 1 << 30
    """Most bytes of fp32 logits at once; above it the loss head works in chunks."""

    def __post_init__(self) -> None:
        """Refuse an empty budget."""
        at_least(self, "model", 1, "logits_byte_budget")

    @property
    def num_visual_tokens(self) -> int:
        """Count the visual tokens of one tile: (image_size / patch_size * downsample_ratio)^2.

        Raises:
            ConfigError: `downsample_ratio` does not divide the patch grid.
        """
        edge = self.vision.image_size / self.vision.patch_size * self.projector.downsample_ratio
        if edge != int(edge):
            raise ConfigError(
                f"model.projector.downsample_ratio={self.projector.downsample_ratio} does not divide the patch grid"
            )
        return int(edge) ** 2


@dataclass(frozen=True)
class InitConfig:
    """Name where the weights of each part come from: `asset:NAME`, a folder, or null (random).

    Weights only: optimizer, step and data position stay behind (that is `ckpt_path`).
    """

    vision: str | None = None
    projector: str | None = None
    language: str | None = None

    def part(self, name: str) -> str | None:
        """Return the source of part `name`."""
        if name not in PARTS:
            raise ConfigError(f"init_from.{name}: parts are {', '.join(PARTS)}")
        value: str | None = getattr(self, name)
        return value
