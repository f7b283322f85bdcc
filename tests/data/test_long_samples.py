"""Long conversations: every length is exact, images stay whole and with the rounds that are about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.long_samples import (
    Part,
    Splitter,
    cut_text,
    measure_rounds,
    part_record,
    rounds_of,
)
from internvl_lab.data.records import Record
from internvl_lab.text import ChatTemplate, load_tokenizer
from internvl_lab.text.template import Turn

WORDS = st.lists(st.sampled_from(["a", "b", " ", "\n", "\n\n", ".", "red ", " red", "ü"]), max_size=8).map("".join)


def talk(*turns: str, system: str | None = None) -> Record:
    """Make a record of turns that alternate, the first by the human."""
    spoken = [Turn("human" if i % 2 == 0 else "gpt", text) for i, text in enumerate(turns)]
    spoken = ([Turn("system", system)] if system is not None else []) + spoken
    images = sum(turn.text.count("<image>") for turn in spoken if turn.role == "human")
    return Record("k", tuple(spoken), tuple(f"{i}.png" for i in range(images)), False, {})


def length(template: ChatTemplate, record: Record) -> int:
    return len(template.encode(record.turns, [0] * len(record.images)).input_ids)


@pytest.fixture(scope="module", params=["tiny", "mini", "mini_with_system"])
def any_template(request: pytest.FixtureRequest, template: ChatTemplate) -> ChatTemplate:
    if request.param == "tiny":
        return template
    return ChatTemplate(load_tokenizer("asset:tokenizer"), "" if request.param == "mini" else None)


def test_rounds_begin_with_a_question_behind_an_answer() -> None:
    roles = ["system", "human", "human", "gpt", "gpt", "human", "gpt", "human"]
    assert rounds_of([Turn(role, "x") for role in roles]) == [range(1, 5), range(5, 7), range(7, 8)]
    assert rounds_of([Turn("gpt", "x"), Turn("human", "x"), Turn("gpt", "x")]) == [range(0, 1), range(1, 3)]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), WORDS, WORDS), min_size=1, max_size=5),
    st.none() | st.just("be brief"),
    st.data(),
)
def test_any_part_has_the_length_that_was_measured(
    any_template: ChatTemplate, rounds: list[tuple[int, str, str]], system: str | None, data: st.DataObject
) -> None:
    texts = [text for images, ask, answer in rounds for text in ("<image>" * images + ask, answer)]
    record = talk(*texts, system=system)
    sizes = measure_rounds(record, any_template)
    assert sizes.text_tokens == length(any_template, record) and sizes.images == [n for n, _, _ in rounds]
    splitter = Splitter(
        prefix=sizes.text_tokens - sum(sizes.tokens),
        tokens=sizes.tokens,
        lead_tokens=sizes.lead_tokens,
        images=sizes.images,
        count_tiles=lambda first, stop: stop - first,
        max_tokens=data.draw(st.integers(1, sizes.text_tokens + 20)),
        max_tiles=data.draw(st.integers(0, 4)),
        tokens_per_tile=3,
    )
    parts, unfit = splitter.split()
    covered = sorted([n for part in parts for n in range(part.first, part.stop)] + unfit)
    assert covered == list(range(len(rounds)))
    for part in parts:
        made = part_record(record, part)
        assert part.tokens == length(any_template, made) + 3 * part.tiles <= splitter.max_tokens
        assert part.tiles == len(made.images) <= splitter.max_tiles


def test_parts_keep_the_images_they_are_about() -> None:
    record = talk("<image>one?", "1", "more?", "2", "<image><image>now?", "3", "and?", "4", system="s")

    def images_and_text(first: int, stop: int, images: Sequence[int]) -> tuple[tuple[str, ...], str, str]:
        made = part_record(record, Part(first, stop, images[0], images[1], 0, 0))
        assert made.turns[0] == Turn("system", "s")
        return made.images, made.turns[1].text, made.key

    assert images_and_text(0, 2, (0, 1)) == (("0.png",), "<image>one?", "k#0")
    assert images_and_text(1, 2, (0, 1)) == (("0.png",), "<image>\nmore?", "k#1")
    assert images_and_text(1, 3, (0, 3)) == (("0.png", "1.png", "2.png"), "<image>\nmore?", "k#1")
    assert images_and_text(2, 4, (1, 3)) == (("1.png", "2.png"), "<image><image>now?", "k#2")
    assert images_and_text(3, 4, (1, 3)) == (("1.png", "2.png"), "<image>\n<image>\nand?", "k#3")


def test_floor_keeps_the_first_token_of_the_last_answer(any_template: ChatTemplate) -> None:
    record = talk("one?", "first answer", "two?", "second answer that is long", "unanswered")
    sizes = measure_rounds(record, any_template)
    encoded = any_template.encode(record.turns, [])
    kept = cut_text(encoded, sizes.text_floor)
    assert kept.response_ids.tolist().count(1) == 1 and kept.labels[-1] == kept.input_ids[-1] != IGNORE_INDEX
    images_behind = replace(talk("a?", "b", "<image>c"), images=("0.png",))
    sizes = measure_rounds(images_behind, any_template)
    assert sizes.text_floor == sizes.text_tokens


def test_cut_text_ends_between_two_tokens(template: ChatTemplate, kit: SimpleNamespace, tmp_path: Path) -> None:
    encoded = template.encode([Turn("human", "<image>"), Turn("gpt", "a red square")], [4])
    assert cut_text(encoded, None) is encoded is cut_text(encoded, 10**6)
    cut = cut_text(encoded, len(encoded.input_ids) - 4)
    assert np.array_equal(cut.input_ids, encoded.input_ids[:-4]) and np.array_equal(cut.labels, encoded.labels[:-4])
    assert template.end_id not in cut.labels
