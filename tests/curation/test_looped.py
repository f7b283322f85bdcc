import os
from dataclasses import replace

import pytest

from internvl_lab.config import MiniworldConfig
from internvl_lab.curation.looped import _read, ensure_looped
from internvl_lab.curation.loops import LOOP_FIELD
from internvl_lab.data.miniworld import ensure_shards
from internvl_lab.errors import ConfigError

CFG = MiniworldConfig(num_pretrain=0, num_finetune=120, num_val=0, samples_per_shard=50, tasks=("attribute", "ocr"))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return ensure_shards(CFG, tmp_path_factory.mktemp("miniworld"), num_processes=1)["finetune"]


def loops(folder):
    return {sample.key for sample in _read(folder) if LOOP_FIELD in sample.record}


def test_without_loops_and_filter_it_is_the_split_itself(split):
    before = sorted(os.listdir(split.parent))
    assert ensure_looped(split, CFG) == split
    assert sorted(os.listdir(split.parent)) == before


def test_the_share_is_planted_and_nothing_else_changes(split):
    few = ensure_looped(split, replace(CFG, loop_share=0.05))
    many = ensure_looped(split, replace(CFG, loop_share=0.2))
    assert len(loops(few)) == 6 and len(loops(many)) == 24
    assert loops(few) < loops(many)
    sound = {sample.key: sample for sample in _read(split)}
    planted = list(_read(many))
    assert [sample.key for sample in planted] == list(sound)
    assert all(sample.images == sound[sample.key].images for sample in planted)
    assert all(sample == sound[sample.key] for sample in planted if LOOP_FIELD not in sample.record)


def test_the_filter_keeps_what_is_sound_and_drops_most_loops(split):
    kept = ensure_looped(split, replace(CFG, loop_share=0.2, filtered=True))
    keys = {sample.key for sample in _read(kept)}
    sound = {sample.key for sample in _read(split)} - loops(split.with_name("finetune-loops-0.2"))
    assert sound <= keys
    assert len(loops(kept)) <= 4
    assert (kept.parents[1] / "report.html").is_file()


def test_what_is_complete_is_not_made_again_and_what_is_not_is(split):
    cfg = replace(CFG, loop_share=0.1, filtered=True)
    shard = min(ensure_looped(split, cfg).glob("*.tar"))
    data, made = shard.read_bytes(), shard.stat().st_mtime_ns
    assert ensure_looped(split, cfg) == shard.parent
    assert shard.stat().st_mtime_ns == made
    shard.write_bytes(b"cut")
    ensure_looped(split, cfg)
    assert shard.read_bytes() == data


def test_an_impossible_share_is_refused():
    with pytest.raises(ConfigError, match="loop_share"):
        replace(CFG, loop_share=1.5)
