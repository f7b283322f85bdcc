"""Settings of probes: what a frozen (or fully tuned) vision encoder has learned. Source of the defaults: spec 11.3."""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_lab.config.checks import above_zero, at_least, share
from internvl_lab.errors import ConfigError

TASKS = ("classification", "segmentation")
CLASSIFICATION_HEADS = ("linear", "attention")
SEGMENTATION_HEADS = ("linear", "upernet", "full")
SEGMENTATION_LAYOUTS = ("ade20k", "coco_stuff")


@dataclass(frozen=True)
class ProbeSetConfig:
    """Name one set of pictures on disk."""

    path: str = ""
    """A folder of class folders, a folder of `*.tar` with `KEY.jpg` and `KEY.cls` (or a pattern of such files, as
    `DIR/imagenet1k-train-*.tar`), or flat pictures with `labels`."""
    labels: str | None = None
    """For flat pictures: a text file of lines `NAME CLASS_INDEX`."""
    real: str | None = None
    """ImageNet-ReaL's `real.json`: the accepted classes of every validation picture, by its number."""
    restrict: bool = False
    """Answer only among the classes that this set holds (ImageNet-A and -R: 200 of 1,000)."""


@dataclass(frozen=True)
class ProbeWorldConfig:
    """Size the embedded pictures; their contents are disjoint between the splits."""

    num_train: int = 4000
    num_test: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse empty splits."""
        at_least(self, "probe.data.miniworld", 2, "num_train")
        at_least(self, "probe.data.miniworld", 1, "num_test")
        at_least(self, "probe.data.miniworld", 0, "seed")


@dataclass(frozen=True)
class ProbeDataConfig:
    """Say which pictures a probe learns from and is scored on: miniworld, or sets on disk."""

    name: str = "miniworld"
    train: ProbeSetConfig | None = None
    tests: dict[str, ProbeSetConfig] = field(default_factory=dict)
    num_classes: int | None = None
    """Refuse training pictures of another number of classes; null = take what is there."""
    miniworld: ProbeWorldConfig | None = None
    layout: str = "ade20k"
    """Segmentation on disk: `ade20k` (label 0 is no class) or `coco_stuff` (164K; as published or converted)."""

    def __post_init__(self) -> None:
        """Refuse data without pictures, or both kinds at once."""
        if (self.miniworld is None) == (self.train is None):
            raise ConfigError("probe.data needs either miniworld or train (with tests), not both")
        if self.train is not None and not self.tests:
            raise ConfigError("probe.data.tests is empty: name at least one set to score on")
        if self.layout not in SEGMENTATION_LAYOUTS:
            raise ConfigError(f"probe.data.layout={self.layout!r} must be one of {', '.join(SEGMENTATION_LAYOUTS)}")
        at_least(self, "probe.data", 2, "num_classes")


@dataclass(frozen=True)
class ClassificationConfig:
    """Train heads on a frozen encoder with SGD. Source: InternVL 2.5, section 7.1; spec section 11.3."""

    heads: tuple[str, ...] = CLASSIFICATION_HEADS
    """`linear` (CLS and mean patch -> BN -> linear), `attention` (attention pooling -> BN -> linear)."""
    depths: tuple[int, ...] = (-1,)
    """Layers after which features are taken, 0 = the embeddings, -1 = the last layer; empty = every depth."""
    learning_rates: tuple[float, ...] = (0.1,)
    """Rates for 512 pictures a step, all trained at once; a rate counts times batch_size / 512."""
    selection_share: float = 0.1
    """Share of the training pictures that chooses among several rates, and is then not trained on."""
    batch_size: int = 1024
    epochs: int = 10
    warmup_epochs: int = 1
    """Epochs, of those, in which the rate grows from 0; a cosine down to 0 follows."""
    momentum: float = 0.9
    ema_decay: float | None = 0.998
    """Also score the moving average of the heads; null = off."""
    augment: bool = True
    """Random resized crop and flip of training pictures; miniworld's counts and glyphs do not survive it."""
    cache: bool = False
    """Encode each picture once (`views` times) and train on stored bf16 features; off = encode in every epoch."""
    views: int = 1
    """Augmented views of a training picture that are cached; epoch e sees view e modulo this."""
    neighbours: int = 20
    """k of the k-nearest-neighbour score."""

    def __post_init__(self) -> None:
        """Refuse unknown heads and impossible schedules."""
        if not self.heads or set(self.heads) - set(CLASSIFICATION_HEADS):
            raise ConfigError(
                f"probe.classification.heads={list(self.heads)} must be of {', '.join(CLASSIFICATION_HEADS)}"
            )
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ConfigError("probe.classification.learning_rates must be a list of rates above 0")
        prefix = "probe.classification"
        share(self, prefix, "selection_share", "momentum", "ema_decay", below_one=True)
        at_least(self, prefix, 2, "batch_size")
        at_least(self, prefix, 1, "epochs", "views", "neighbours")
        at_least(self, prefix, 0, "warmup_epochs")
        if self.warmup_epochs > self.epochs:
            raise ConfigError(f"{prefix}.warmup_epochs={self.warmup_epochs} exceeds epochs={self.epochs}")
        if len(self.learning_rates) > 1 and self.selection_share == 0:
            raise ConfigError(f"{prefix}.selection_share=0 leaves nothing to choose among several learning_rates with")


@dataclass(frozen=True)
class SegmentationConfig:
    """Train a segmentation head, or head and encoder. Source: InternVL 2.5, section 7.2; spec section 11.3."""

    heads: tuple[str, ...] = ("linear",)
    """`linear` (BN and 1x1 convolution), `upernet` (head tuning), `full` (UperNet, encoder trained as well)."""
    linear_depth: int | None = None
    """Layer whose features the linear head sees; null = 45/48 of the way up (the authors' block 45 of 48)."""
    pyramid_depths: tuple[int, ...] = ()
    """Four layers that feed UperNet; empty = every quarter of the way up (the authors' 12, 24, 36, 48 of 48)."""
    channels: int = 1536
    crop_size: int = 504
    stride: int = 322
    """Step of the sliding window at test time, in pixels."""
    batch_size: int = 16
    max_steps: int = 80000
    warmup_steps: int = 1500
    learning_rate: float = 4e-5
    weight_decay: float = 0.05
    """Of `upernet` and `full`; the linear head has none."""
    layer_decay: float = 0.95
    """In full tuning each layer learns at this times the rate of the one above."""
    drop_path_rate: float = 0.4
    """Stochastic depth in full tuning."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss. Source: the base config of UperNet the authors build on."""
    augment: bool = True
    """Random scale 0.5..2, crop and flip; off = every training picture whole, at the crop's size."""
    grid_pictures: int = 8
    """Test pictures drawn beside their truth and prediction; 0 = none."""

    def __post_init__(self) -> None:
        """Refuse unknown heads and impossible windows."""
        if not self.heads or set(self.heads) - set(SEGMENTATION_HEADS):
            raise ConfigError(f"probe.segmentation.heads={list(self.heads)} must be of {', '.join(SEGMENTATION_HEADS)}")
        prefix = "probe.segmentation"
        at_least(self, prefix, 1, "channels", "crop_size", "stride", "max_steps")
        at_least(self, prefix, 2, "batch_size")
        at_least(self, prefix, 0, "warmup_steps", "weight_decay", "auxiliary_weight", "grid_pictures")
        at_least(self, prefix, 1, "linear_depth")
        above_zero(self, prefix, "learning_rate", "layer_decay")
        share(self, prefix, "drop_path_rate", below_one=True)
        if self.stride > self.crop_size:
            raise ConfigError(f"{prefix}.stride={self.stride} exceeds crop_size={self.crop_size}: pixels left out")
        if len(self.pyramid_depths) not in (0, 4):
            raise ConfigError(f"{prefix}.pyramid_depths={list(self.pyramid_depths)} must be four layers, or empty")


@dataclass(frozen=True)
class ProbeConfig:
    """Say which encoders are probed, on what, and how."""

    task: str = "classification"
    encoder: str | None = None
    """One encoder: `asset:NAME`, a folder in either format, a run's folder, or a stage's checkpoint."""
    encoders: tuple[str, ...] = ()
    """Several, compared in this order instead of `encoder`; each may be `LABEL@SOURCE`."""
    run: str | None = None
    """A run's folder: instead, the encoders that its finished stages left, in the order in which they finished."""
    runs: tuple[str, ...] = ()
    """Folders of runs that differ in their seed: a stage is one encoder, its spread is that over the runs."""
    data: ProbeDataConfig = field(default_factory=lambda: ProbeDataConfig(miniworld=ProbeWorldConfig()))
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    image_size: int | None = None
    """Edge of the square that an encoder sees; null = what it was trained with."""
    encode_batch_size: int = 64
    num_seeds: int = 1
    """Trainings of every head, from `seed` upwards."""

    def __post_init__(self) -> None:
        """Refuse an unknown task and impossible counts."""
        if self.task not in TASKS:
            raise ConfigError(f"probe.task={self.task!r} must be one of {', '.join(TASKS)}")
        at_least(self, "probe", 1, "encode_batch_size", "num_seeds", "image_size")
