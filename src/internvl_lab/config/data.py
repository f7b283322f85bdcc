"""Settings of the data path: sources, tiling, augmentation, packing, loading."""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_lab.config.checks import above_zero, at_least, share
from internvl_lab.errors import ConfigError


@dataclass(frozen=True)
class TilingConfig:
    """Cut images into tiles. Source: InternVL 2.5, section 3.1."""

    tile_size: int = 448
    """Edge of a tile in pixels; equals `model.vision.image_size`."""
    num_visual_tokens: int = 256
    """Visual tokens of one tile; follows from the model (`ModelConfig.num_visual_tokens`)."""
    min_tiles: int = 1
    max_tiles: int = 12
    """Largest number of tiles of one sample's images, thumbnails not counted."""
    use_thumbnail: bool = True
    resize: str = "torch"
    """`torch` (uint8 antialiased bicubic, fast, within 3 levels of Pillow) or `pillow` (the authors' pixels)."""

    def __post_init__(self) -> None:
        """Refuse impossible limits."""
        at_least(self, "tiling", 1, "tile_size", "num_visual_tokens")
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ConfigError(f"tiling: min_tiles={self.min_tiles} and max_tiles={self.max_tiles} do not fit")
        if self.resize not in ("torch", "pillow"):
            raise ConfigError(f"tiling.resize={self.resize!r} must be torch or pillow")


@dataclass(frozen=True)
class JpegConfig:
    """Re-encode each tile as JPEG at a random quality. Source: InternVL 2.5, section 3.4; spec section 4."""

    enabled: bool = True
    min_quality: int = 75
    max_quality: int = 100

    def __post_init__(self) -> None:
        """Refuse qualities outside 1..100."""
        if not 1 <= self.min_quality <= self.max_quality <= 100:
            raise ConfigError(f"jpeg: qualities {self.min_quality}..{self.max_quality} must lie in 1..100")


@dataclass(frozen=True)
class PackingConfig:
    """Bound the packs. Source of 16384 and 48: InternVL 2.5, table 3."""

    max_tokens: int = 16384
    max_tiles: int = 48
    packs_per_step: int = 512
    """Packs in one optimizer step over all ranks; accumulation = packs_per_step / ranks."""
    block_size: int = 8192
    """Samples that are shuffled and packed together; the resume unit of the plan."""
    group_window: int = 8
    """Steps inside which packs of like cost are put into the same step; 1 = off."""

    def __post_init__(self) -> None:
        """Refuse empty budgets."""
        at_least(self, "packing", 1, "max_tokens", "max_tiles", "packs_per_step", "block_size", "group_window")


@dataclass(frozen=True)
class SourceConfig:
    """Describe one source of a mixture."""

    shards: str = ""
    """Folder of WebDataset tars with their sidecar index."""
    repeat: float = 1.0
    """Repeat factor r in (0, 4]; fractions are drawn at random per epoch, never 'the first part'."""
    max_tiles: int | None = None
    """Tile limit of this source; null = `tiling.max_tiles`."""
    jpeg: bool = True
    """Whether JPEG augmentation may act on this source (the report: images yes, video no)."""
    weight: float = 1.0
    """Factor on the loss weights of this source's tokens."""
    tasks: tuple[str, ...] = ()
    """Keep only records whose `task` field is one of these; empty = all."""

    def __post_init__(self) -> None:
        """Refuse repeat factors outside (0, 4]. Source: InternVL 2.5, section 4.1."""
        above_zero(self, "data.mixture", "weight")
        if not 0 < self.repeat <= 4:
            raise ConfigError(f"data.mixture: repeat={self.repeat} must lie in (0, 4]")
        at_least(self, "data.mixture", 1, "max_tiles")


@dataclass(frozen=True)
class MiniworldConfig:
    """Size of the embedded dataset."""

    seed: int = 0
    num_pretrain: int = 16000
    num_finetune: int = 24000
    num_text: int = 0
    """Text-only records for language pretraining: text-only questions and scenes told in words."""
    num_val: int = 1320
    """Samples of `val` over all tasks, equally many a task."""
    samples_per_shard: int = 1000
    tasks: tuple[str, ...] = ()
    """Tasks to generate; empty = all."""
    slow_tasks: tuple[str, ...] = ()
    """Tasks that `finetune` holds more often, because they are learned slowest: once more for each mention."""

    def __post_init__(self) -> None:
        """Refuse negative counts and empty shards."""
        at_least(self, "data.miniworld", 0, "seed", "num_pretrain", "num_finetune", "num_text", "num_val")
        at_least(self, "data.miniworld", 1, "samples_per_shard")


@dataclass(frozen=True)
class DataConfig:
    """Say what is read and how it is loaded."""

    mixtures: dict[str, dict[str, SourceConfig]] = field(default_factory=dict)
    """Named mixtures; a stage names the one it reads. Each maps source name to source."""
    miniworld: MiniworldConfig | None = None
    """When set, miniworld shards are generated under `paths.data_dir` before the first stage."""
    jpeg: JpegConfig = field(default_factory=JpegConfig)
    loss_averaging: str = "square"
    """`token`, `sample` or `square`. Source: InternVL 2.5, equation 5; spec section 5."""
    weight_unit: str = "sample"
    """Length that enters the weight: whole `sample` (authors' code) or single `response` (paper)."""
    region_targets: bool = False
    """Ask visual tokens for the words of the `regions` they look at; for pretraining a small encoder."""
    num_workers: int = 1
    prefetch_factor: int = 4
    journal: bool = False
    """Write the sample keys of every step to `journal.jsonl`."""
    max_bad_share: float = 0.01
    """Share of samples that may fail to decode before the run stops."""
    max_bad_in_row: int = 100
    allow_changed_data: bool = False
    """Resume although shards or settings differ from the checkpoint's; what changed is logged as a warning."""
    system_message: str | None = None
    """System turn; null = the report's."""

    def __post_init__(self) -> None:
        """Refuse unknown averaging modes and impossible limits."""
        at_least(self, "data", 0, "num_workers")
        at_least(self, "data", 1, "prefetch_factor", "max_bad_in_row")
        share(self, "data", "max_bad_share")
        if self.loss_averaging not in ("token", "sample", "square"):
            raise ConfigError(f"data.loss_averaging={self.loss_averaging!r} must be token, sample or square")
        if self.weight_unit not in ("sample", "response"):
            raise ConfigError(f"data.weight_unit={self.weight_unit!r} must be sample or response")
