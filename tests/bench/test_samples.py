from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from internvl_lab.bench.samples import WORKLOADS, draw_samples, pack_samples
from internvl_lab.constants import IGNORE_INDEX

TINY = WORKLOADS["tiny"]


def test_samples_depend_on_the_seed_alone() -> None:
    first, again, other = (draw_samples(TINY, seed) for seed in (0, 0, 1))
    assert [s.input_ids.tolist() for s in first] == [s.input_ids.tolist() for s in again]
    assert all(np.array_equal(a.tiles, b.tiles) for a, b in zip(first, again, strict=True))
    assert [s.input_ids.tolist() for s in first] != [s.input_ids.tolist() for s in other]


@pytest.mark.parametrize("size", WORKLOADS)
def test_every_sample_is_one_that_training_could_see(size: str) -> None:
    workload = WORKLOADS[size]
    for sample in draw_samples(workload):
        ids, labels = sample.input_ids, sample.labels
        visual = int((ids == workload.image_token_id).sum())
        assert visual == len(sample.tiles) * workload.model.num_visual_tokens
        assert len(ids) <= workload.pack_tokens
        assert ids.max() < workload.model.language.vocab_size
        supervised = labels != IGNORE_INDEX
        assert supervised.any()
        assert not supervised[-1]
        assert np.array_equal(labels[supervised], ids[1:][supervised[:-1]])  # the target is the next token
        assert not (labels == workload.image_token_id).any()
        assert np.array_equal(sample.loss_weights > 0, supervised)


def test_small_workload_has_the_shape_of_the_reports_data() -> None:
    """The shares of research section E: 43 % visual, 25.6 % supervised tokens, 171 tokens a sample."""
    workload = WORKLOADS["small"]
    samples = draw_samples(replace(workload, num_samples=400))
    tokens = sum(len(s.input_ids) for s in samples)
    assert tokens / len(samples) == pytest.approx(171, rel=0.15)
    assert sum(len(s.tiles) for s in samples) * 16 / tokens == pytest.approx(0.43, abs=0.07)
    assert sum((s.labels != IGNORE_INDEX).sum() for s in samples) / tokens == pytest.approx(0.256, abs=0.04)


def test_packs_hold_every_sample_once_within_the_limit() -> None:
    samples = draw_samples(TINY)
    packs = pack_samples(samples, TINY.pack_tokens)
    assert len(packs) > 1
    assert sorted(s.key for pack in packs for s in pack) == sorted(s.key for s in samples)
    assert max(sum(len(s.input_ids) for s in pack) for pack in packs) <= TINY.pack_tokens
