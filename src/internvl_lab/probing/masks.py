"""Pictures with a class for every pixel: ADE20K and COCO-Stuff as they lie on disk, or miniworld.

root/images/training/X.jpg    root/annotations/training/X.png                 ADE20K: 0 = none, 1..150
root/images/train2017/X.jpg   root/annotations/train2017/X_labelTrainIds.png  COCO-Stuff 164K: 0..170, 255 = none
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.config import ProbeDataConfig, ProbeWorldConfig
from internvl_lab.data.transforms import decode_image
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.probing.miniworld import CLASSES, draw_masked, paint_masked
from internvl_lab.probing.pictures import PICTURE_SUFFIXES

log = logging.getLogger(__name__)

IGNORED = 255
"""Label of pixels that are neither trained on nor scored."""
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """Describe how a public set lies on disk."""

    splits: dict[str, str]
    """`train` and `test` to the folder's name."""
    suffix: str
    """What an annotation's name has in place of the picture's suffix."""
    num_classes: int
    first: int
    """Label of class 0; labels below it are ignored."""


LAYOUTS = {
    "ade20k": Layout({"train": "training", "test": "validation"}, ".png", 150, 1),
    "coco_stuff": Layout({"train": "train2017", "test": "val2017"}, "_labelTrainIds.png", 171, 0),
}


@dataclass(frozen=True)
class MaskSet:
    """Hold N pictures with masks."""

    name: str
    keys: tuple[str, ...]
    num_classes: int
    read: Callable[[int], tuple[Image.Image, Mask]] = field(repr=False)
    """Read picture i (RGB, width x height) and its mask (height, width); raises SampleError."""

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.keys)


def open_masks(config: ProbeDataConfig, limit: int | None = None) -> tuple[MaskSet, dict[str, MaskSet]]:
    """Open the training set and the sets to score on.

    Args:
        config: miniworld, or `train.path` and `tests.*.path` as roots of the layout.
        limit: keep at most this many pictures of each.
    Raises:
        ConfigError: no such folder, or no picture with an annotation.
    """
    if config.miniworld is not None:
        return _world(config.miniworld, "train", limit), {"miniworld": _world(config.miniworld, "test", limit)}
    assert config.train is not None
    layout = LAYOUTS[config.layout]
    tests = {name: _on_disk(name, Path(test.path), layout, "test", limit) for name, test in config.tests.items()}
    return _on_disk("train", Path(config.train.path), layout, "train", limit), tests


def _world(config: ProbeWorldConfig, split: str, limit: int | None) -> MaskSet:
    number = min(config.num_train if split == "train" else config.num_test, limit or config.num_train)

    def read(index: int) -> tuple[Image.Image, Mask]:
        """Paint one scene and its mask (H, W)."""
        canvas, mask = paint_masked(draw_masked(split, index, config.seed))
        return Image.fromarray(canvas), mask

    keys = tuple(f"{split}-{i:06d}" for i in range(number))
    return MaskSet("miniworld" if split == "test" else "train", keys, len(CLASSES), read)


def _on_disk(name: str, root: Path, layout: Layout, split: str, limit: int | None) -> MaskSet:
    """Pair pictures with annotations; a picture without one is left out, counted and said."""
    root, folder = root.expanduser(), layout.splits[split]
    images, annotations = root / "images" / folder, root / "annotations" / folder
    for place in (images, annotations):
        if not place.is_dir():
            raise ConfigError(f"probe.data: {name} is not in {place}: no such folder")
    pictures = sorted(path for path in images.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    found = [path for path in pictures if (annotations / f"{path.stem}{layout.suffix}").is_file()]
    if not found:
        raise ConfigError(f"probe.data: {name} holds no picture with an annotation *{layout.suffix} in {annotations}")
    if len(found) < len(pictures):
        log.warning("%s: %d of %d pictures have no annotation", name, len(pictures) - len(found), len(pictures))
    found = found[:limit]

    def read(index: int) -> tuple[Image.Image, Mask]:
        """Read one picture and its mask (H, W)."""
        path = found[index]
        image = decode_image(path.read_bytes(), path.name)
        mask = read_mask(annotations / f"{path.stem}{layout.suffix}", layout)
        if mask.shape != (image.height, image.width):
            raise SampleError(path.name, "mask_size", f"{mask.shape} for {image.height} x {image.width}")
        return image, mask

    return MaskSet(name, tuple(path.name for path in found), layout.num_classes, read)


def read_mask(path: Path, layout: Layout) -> Mask:
    """Read an annotation as class indices (H, W), 255 = ignored.

    Raises:
        SampleError: the file is broken.
        ConfigError: a label is none of the layout's classes, so the layout is another one.
    """
    try:
        labels = np.array(Image.open(io.BytesIO(path.read_bytes())))
    except Exception as error:  # Pillow raises anything for broken files
        raise SampleError(path.name, "corrupt_mask", f"{type(error).__name__}: {error}") from error
    if labels.ndim != 2:
        raise ConfigError(f"{path} has {labels.ndim} dimensions, not one class index a pixel")
    classes = labels.astype(np.int64) - layout.first
    classes[(labels < layout.first) | (labels == IGNORED)] = IGNORED
    wrong = (classes != IGNORED) & (classes >= layout.num_classes)
    if wrong.any():
        raise ConfigError(
            f"{path} holds label {int(labels[wrong].max())}, but this layout has {layout.num_classes} classes: "
            "probe.data.layout must fit the annotations"
        )
    return classes.astype(np.uint8)
