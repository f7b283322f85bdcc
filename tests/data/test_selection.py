"""What becomes of long samples under each policy: counted, exact, and nothing lost in silence."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from internvl_lab.config import PackingConfig, SourceConfig
from internvl_lab.data.index import ShardIndex, build_index
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Plan
from internvl_lab.data.selection import select
from internvl_lab.text import ChatTemplate

LIMITS = PackingConfig(max_tokens=160, max_tiles=8, block_size=16, group_window=1)
KEYS = ("short", "chat", "essay", "gallery", "novel", "film", "scan")


def rounds(count: int, *, image_every: int, words: int = 8) -> list[dict[str, str]]:
    """Write a conversation of some rounds."""
    turns = []
    for number in range(count):
        image = "<image>\n" if image_every and number % image_every == 0 else ""
        turns.append({"from": "human", "value": f"{image}what is it?"})
        turns.append({"from": "gpt", "value": "a red square " * words})
    return turns


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, template: ChatTemplate, kit: SimpleNamespace) -> ShardIndex:
    folder = tmp_path_factory.mktemp("long")
    conversations = {
        "short": (rounds(1, image_every=1), 1),
        "chat": (rounds(9, image_every=0), 0),  # text alone, splits anywhere
        "essay": (rounds(1, image_every=1, words=150), 1),  # one answer too long
        "gallery": (rounds(6, image_every=2), 3),  # each image has two rounds
        "novel": ([*rounds(2, image_every=1)[:2], *rounds(1, image_every=0, words=150), *rounds(2, image_every=0)], 1),
        "film": (rounds(1, image_every=0, words=150), 12),
        "scan": ([{"from": "human", "value": "<image>" * 9}, {"from": "gpt", "value": "x"}], 9),  # too many tiles
    }
    members = []
    for key in KEYS:
        turns, images = conversations[key]
        members += [(f"{key}.{n}.png", kit.picture(28, 28, n)) for n in range(images)]
        video = {"video": "film.mp4"} if key == "film" else {}
        members.append((f"{key}.json", json.dumps({"conversations": turns, **video}).encode()))
    kit.write_tar(folder / "s.tar", members)
    return build_index(folder, template)


def mix(index: ShardIndex, kit: SimpleNamespace, policy: str) -> Mixture:
    return Mixture({"a": (SourceConfig(min_frames=2), index)}, kit.tiling, LIMITS, policy)


def keys(mixture: Mixture) -> list[str]:
    return [mixture.key_of(0, int(sample)) for sample in mixture.sample]


def skipped(mixture: Mixture) -> dict[str, str]:
    assert all(shard == "s.tar" and detail for _, shard, _, _, detail in mixture.skipped_samples)
    return {key: reason for _, _, key, reason, _ in mixture.skipped_samples}


LONG = {"chat": "over_max_tokens", "essay": "over_max_tokens", "gallery": "over_max_tokens", "novel": "over_max_tokens"}
LONG |= {"film": "over_max_tokens", "scan": "over_max_tiles"}


def test_skip(index: ShardIndex, kit: SimpleNamespace) -> None:
    mixture = mix(index, kit, "skip")
    assert keys(mixture) == ["short"] and skipped(mixture) == LONG and not mixture.fitted
    assert mixture.skipped == {"over_max_tokens": 5, "over_max_tiles": 1}


def test_truncate_text(index: ShardIndex, kit: SimpleNamespace) -> None:
    mixture = mix(index, kit, "truncate_text")
    assert keys(mixture) == ["short", "essay"] and mixture.fitted == {"truncated": 1}
    assert skipped(mixture) == {key: reason for key, reason in LONG.items() if key != "essay"}
    assert mixture.tokens[1] == 160


def test_split(index: ShardIndex, kit: SimpleNamespace) -> None:
    mixture = mix(index, kit, "split")
    found = keys(mixture)
    assert found[0] == "short" and {key.split("#")[0] for key in found} == {"short", "chat", "gallery", "novel"}
    assert mixture.fitted == {"split": 3, "parts": len(found) - 1} and len(found) > 6
    assert skipped(mixture) == {
        "novel#1": "over_max_tokens", "essay": "over_max_tokens", "film": "over_max_tokens", "scan": "over_max_tiles",
    }  # fmt: skip


@pytest.mark.parametrize("policy", ["skip", "truncate_text", "split"])
def test_the_encoder_makes_what_was_planned(index: ShardIndex, kit: SimpleNamespace, policy: str) -> None:
    mixture = mix(index, kit, policy)
    dataset = PackDataset(Plan(mixture, LIMITS, 0, kit.cost, 1), kit.encoder, 0)
    seen: list[str] = []
    for number in range(dataset.plan.packs_in_epoch(0)):
        batch = dataset[number]
        assert batch.bad_samples == [] and batch.num_tokens <= 160 and batch.num_tiles <= 8
        ends = (batch.input_ids == kit.encoder.template.image_start_id).sum()
        record = [mixture.read(*sample, seed=0, epoch=0)[0] for sample in dataset.plan.pack(number).samples]
        assert int(ends) == sum(len(r.images) for r in record)
        seen += batch.sample_keys
    assert sorted(seen) == sorted(keys(mixture))


def test_policy_is_part_of_the_settings(index: ShardIndex, kit: SimpleNamespace) -> None:
    assert len({mix(index, kit, policy).settings_fingerprint for policy in ("skip", "truncate_text", "split")}) == 3


def test_shards_of_parts_and_order(index: ShardIndex, kit: SimpleNamespace) -> None:
    mixture = mix(index, kit, "split")
    assert {mixture.shard_of(0, int(sample)) for sample in mixture.sample} == {str(index.shards[0])}
    assert sorted(mixture.epoch_samples(0, 0).tolist()) == list(range(len(mixture)))


def test_select_keeps_the_index_s_problems(index: ShardIndex, kit: SimpleNamespace) -> None:
    index.problems.append(("s.tar", "gone", "bad_json", "x"))
    try:
        selection = select(SourceConfig(), index, kit.tiling, PackingConfig(max_tokens=10**6), "skip")
        assert selection.problems == index.problems and len(selection.sample) == len(KEYS)
    finally:
        index.problems.clear()
