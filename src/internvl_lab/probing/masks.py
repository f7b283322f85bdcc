"""Pictures with a class for every pixel: ADE20K and COCO-Stuff as they lie on disk, or miniworld.

root/images/training/X.jpg    root/annotations/training/X.png                 ADE20K: 0 = none, 1..150
root/images/train2017/X.jpg   root/annotations/train2017/X.png                COCO-Stuff 164K, stuffthingmaps
                              root/annotations/train2017/X_labelTrainIds.png  the same, converted by mmsegmentation

COCO-Stuff's published files hold 0..181 (the ids of its list less one) and 255 = none; 11 of these ids are in no
picture, and the other 171 are the classes, in order. Converted files hold 0..170. Where both lie side by side, the
converted ones are read.
Source: cocostuff `labels.md`; mmsegmentation `tools/convert_datasets/coco_stuff164k.py`.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
    labels: tuple[int, ...]
    """The label in the files of each class, ascending."""
    ignored: tuple[int, ...] = (IGNORED,)
    """Labels of pixels without a class."""

    @property
    def num_classes(self) -> int:
        """Count the classes."""
        return len(self.labels)

    @cached_property
    def classes(self) -> NDArray[np.int16]:
        """Return the class of each label, (256,): -1 = the label has no place here."""
        table = np.full(256, -1, np.int16)
        table[list(self.labels)] = range(self.num_classes)
        table[list(self.ignored)] = IGNORED
        return table


COCO_FOLDERS = {"train": "train2017", "test": "val2017"}
COCO_ABSENT = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Ids of COCO-Stuff, counted from 0, that were never annotated: street sign, hat, shoe, ..."""
LAYOUTS = {
    "ade20k": (Layout({"train": "training", "test": "validation"}, ".png", tuple(range(1, 151)), (0, IGNORED)),),
    "coco_stuff": (
        Layout(COCO_FOLDERS, "_labelTrainIds.png", tuple(range(171))),
        Layout(COCO_FOLDERS, ".png", tuple(label for label in range(182) if label not in COCO_ABSENT)),
    ),
}
"""Each data set's forms, the preferred one first."""


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
    forms = LAYOUTS[config.layout]
    tests = {name: _on_disk(name, Path(test.path), forms, "test", limit) for name, test in config.tests.items()}
    return _on_disk("train", Path(config.train.path), forms, "train", limit), tests


def _world(config: ProbeWorldConfig, split: str, limit: int | None) -> MaskSet:
    number = config.num_train if split == "train" else config.num_test
    number = min(number, limit or number)

    def read(index: int) -> tuple[Image.Image, Mask]:
        """Paint one scene and its mask (H, W)."""
        canvas, mask = paint_masked(draw_masked(split, index, config.seed))
        return Image.fromarray(canvas), mask

    keys = tuple(f"{split}-{i:06d}" for i in range(number))
    return MaskSet("miniworld" if split == "test" else "train", keys, len(CLASSES), read)


def _on_disk(name: str, root: Path, forms: Sequence[Layout], split: str, limit: int | None) -> MaskSet:
    """Pair pictures with annotations; a picture without one is left out, counted and said."""
    root, folder = root.expanduser(), forms[0].splits[split]
    images, annotations = root / "images" / folder, root / "annotations" / folder
    for place in (images, annotations):
        if not place.is_dir():
            raise ConfigError(f"probe.data: {name} is not in {place}: no such folder")
    pictures = sorted(path for path in images.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    present = {path.name for path in annotations.iterdir()}
    for layout in forms:
        found = [path for path in pictures if f"{path.stem}{layout.suffix}" in present]
        if found:
            break
    else:
        suffixes = " or ".join(f"*{form.suffix}" for form in forms)
        raise ConfigError(f"probe.data: {name} holds no picture with an annotation {suffixes} in {annotations}")
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
        labels = np.array(Image.open(io.BytesIO(path.read_bytes()))).astype(np.int64)
    except Exception as error:  # Pillow raises anything for broken files
        raise SampleError(path.name, "corrupt_mask", f"{type(error).__name__}: {error}") from error
    if labels.ndim != 2:
        raise ConfigError(f"{path} has {labels.ndim} dimensions, not one class index a pixel")
    known = (labels >= 0) & (labels < len(layout.classes))
    classes = np.where(known, layout.classes[np.where(known, labels, 0)], -1)
    if (classes < 0).any():
        raise ConfigError(
            f"{path} holds label {int(labels[classes < 0].max())}, which is none of the {layout.num_classes} classes: "
            "probe.data.layout must fit the annotations"
        )
    return classes.astype(np.uint8)
