"""One number of a probe, as rows of a table and of a file hold it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Hold the accuracy (or mIoU, as a share) of one head of one encoder and seed on one target of one test set."""

    encoder: str
    seed: int
    head: str
    """`linear`, `attention`, `knn` or `class_mean`; in segmentation `linear`, `upernet` or `full`."""
    depth: int
    target: str
    test: str
    n: int
    """Pictures scored."""
    accuracy: float
    ema_accuracy: float | None = None
    learning_rate: float | None = None
    """Chosen rate, for 512 pictures a step."""
    run: str = ""
    """Name of the run that trained the encoder, where several runs are compared as one."""
