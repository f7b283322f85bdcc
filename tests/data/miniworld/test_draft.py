from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from internvl_lab.data.miniworld.draft import NUM_BUCKETS, Draft, Question, bucket, fits_split


def _draft(*combinations: str, picture: bool = True) -> Draft:
    sizes = ((112, 112),) if picture else ()
    return Draft(questions=(Question("q", "a"),), combinations=combinations, sizes=sizes)


def _of_bucket(wanted: int, number: int = 1) -> list[str]:
    names = (f"combination {k}" for k in range(10_000))
    return [name for name in names if bucket("ocr", name) == wanted][:number]


def test_bucket_is_frozen() -> None:
    assert [bucket("ocr", text) for text in ("K7QX", "AAA", "")] == [7, 6, 6]
    assert bucket("chart", "red 5, blue 3") == 3


def test_buckets_are_even_and_differ_between_tasks() -> None:
    counts = Counter(bucket("ocr", str(k)) for k in range(4000))
    assert set(counts) == set(range(NUM_BUCKETS))
    assert max(counts.values()) - min(counts.values()) < 150
    assert any(bucket("ocr", str(k)) != bucket("chart", str(k)) for k in range(20))


@pytest.mark.parametrize("split", ["pretrain", "finetune"])
def test_training_never_holds_bucket_zero_even_beside_the_question(split: str) -> None:
    held_out, seen = _of_bucket(0)[0], _of_bucket(5)[0]
    assert fits_split("ocr", _draft(seen), split)
    assert not fits_split("ocr", _draft(held_out), split)
    assert not fits_split("ocr", _draft(seen, held_out), split)


def test_training_never_asks_what_another_task_holds_out() -> None:
    draft = replace(_draft(_of_bucket(5)[0]), also=(("ocr", _of_bucket(0)[0]),))
    assert not fits_split("ocr", draft, "finetune")
    assert fits_split("ocr", replace(draft, also=(("ocr", _of_bucket(3)[0]),)), "finetune")


def test_val_asks_about_bucket_zero_only() -> None:
    held_out, seen = _of_bucket(0)[0], _of_bucket(5)[0]
    assert fits_split("ocr", _draft(held_out, seen), "val")
    assert not fits_split("ocr", _draft(seen, held_out), "val")


def test_text_without_pictures_is_in_one_split_only() -> None:
    for number in range(NUM_BUCKETS):
        draft = _draft(_of_bucket(number)[0], picture=False)
        assert sum(fits_split("ocr", draft, split) for split in ("pretrain", "finetune", "val")) == 1
