"""Probe one encoder: encode the sets, train all heads of a seed at once, score them on every test set.

Encoder + ProbeData ─ Classifier.prepare ─> features (or pictures) ─ run(seed) ─> Score, Score, ...
                                                                  └ without_training() ─> Score, ...
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from internvl_lab.config import ProbeConfig, ProbeDataConfig
from internvl_lab.errors import ConfigError
from internvl_lab.probing.batches import FeatureBatches, PictureBatches, build_loader, plain_order, training_order
from internvl_lab.probing.encoder import Encoder
from internvl_lab.probing.features import FeaturePlan, Features, PictureViews, check_read, encode_set
from internvl_lab.probing.metrics import accuracy, nearest_mean, nearest_neighbours
from internvl_lab.probing.miniworld import world_pictures
from internvl_lab.probing.module import EMA, ProbeAxis, ProbeModule, build_heads
from internvl_lab.probing.pictures import ONE_TARGET, PictureSet, open_set
from internvl_lab.probing.score import Score

log = logging.getLogger(__name__)

Indices = NDArray[np.int64]
TrainerBuilder = Callable[..., L.Trainer]


@dataclass(frozen=True)
class ProbeData:
    """Hold the training set and the sets to score on."""

    train: PictureSet
    tests: Mapping[str, PictureSet]


def open_data(config: ProbeDataConfig, limit: int | None = None) -> ProbeData:
    """Open the sets that a configuration names.

    Args:
        config: what to read.
        limit: keep at most this many pictures of each set.
    Raises:
        ConfigError, ShardError: see `open_set`; or the number of classes is not the one asked for.
    """
    if config.miniworld is not None:
        train, test = (world_pictures(config.miniworld, split).first(limit) for split in ("train", "test"))
        return ProbeData(train, {"miniworld": test})
    assert config.train is not None
    train = open_set("train", config.train)
    classes = train.targets[ONE_TARGET]
    if config.num_classes not in (None, len(classes)):
        raise ConfigError(f"probe.data.num_classes={config.num_classes}, but {config.train.path} has {len(classes)}")
    tests = {name: open_set(name, test, classes).first(limit) for name, test in config.tests.items()}
    return ProbeData(train.first(limit), tests)


@dataclass
class Classifier:
    """Probe one encoder on given data.

    Args:
        encoder: frozen.
        data: what to learn from and to score on.
        config: heads, rates, schedule.
        cache_dir: where features are kept.
        build_trainer: gives a Lightning Trainer for fixed options.
        device: where to encode.
        num_workers: processes that read pictures.
        max_steps: shorten each training to so many steps; None = as configured.
        max_bad_share: share of pictures that may be unreadable.
    """

    encoder: Encoder
    data: ProbeData
    config: ProbeConfig
    cache_dir: Path
    build_trainer: TrainerBuilder
    device: torch.device
    num_workers: int = 0
    max_steps: int | None = None
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        """Encode the sets, or say how their pictures are read."""
        settings = self.config.classification
        self.depths = self.encoder.resolve_depths(settings.depths)
        self.size = self.config.image_size or self.encoder.config.image_size
        if self.size % self.encoder.config.patch_size:
            raise ConfigError(
                f"probe.image_size={self.size} is no multiple of {self.encoder.label}'s patches of "
                f"{self.encoder.config.patch_size} pixels"
            )
        targets = self.data.train.targets
        classes = tuple(len(names) for names in targets.values())
        self.axis = ProbeAxis(tuple(targets), classes, settings.learning_rates)
        self.train_features = self._encode(self.data.train, settings.augment) if settings.cache else None
        self.test_features = (
            {n: self._encode(test, False) for n, test in self.data.tests.items()} if settings.cache else {}
        )

    @property
    def views(self) -> int:
        """Count the cached views of a training picture."""
        return self.config.classification.views if self.config.classification.augment else 1

    def run(self, seed: int) -> list[Score]:
        """Train all heads from one seed and score them.

        Raises:
            ConfigError: fewer than two training pictures.
            ShardError: without stored features, too many pictures that cannot be read.
        """
        settings = self.config.classification
        trained, selection = self._split()
        batch_size = min(settings.batch_size, len(trained))
        if batch_size < 2:
            raise ConfigError(
                f"{self.data.train.name}: batch normalisation needs two labelled training pictures at least"
            )
        L.seed_everything(seed, verbose=False)
        heads = build_heads(self.encoder, settings.heads, self.depths, self.axis)
        order = training_order(trained, batch_size, settings.epochs, seed, self.max_steps)
        warmup = round(len(order) * settings.warmup_epochs / settings.epochs)
        module = ProbeModule(self.encoder, heads, self.axis, settings, batch_size, len(order), warmup)
        trainer = self.build_trainer(max_epochs=1)
        trainer.fit(module, build_loader(self._batches(None), order, self._loader_workers))
        check_read(module.num_read, sum(map(len, order)), self.data.train.name, self.max_bad_share)
        chosen = self._choose_rates(trainer, module, selection)
        return [score for name in self.data.tests for score in self._score(trainer, module, name, chosen, seed)]

    def without_training(self) -> list[Score]:
        """Score nearest neighbours and nearest class means on the stored pooled features; none are stored uncached."""
        if self.train_features is None:
            return []
        rows = np.flatnonzero(self._usable())
        names = [f"linear@{depth}" for depth in self.depths]  # tokens need not fit into memory
        train = self.train_features.fetch(rows, names)
        scores = []
        for test_name, test in self.data.tests.items():
            seen = np.flatnonzero(self.test_features[test_name].valid)
            found = self.test_features[test_name].fetch(seen, names)
            for depth in self.depths:
                for target, name in enumerate(self.axis.targets):
                    features = train[f"linear@{depth}"], found[f"linear@{depth}"]
                    for head, answers in self._compare(*features, rows, target, test.among):
                        value, n = accuracy(answers.numpy(), seen, test, target)
                        scores.append(Score(self.encoder.label, 0, head, depth, name, test_name, n, value))
        return scores

    def _compare(
        self, train: Tensor, found: Tensor, rows: Indices, target: int, among: tuple[int, ...] | None
    ) -> Sequence[tuple[str, Tensor]]:
        """Answer by comparison with the training pictures that have a label for a target."""
        labels = torch.from_numpy(self.data.train.labels[rows, target])
        known, classes = labels >= 0, self.axis.num_classes[target]
        train, labels = train[known], labels[known]
        neighbours = self.config.classification.neighbours
        return (
            ("knn", nearest_neighbours(train, labels, found, classes, neighbours, among)),
            ("class_mean", nearest_mean(train, labels, found, classes, among)),
        )

    def _encode(self, pictures: PictureSet, augmented: bool) -> Features:
        settings = self.config.classification
        plan = FeaturePlan(
            tuple(dict.fromkeys(("linear", *settings.heads))),  # pooled features serve the comparisons as well
            self.depths,
            self.size,
            seed=0,
            augmented=augmented,
            views=self.views if augmented else 1,
        )
        return encode_set(
            self.encoder,
            pictures,
            plan,
            self.cache_dir,
            device=self.device,
            batch_size=self.config.encode_batch_size,
            num_workers=self.num_workers,
            max_bad_share=self.max_bad_share,
        )

    @property
    def _loader_workers(self) -> int:
        return 0 if self.config.classification.cache else self.num_workers

    def _batches(self, test: str | None) -> Dataset[dict[str, Any]]:
        """Give batches of the training set or of a test set, stored or read."""
        pictures = self.data.train if test is None else self.data.tests[test]
        augmented = test is None and self.config.classification.augment
        if self.train_features is not None:
            features = self.train_features if test is None else self.test_features[test]
            return FeatureBatches(features, pictures, self.views if augmented else 1)
        return PictureBatches(PictureViews(pictures, self.size, 0 if augmented else None), None)

    def _usable(self) -> NDArray[np.bool_]:
        """Say which training pictures (N,) have a label, and could be read in every stored view."""
        usable = (self.data.train.labels >= 0).any(axis=1)
        if self.train_features is not None:
            usable &= self.train_features.valid.reshape(self.views, -1).all(axis=0)
        return np.asarray(usable)

    def _split(self) -> tuple[Indices, Indices]:
        """Split usable training pictures into those to train on and those that choose the rate, by their keys alone."""
        usable = np.flatnonzero(self._usable())
        if len(self.axis.learning_rates) == 1:
            return usable, usable[:0]
        share = self.config.classification.selection_share
        chosen = np.array([_fraction(self.data.train.keys[i]) < share for i in usable], bool)
        if not chosen.any():
            chosen[: max(1, int(share * len(usable)))] = True
        return usable[~chosen], usable[chosen]

    def _predict(self, trainer: L.Trainer, module: ProbeModule, test: str | None, rows: Indices) -> dict[str, Indices]:
        """Predict with every head: name to (N, J), and `rows` (N,)."""
        order = plain_order(rows, self.config.classification.batch_size)
        found = trainer.predict(module, build_loader(self._batches(test), order, self._loader_workers))
        blocks: list[dict[str, Tensor]] = [block for block in found or [] if len(block["rows"])]  # type: ignore[call-overload, misc]
        pictures = self.data.train if test is None else self.data.tests[test]
        check_read(sum(len(block["rows"]) for block in blocks), len(rows), pictures.name, self.max_bad_share)
        return {name: torch.cat([block[name] for block in blocks]).numpy() for name in blocks[0]}

    def _choose_rates(self, trainer: L.Trainer, module: ProbeModule, selection: Indices) -> dict[tuple[str, int], int]:
        """Choose the best rate of every head and target on pictures that were not trained on."""
        names = [(name, target) for name in module.heads for target in range(len(self.axis.targets))]
        if not len(selection):
            return dict.fromkeys(names, 0)
        found = self._predict(trainer, module, None, selection)
        return {
            (name, target): int(
                np.argmax([self._accuracy(found, name, target, rate, self.data.train)[0] for rate in self._rates])
            )
            for name, target in names
        }

    @property
    def _rates(self) -> range:
        return range(len(self.axis.learning_rates))

    def _accuracy(
        self, found: Mapping[str, Indices], name: str, target: int, rate: int, pictures: PictureSet
    ) -> tuple[float, int]:
        return accuracy(found[name][:, self.axis.place(target, rate)], found["rows"], pictures, target)

    def _score(
        self, trainer: L.Trainer, module: ProbeModule, test: str, chosen: Mapping[tuple[str, int], int], seed: int
    ) -> list[Score]:
        """Score every head on one test set, at its chosen rate."""
        pictures = self.data.tests[test]
        rows = np.arange(len(pictures)) if not self.test_features else np.flatnonzero(self.test_features[test].valid)
        module.among = pictures.among
        found = self._predict(trainer, module, test, rows)
        module.among = None
        scores = []
        for (name, target), rate in chosen.items():
            value, n = self._accuracy(found, name, target, rate, pictures)
            average = self._accuracy(found, EMA + name, target, rate, pictures)[0] if module.ema is not None else None
            head, _, depth = name.partition("@")
            where = (self.encoder.label, seed, head, int(depth), self.axis.targets[target], test, n)
            scores.append(Score(*where, value, average, self.axis.learning_rates[rate]))
        return scores


def _fraction(key: str) -> float:
    """Map a key to [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little") / 2**32
