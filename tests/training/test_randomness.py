"""Random numbers that depend on a pack's place alone."""

from __future__ import annotations

import torch

from internvl_lab.training.randomness import pack_number, pack_seed, reseed


def test_seed_is_stable_across_versions() -> None:
    assert pack_seed(42, "stage2", 7) == 3992309785964899730


def test_seed_depends_on_everything() -> None:
    seeds = {pack_seed(s, stage, pack) for s in (1, 2) for stage in ("a", "b") for pack in range(100)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_ranks_and_accumulation_cut_the_same_stream() -> None:
    for world_size, accumulation in ((1, 4), (2, 2), (4, 1)):
        numbers = [
            pack_number(step, micro, rank, accumulation, world_size)
            for step in range(3)
            for rank in range(world_size)
            for micro in range(accumulation)
        ]
        assert numbers == list(range(12))


def test_reseed_forgets_the_past() -> None:
    reseed(1, "stage2", 5)
    first = torch.rand(3)
    torch.rand(100)
    reseed(1, "stage2", 5)
    assert torch.equal(torch.rand(3), first)
    reseed(1, "stage2", 6)
    assert not torch.equal(torch.rand(3), first)
