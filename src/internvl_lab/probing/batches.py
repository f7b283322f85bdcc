"""Batches of labelled features or pictures in an order that only the seed decides.

order(N, epochs, seed) ─> [(picture, epoch), ...] a step ─> FeatureBatches (stored)  ─> {"features", "labels", "rows"}
                                                        └─> PictureBatches (decoded) ─> {"pixel_values", ...}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from internvl_lab.probing.features import Features, PictureViews, worker_options
from internvl_lab.probing.pictures import PictureSet

Items = list[tuple[int, int]]
"""(picture, epoch) of every row of a batch."""


def training_order(
    indices: NDArray[np.int64], batch_size: int, epochs: int, seed: int, max_steps: int | None
) -> list[Items]:
    """Shuffle pictures anew in each epoch and cut them into batches; what does not fill one is left out.

    Args:
        indices: (N,) pictures to train on.
        batch_size: at most N.
        epochs, seed: how often, in which order.
        max_steps: stop after so many batches; None = all.
    """
    steps: list[Items] = []
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(indices)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            steps.append([(int(i), epoch) for i in order[start : start + batch_size]])
    return steps[:max_steps]


def plain_order(indices: NDArray[np.int64], batch_size: int) -> list[Items]:
    """Cut pictures (N,) into batches in their order, the last one smaller."""
    return [[(int(i), 0) for i in indices[k : k + batch_size]] for k in range(0, len(indices), batch_size)]


class FeatureBatches(Dataset[dict[str, Any]]):
    """Read stored features: an item is a whole batch.

    Args:
        features: V x N rows.
        pictures: gives the labels.
        views: V.
    """

    def __init__(self, features: Features, pictures: PictureSet, views: int) -> None:
        self.features, self.pictures, self.views = features, pictures, views

    def __getitem__(self, items: Items) -> dict[str, Any]:
        """Return features, labels (B, G) and rows (B,) of pictures, in view epoch modulo V."""
        index, epoch = np.array(items, np.int64).T
        return {
            "features": self.features.fetch(epoch % self.views * len(self.pictures) + index),
            "labels": torch.from_numpy(self.pictures.labels[index]),
            "rows": torch.from_numpy(index),
        }


class PictureBatches(Dataset[dict[str, Any]]):
    """Read pictures: an item is a whole batch, without those that cannot be read.

    Args:
        views: cuts and augments them.
        num_views: distinct views of a picture; None = a new one in every epoch.
    """

    def __init__(self, views: PictureViews, num_views: int | None) -> None:
        self.views, self.num_views = views, num_views

    def __getitem__(self, items: Items) -> dict[str, Any]:
        """Return uint8 pictures (B, 3, S, S), labels (B, G) and rows (B,); B = 0 where none can be read."""
        read = [self.views[index, epoch % self.num_views if self.num_views else epoch] for index, epoch in items]
        kept = [k for k, (_, valid) in enumerate(read) if valid]
        index = np.array([items[k][0] for k in kept], np.int64)
        return {
            "pixel_values": torch.stack([picture for picture, _ in read])[kept],
            "labels": torch.from_numpy(self.views.pictures.labels[index]),
            "rows": torch.from_numpy(index),
        }


def build_loader(
    batches: Dataset[dict[str, Any]], order: Sequence[Items], num_workers: int = 0
) -> DataLoader[dict[str, Any]]:
    """Load batches in the given order."""
    sampler = cast("Any", order)  # a list of keys is a sampler: it can be iterated and has a length
    return DataLoader(batches, batch_size=None, sampler=sampler, **worker_options(num_workers))
