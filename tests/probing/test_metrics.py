from types import SimpleNamespace

import numpy as np
import pytest
import torch

from internvl_lab.probing.metrics import accuracy, nearest_mean, nearest_neighbours


def pictures(labels, accepted=None):
    return SimpleNamespace(labels=np.array(labels).reshape(len(labels), -1), accepted=accepted)


def test_accuracy_leaves_out_what_has_no_label():
    value, n = accuracy(np.array([1, 2, 0]), np.array([0, 1, 2]), pictures([1, 0, -1]), 0)
    assert (value, n) == (0.5, 2)
    value, n = accuracy(np.array([1]), np.array([0]), pictures([-1]), 0)
    assert np.isnan(value)
    assert n == 0


def test_real_takes_any_accepted_class():
    given = pictures([0, 0, 0, 0], {0: (1, 2), 1: (3,), 3: (0,)})
    assert accuracy(np.array([2, 2, 0, 0]), np.arange(4), given, 0) == (pytest.approx(2 / 3), 3)


def test_neighbours_vote_by_similarity():
    train = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
    labels, test = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([[2.0, 0.1], [0.1, 3.0]])
    assert nearest_neighbours(train, labels, test, 3, 5).tolist() == [0, 1]
    assert nearest_neighbours(train, labels, test, 3, 99, among=(1, 2)).tolist() == [1, 1]
    by_hand = []
    for row in torch.nn.functional.normalize(test, dim=1):
        votes = [0.0, 0.0, 0.0]
        for other, label in zip(torch.nn.functional.normalize(train, dim=1), labels, strict=True):
            votes[label] += float(((row @ other) / 0.07).exp())
        by_hand.append(int(np.argmax(votes)))
    assert by_hand == [0, 1]


def test_class_means_never_choose_a_class_without_pictures():
    train, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 2])
    test = torch.tensor([[5.0, 1.0], [-1.0, 4.0], [-1.0, -1.1]])
    assert nearest_mean(train, labels, test, 4).tolist() == [0, 2, 0]
    assert nearest_mean(train, labels, test, 4, among=(2,)).tolist() == [2, 2, 2]
