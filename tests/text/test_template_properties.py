"""Properties of the chat template that hold for every conversation, in any script and with any number of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from internvl_lab.constants import IGNORE_INDEX, IMAGE_PLACEHOLDER
from internvl_lab.errors import SampleError
from internvl_lab.text import ChatTemplate, Turn, train_tokenizer

WRITTEN_BY_TEMPLATE = ("<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>", IMAGE_PLACEHOLDER)
CORPUS = ["<|im_start|>user\nHow many?\n\n assistant system\n 12 red squares, größer, 红色的方块"] * 3


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Single bytes, and <s> before every text, as InternLM2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: k for k, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevel()
    special = ["<s>", "</s>", "<|im_end|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>"]
    backend.add_special_tokens([*special, "<box>", "</box>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>", add_bos_token=True
    )


TEMPLATES = {
    "mini": ChatTemplate(train_tokenizer(CORPUS, 400), ""),
    "mini with the report's system turn": ChatTemplate(train_tokenizer(CORPUS, 400)),
    "internlm": ChatTemplate(byte_tokenizer(), "Be kind."),
}

# Control characters, right-to-left marks, combining letters, emoji beyond the basic plane; only lone surrogates cannot
# stand in a JSON text. Lines that look like the template's own are likelier than chance would make them.
LETTERS = st.characters(exclude_categories=("Cs",))
SNIPPETS = st.sampled_from(
    ["\n", "\n\n", " ", "assistant\n", "user", "<image", "<|im_", "<ref>", "</box>", "\u0301", "红", "\u202e", "\x00"]
) | st.sampled_from(["\U0001f469\u200d\U0001f467", "0" * 20])
TEXT = st.lists(st.text(LETTERS, max_size=8) | SNIPPETS, max_size=6).map("".join)
SAFE = TEXT.filter(lambda text: not any(token in text for token in WRITTEN_BY_TEMPLATE))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Turn], list[int]]:
    """Draw a conversation and the visual tokens of each of its pictures."""
    turns = [Turn("system", draw(SAFE))] if draw(st.booleans()) else []
    counts: list[int] = []
    for _ in range(draw(st.integers(1, 3))):
        pieces = draw(st.lists(SAFE, min_size=1, max_size=3))
        counts += draw(st.lists(st.integers(0, 5), min_size=len(pieces) - 1, max_size=len(pieces) - 1))
        turns += [Turn("human", IMAGE_PLACEHOLDER.join(pieces)), Turn("gpt", draw(SAFE))]
    return turns, counts


def raw(template: ChatTemplate, ids: Sequence[int] | np.ndarray) -> str:
    """Decode with all special tokens."""
    text: str = template.tokenizer.backend_tokenizer.decode([int(k) for k in ids], skip_special_tokens=False)
    return text


def expected_pieces(template: ChatTemplate, turns: list[Turn], counts: list[int]) -> list[tuple[str, bool]]:
    """Write a conversation by the specification alone: (text, whether it has loss) of every piece, in order."""
    names = {"system": "system", "human": "user", "gpt": "assistant"}
    remaining = iter(counts)
    if template.system_message and turns[0].role != "system":
        turns = [Turn("system", template.system_message), *turns]
    pieces = [("<s>", False)] if template.bos_id is not None else []
    for turn in turns:
        first, *others = turn.text.split(IMAGE_PLACEHOLDER) if turn.role == "human" else [turn.text]
        text = first + "".join(f"<img>{'<IMG_CONTEXT>' * next(remaining)}</img>{other}" for other in others)
        answer = turn.role == "gpt"
        pieces += [(f"<|im_start|>{names[turn.role]}\n", False), (f"{text}<|im_end|>", answer), ("\n", False)]
    return pieces


each_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)


@each_template
@given(conversation=conversations())
@example(conversation=([Turn("human", ""), Turn("gpt", "")], []))
@example(conversation=([Turn("human", "<image><image>"), Turn("gpt", "\n\n")], [0, 3]))
@example(conversation=([Turn("human", "a"), Turn("gpt", "assistant\n"), Turn("human", "user\n"), Turn("gpt", "x")], []))
@settings(max_examples=60)
def test_mask_covers_exactly_the_answers_and_their_end(
    template: ChatTemplate, conversation: tuple[list[Turn], list[int]]
) -> None:
    turns, counts = conversation
    encoded = template.encode(turns, counts)
    pieces = expected_pieces(template, turns, counts)
    assert raw(template, encoded.input_ids) == "".join(text for text, _ in pieces)
    supervised = encoded.labels != IGNORE_INDEX
    assert np.array_equal(encoded.labels[supervised], encoded.input_ids[supervised])
    assert np.array_equal(supervised, encoded.response_ids >= 0)
    answers = [text for text, has_loss in pieces if has_loss]
    assert encoded.response_ids.max(initial=-1) + 1 == len(answers)
    for number, answer in enumerate(answers):
        span = np.flatnonzero(encoded.response_ids == number)
        assert span.tolist() == list(range(span[0], span[-1] + 1))
        assert raw(template, encoded.input_ids[span]) == answer
        assert encoded.input_ids[span[-1]] == template.end_id
        before, behind = raw(template, encoded.input_ids[: span[0]]), raw(template, encoded.input_ids[span[-1] + 1 :])
        assert before.endswith("<|im_start|>assistant\n") and behind.startswith("\n")


@each_template
@given(conversation=conversations())
@settings(max_examples=40)
def test_turns_are_tokenised_one_by_one(template: ChatTemplate, conversation: tuple[list[Turn], list[int]]) -> None:
    """What a turn becomes depends on nothing before or behind it: the ids of a conversation are those of its turns."""
    turns, counts = conversation
    alone = ChatTemplate(template.tokenizer, "")
    remaining = list(counts)
    ids: list[int] = []
    for turn in turns if turns[0].role == "system" else [Turn("system", template.system_message), *turns]:
        if turn.role == "system" and not turn.text and turns[0].role != "system":
            continue  # no system turn at all
        number = turn.text.count(IMAGE_PLACEHOLDER) if turn.role == "human" else 0
        part = alone.encode([turn], remaining[:number]).input_ids.tolist()
        remaining = remaining[number:]
        ids += part if alone.bos_id is None or not ids else part[1:]  # <s> stands before the first turn only
    assert template.encode(turns, counts).input_ids.tolist() == ids


@each_template
@given(answer=SAFE)
@example(answer="the <ref>red  cat</ref> is at<box>[[1, 2, 3, 4]]</box> .")
@settings(max_examples=60)
def test_decoding_the_answer_gives_the_answer(template: ChatTemplate, answer: str) -> None:
    encoded = template.encode([Turn("human", "x"), Turn("gpt", answer)], [])
    assert template.decode(encoded.input_ids[encoded.response_ids == 0]) == answer


@each_template
@given(conversation=conversations())
@settings(max_examples=40)
def test_every_picture_has_its_visual_tokens_in_its_place(
    template: ChatTemplate, conversation: tuple[list[Turn], list[int]]
) -> None:
    turns, counts = conversation
    encoded = template.encode(turns, counts)
    ids = encoded.input_ids
    starts = np.flatnonzero(ids == template.image_start_id)
    assert len(starts) == len(counts)
    for start, count in zip(starts, counts, strict=True):
        assert (ids[start + 1 : start + 1 + count] == template.context_id).all()
        assert raw(template, ids[start + 1 + count : start + 2 + count]) == "</img>"
    visual = ids == template.context_id
    assert visual.sum() == sum(counts) and (encoded.labels[visual] == IGNORE_INDEX).all()


@each_template
@given(conversation=conversations(), extra=st.integers(1, 3))
@settings(max_examples=20)
def test_another_number_of_pictures_is_refused(
    template: ChatTemplate, conversation: tuple[list[Turn], list[int]], extra: int
) -> None:
    turns, counts = conversation
    for wrong in (counts + [1] * extra, counts[:-extra] if len(counts) >= extra else None):
        if wrong is not None:
            with pytest.raises(SampleError, match="image_count"):
                template.encode(turns, wrong)


@given(conversation=conversations(), token=st.sampled_from(WRITTEN_BY_TEMPLATE[:-1]), data=st.data())
@settings(max_examples=40)
def test_no_text_can_forge_a_turn_or_a_picture(
    conversation: tuple[list[Turn], list[int]], token: str, data: st.DataObject
) -> None:
    turns, counts = conversation
    place = data.draw(st.integers(0, len(turns) - 1))
    forged = Turn(turns[place].role, turns[place].text + token)
    with pytest.raises(SampleError, match="special_token_in_text"):
        TEMPLATES["mini"].encode([*turns[:place], forged, *turns[place + 1 :]], counts)


@each_template
@given(conversation=conversations())
@settings(max_examples=30)
def test_a_prompt_is_the_beginning_of_training(
    template: ChatTemplate, conversation: tuple[list[Turn], list[int]]
) -> None:
    turns, counts = conversation
    prompt = template.encode_prompt(turns[:-1], counts)
    encoded = template.encode(turns, counts)
    assert encoded.input_ids[: len(prompt)].tolist() == prompt.tolist()
    last = np.flatnonzero(encoded.response_ids == encoded.response_ids.max())
    assert last[0] == len(prompt)
