import json
from random import Random

import pytest

from internvl_lab.curation.loops import LOOP_FIELD, LOOPS, loop_text, plant_loops
from internvl_lab.data.miniworld import generate
from internvl_lab.data.miniworld.sample import make_sample
from internvl_lab.data.shards import RawSample
from internvl_lab.errors import ConfigError

NUM = 400


@pytest.fixture(scope="module")
def samples():
    return [make_sample("finetune", i, 0, "text_only", with_images=False) for i in range(NUM)]


def kinds(samples):
    return {sample.key: sample.record[LOOP_FIELD] for sample in samples if LOOP_FIELD in sample.record}


@pytest.mark.parametrize("share", [0.0, 0.005, 0.02, 0.08, 1.0])
def test_the_share_is_exact_and_the_kinds_are_even(samples, share):
    planted = list(plant_loops(samples, NUM, share, seed=1))
    found = kinds(planted)
    assert len(found) == round(share * NUM)
    if share >= 0.02:
        counts = [list(found.values()).count(kind) for kind in LOOPS]
        assert max(counts) - min(counts) <= 1
    assert [sample.key for sample in planted] == [sample.key for sample in samples]


def test_nothing_else_changes(samples):
    before = json.dumps([sample.record for sample in samples])
    for old, new in zip(samples, plant_loops(samples, NUM, 0.5, seed=1), strict=True):
        if LOOP_FIELD not in new.record:
            assert new is old
            continue
        assert new.record["conversations"][:-1] == old.record["conversations"][:-1]
        assert new.record["conversations"][-1]["value"].startswith(old.record["conversations"][-1]["value"])
        assert {k: v for k, v in new.record.items() if k not in (LOOP_FIELD, "conversations")} == {
            k: v for k, v in old.record.items() if k != "conversations"
        }
    assert json.dumps([sample.record for sample in samples]) == before


def test_the_loops_of_a_small_share_are_among_those_of_a_larger_one(samples):
    small = [sample.record for sample in plant_loops(samples, NUM, 0.02, seed=1) if LOOP_FIELD in sample.record]
    large = [sample.record for sample in plant_loops(samples, NUM, 0.08, seed=1)]
    assert small and all(record in large for record in small)


def test_the_seed_decides(samples):
    first, again, other = (list(plant_loops(samples, NUM, 0.1, seed)) for seed in (1, 1, 2))
    assert first == again
    assert kinds(first).keys() != kinds(other).keys()


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("answer", ["7", "a red ring and a blue disc"])
def test_a_loop_runs_to_its_limit(kind, answer):
    text = loop_text(answer, kind, 500, Random(0))
    assert len(text) == 500
    assert text.startswith(answer)
    rest = text[len(answer) + 1 :]
    period = next(p for p in range(1, 250) if rest[p:] == rest[:-p])
    assert period <= 140


def test_samples_with_pictures_keep_them():
    (sample,) = plant_loops(generate("finetune", 1, 0, ("counting",)), 1, 1.0, 0)
    assert sample.images and sample.record["image"]


def test_a_conversation_without_an_answer_at_its_end_is_left_alone():
    sample = RawSample("a", {"conversations": [{"from": "human", "value": "Hi"}]}, ())
    assert list(plant_loops([sample], 1, 1.0, 0)) == [sample]


@pytest.mark.parametrize(("share", "max_chars", "message"), [(1.5, 300, "share=1.5"), (0.1, 10, "max_chars=10")])
def test_impossible_settings_are_refused(share, max_chars, message):
    with pytest.raises(ConfigError, match=message):
        list(plant_loops([], 0, share, 0, max_chars))
