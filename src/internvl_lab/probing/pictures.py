"""Labelled pictures, whatever they lie in, as one thing: keys, labels, and a way to read picture i.

    root/CLASS/*.jpg                     folder layout; ImageNet, -A, -R, -Sketch; V2 with numbers as class names
    root/*.tar with KEY.jpg KEY.cls      WebDataset layout; root/train-*.tar where both splits lie in one folder
    root/*.jpg and a file of labels      flat layout

Class names decide the index in the folder layout, never their order in a set: a set with 200 of 1,000 classes (A, R)
gets the indices of the 1,000.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.config import ProbeSetConfig
from internvl_lab.data.tar_walk import Member, walk_tar
from internvl_lab.data.transforms import decode_image
from internvl_lab.errors import ConfigError, ShardError

log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
NO_LABEL = -1
ONE_TARGET = "class"
"""Name of the target of a set that has only one."""

Labels = NDArray[np.int64]
Stamp = tuple[int, int]
"""(bytes, time of the last change in ns) of a file."""


@dataclass(frozen=True)
class PictureSet:
    """Hold N pictures with a label for each of G targets."""

    name: str
    keys: tuple[str, ...]
    labels: Labels
    """(N, G) class indices, -1 = no label."""
    targets: Mapping[str, tuple[str, ...]]
    """Name of each target to its class names, in the order of the indices."""
    read: Callable[[int], Image.Image] = field(repr=False)
    """Read picture i as RGB; raises SampleError."""
    fingerprint: str
    """Hash of what decides the pictures."""
    accepted: Mapping[int, tuple[int, ...]] | None = None
    """Picture to all classes that count as right (ReaL); pictures without any are not scored."""
    among: tuple[int, ...] | None = None
    """Answer only among these classes (A, R)."""

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.keys)

    def first(self, number: int | None) -> PictureSet:
        """Keep at most `number` pictures, spread evenly; None keeps all."""
        if number is None or number >= len(self):
            return self
        kept = np.linspace(0, len(self) - 1, number).astype(int).tolist()
        accepted = self.accepted
        if accepted is not None:
            accepted = {new: accepted[old] for new, old in enumerate(kept) if old in accepted}
        return replace(
            self,
            keys=tuple(self.keys[i] for i in kept),
            labels=self.labels[kept],
            read=lambda i: self.read(kept[i]),
            accepted=accepted,
            fingerprint=f"{self.fingerprint}-{number}",
        )


def hash_of(*parts: object) -> str:
    """Hash parts to 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()


def open_set(name: str, config: ProbeSetConfig, classes: Sequence[str] | None = None) -> PictureSet:
    """Open one set of pictures.

    Args:
        name: for messages and tables.
        config: where it lies, and how it is scored.
        classes: class names of the training set; None = this is the training set, which defines them.
    Raises:
        ConfigError: no such folder, no pictures, no labels, or labels outside the classes.
        ShardError: a damaged tar.
    """
    root, pattern = Path(config.path).expanduser(), "*.tar"
    if "*" in root.name:
        root, pattern = root.parent, root.name
    if not root.is_dir():
        raise ConfigError(f"probe.data: {name} is not in {root}: no such folder")
    tars = sorted(root.glob(pattern))
    if tars or root != Path(config.path).expanduser():
        found = _open_tars(name, tars, classes)
    elif config.labels is not None:
        found = _open_flat(name, root, Path(config.labels).expanduser(), classes)
    else:
        found = _open_folders(name, root, classes)
    if not len(found):
        raise ConfigError(f"probe.data: {name} in {root} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    _report_classes(found)
    if config.real is not None:
        found = replace(found, accepted=_read_real(found, Path(config.real).expanduser()))
    if not (found.accepted if config.real is not None else (found.labels >= 0).any()):
        raise ConfigError(
            f"probe.data: {name}: none of the {len(found)} pictures in {root} has a label: they need class folders, "
            "KEY.cls beside KEY.jpg, or `labels`"
        )
    if config.restrict:
        found = replace(found, among=tuple(np.unique(found.labels[found.labels >= 0]).tolist()))
    return found


def _build(
    name: str,
    keys: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    read: Callable[[int], bytes],
    stamps: Sequence[Stamp],
) -> PictureSet:
    """Put one target's pictures together; `stamps` of the files tell them from others of the same names."""
    return PictureSet(
        name,
        tuple(keys),
        np.array(labels, np.int64).reshape(-1, 1),
        {ONE_TARGET: tuple(classes)},
        lambda i: decode_image(read(i), keys[i]),
        hash_of(name, *keys, *stamps),
    )


def _stamp(entry: os.DirEntry[str] | Path) -> Stamp:
    found = entry.stat()
    return found.st_size, found.st_mtime_ns


def _pictures_in(folder: Path) -> list[os.DirEntry[str]]:
    entries = [entry for entry in os.scandir(folder) if entry.name.lower().endswith(PICTURE_SUFFIXES)]
    return sorted(entries, key=lambda entry: entry.name)


def _open_folders(name: str, root: Path, classes: Sequence[str] | None) -> PictureSet:
    """Read root/CLASS/*.jpg; numbers as class names are indices (V2), and sort as numbers."""
    visible = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    folders = sorted(visible, key=lambda path: path.name)
    if classes is None:
        classes = [folder.name for folder in folders]
    index = {class_name: i for i, class_name in enumerate(classes)}
    numbered = bool(folders) and all(f.name.isdigit() for f in folders) and not any(f.name in index for f in folders)
    keys: list[str] = []
    labels: list[int] = []
    stamps: list[Stamp] = []
    for folder in folders:
        label = int(folder.name) if numbered else index.get(folder.name, NO_LABEL)
        if not 0 <= label < len(classes):
            raise ConfigError(
                f"probe.data: {name} has class {folder.name!r}, which is not among the {len(classes)} training classes"
            )
        pictures = _pictures_in(folder)
        keys += [f"{folder.name}/{picture.name}" for picture in pictures]
        labels += [label] * len(pictures)
        stamps += map(_stamp, pictures)
    return _build(name, keys, labels, classes, lambda i: (root / keys[i]).read_bytes(), stamps)


def _open_flat(name: str, root: Path, file: Path, classes: Sequence[str] | None) -> PictureSet:
    """Read root/*.jpg with labels from a file of lines `NAME INDEX`; a picture without a line has no label."""
    if not file.is_file():
        raise ConfigError(f"probe.data: {name}: no file of labels {file}")
    text = file.read_bytes().decode(errors="replace")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if bad := [line for line in lines if len(line) != 2 or not line[1].isdigit()]:
        raise ConfigError(f"probe.data: {name}: {file} has the line {' '.join(bad[0])!r}, not NAME CLASS_INDEX")
    known = {Path(line[0]).name: int(line[1]) for line in lines}
    pictures = _pictures_in(root)
    keys = [entry.name for entry in pictures]
    labels = [known.get(key, NO_LABEL) for key in keys]
    classes = _indexed(name, labels, classes)
    return _build(name, keys, labels, classes, lambda i: (root / keys[i]).read_bytes(), list(map(_stamp, pictures)))


def _open_tars(name: str, tars: Sequence[Path], classes: Sequence[str] | None) -> PictureSet:
    """Read tars with KEY.jpg and KEY.cls (the index as text); pictures are read in place."""
    keys: list[str] = []
    places: list[tuple[Path, Member]] = []
    labels: list[int] = []
    for tar in tars:
        members: dict[str, dict[str, Member]] = {}
        for member in walk_tar(tar):
            stem, _, suffix = Path(member.name).name.partition(".")
            members.setdefault(str(Path(member.name).parent / stem), {})[f".{suffix.lower()}"] = member
        for key, parts in members.items():
            picture = next((parts[suffix] for suffix in PICTURE_SUFFIXES if suffix in parts), None)
            if picture is not None:
                keys.append(f"{tar.name}/{key}")
                places.append((tar, picture))
                labels.append(_read_class(tar, parts.get(".cls"), key))
    classes = _indexed(name, labels, classes)
    return _build(name, keys, labels, classes, lambda i: _read_at(*places[i]), list(map(_stamp, tars)))


def _read_at(tar: Path, member: Member) -> bytes:
    with tar.open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def _read_class(tar: Path, member: Member | None, key: str) -> int:
    """Read the text of KEY.cls; a missing one is no label."""
    if member is None:
        return NO_LABEL
    text = _read_at(tar, member).strip()
    if not text.isdigit():
        raise ShardError(f"{tar}: {key}.cls holds {text[:20]!r}, not a class index")
    return int(text)


def _indexed(name: str, labels: Sequence[int], classes: Sequence[str] | None) -> Sequence[str]:
    """Check indices against the classes, or name classes after the indices there are."""
    highest = max(labels, default=NO_LABEL)
    if classes is None:
        return [str(i) for i in range(highest + 1)]
    if highest >= len(classes):
        raise ConfigError(f"probe.data: {name} has class {highest}, but there are only {len(classes)} training classes")
    return classes


def _read_real(pictures: PictureSet, file: Path) -> dict[int, tuple[int, ...]]:
    """Read ReaL's list of accepted classes, one entry a validation picture, by the number that ends its name.

    Source: the file format of `real.json`: entry i belongs to ILSVRC2012_val_{i + 1:08d}; empty = not scored.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(entries, list) or not all(isinstance(entry, list) for entry in entries):
            raise ValueError("not a list of lists")
    except (OSError, ValueError) as error:
        raise ConfigError(f"probe.data: {pictures.name}: {file} is no readable real.json: {error}") from error
    accepted: dict[int, tuple[int, ...]] = {}
    for i, key in enumerate(pictures.keys):
        number = Path(key).stem.rsplit("_", 1)[-1]
        if not number.isdigit() or not 1 <= int(number) <= len(entries):
            raise ConfigError(
                f"probe.data: {pictures.name}: {key} has no entry in {file} ({len(entries)} entries, by the number "
                "that ends a name)"
            )
        if entries[int(number) - 1]:
            accepted[i] = tuple(entries[int(number) - 1])
    return accepted


def _report_classes(pictures: PictureSet) -> None:
    """Say what is odd about a set but no error: pictures without label, classes without pictures."""
    if missing := int((pictures.labels < 0).sum()):
        log.warning("%s: %d of %d pictures have no label and are left out", pictures.name, missing, len(pictures))
    num_classes, found = len(pictures.targets[ONE_TARGET]), np.unique(pictures.labels[pictures.labels >= 0])
    if len(found) < num_classes:
        log.warning("%s: %d of %d classes have no picture", pictures.name, num_classes - len(found), num_classes)
