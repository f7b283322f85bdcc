"""Scores that need no training: nearest neighbours and nearest class mean; and accuracy as the benchmarks count it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from internvl_lab.probing.pictures import PictureSet

TEMPERATURE = 0.07
"""Of the neighbours' votes. Source: DINO (arXiv 2104.14294), section 3.1 of its evaluation."""
BLOCK = 256
"""Pictures compared at a time."""


def accuracy(
    predicted: NDArray[np.int64], rows: NDArray[np.int64], pictures: PictureSet, target: int
) -> tuple[float, int]:
    """Return (share of right answers, pictures scored).

    Args:
        predicted: (N,) classes.
        rows: (N,) pictures they belong to.
        pictures: gives the labels; with `accepted` any of a picture's classes is right (ReaL).
        target: which label.
    """
    if pictures.accepted is not None:
        pairs = [
            (int(p), pictures.accepted[int(r)])
            for p, r in zip(predicted, rows, strict=True)
            if int(r) in pictures.accepted
        ]
        return (float(np.mean([p in right for p, right in pairs])) if pairs else float("nan")), len(pairs)
    labels = pictures.labels[rows, target]
    scored = labels >= 0
    return (float((predicted == labels)[scored].mean()) if scored.any() else float("nan")), int(scored.sum())


def nearest_neighbours(
    train: Tensor, labels: Tensor, test: Tensor, num_classes: int, neighbours: int, among: tuple[int, ...] | None = None
) -> Tensor:
    """Let the k nearest training pictures vote, weighted by exp(cosine / 0.07).

    Args:
        train: (N, D) features; labels: (N,) their classes, all >= 0.
        test: (M, D).
        num_classes, neighbours: K and k (at most N are asked).
        among: classes that count; None = all.
    Returns:
        (M,) classes.
    """
    train, test = F.normalize(train.float(), dim=-1), F.normalize(test.float(), dim=-1)
    answers = []
    for block in test.split(BLOCK):
        similarity, index = (block @ train.T).topk(min(neighbours, len(train)), dim=-1)
        votes = torch.zeros(len(block), num_classes).scatter_add_(1, labels[index], (similarity / TEMPERATURE).exp())
        answers.append(_best(votes, among))
    return torch.cat(answers)


def nearest_mean(
    train: Tensor, labels: Tensor, test: Tensor, num_classes: int, among: tuple[int, ...] | None = None
) -> Tensor:
    """Choose the class whose mean feature points in the most similar direction.

    Args:
        train: (N, D) features; labels: (N,) their classes, all >= 0; a class without pictures is never chosen.
        test: (M, D).
        num_classes: K.
        among: classes that count; None = all.
    Returns:
        (M,) classes.
    """
    train, test = F.normalize(train.float(), dim=-1), F.normalize(test.float(), dim=-1)
    means = F.normalize(torch.zeros(num_classes, train.shape[1]).index_add_(0, labels, train), dim=-1)
    scores = (test @ means.T).masked_fill(torch.bincount(labels, minlength=num_classes) == 0, -torch.inf)
    return _best(scores, among)


def _best(scores: Tensor, among: tuple[int, ...] | None) -> Tensor:
    if among is None:
        return scores.argmax(-1)
    chosen = torch.tensor(among)
    return chosen[scores[:, chosen].argmax(-1)]
