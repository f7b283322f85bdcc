"""Chat: one question, and a conversation with memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from internvl_lab.config import SamplingConfig
from internvl_lab.errors import SampleError
from internvl_lab.inference import Assistant, Generator, Processor, Prompt, answer
from internvl_lab.inference.chat import read_image, read_video
from internvl_lab.models import InternVL
from internvl_lab.text import Turn

RED, BLUE = Image.new("RGB", (56, 56), "red"), Image.new("RGB", (56, 56), "blue")


def test_answer_equals_the_generator(model: InternVL, processor: Processor) -> None:
    prompt = processor("What colour?", [RED])
    expected = Generator(model, processor.template, 5).generate([prompt])[0]
    assert answer(model, processor, "What colour?", [RED], max_new_tokens=5) == expected


def test_answer_about_a_video(model: InternVL, processor: Processor) -> None:
    prompt = processor("What colour?", [RED, BLUE], is_video=True)
    expected = Generator(model, processor.template, 5).generate([prompt])[0]
    assert answer(model, processor, "What colour?", [RED, BLUE], is_video=True, max_new_tokens=5) == expected


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """Record prompts instead of answering them; replies are numbered."""
    prompts: list[Prompt] = []

    def record(self: Generator, prompt: Prompt, sampling: SamplingConfig) -> Iterator[str]:
        prompts.append(prompt)
        yield from ("reply ", str(len(prompts)))

    monkeypatch.setattr(Generator, "stream", record)
    return prompts


def test_a_conversation_remembers(model: InternVL, processor: Processor, asked: list[Prompt]) -> None:
    assistant = Assistant(model, processor)
    assert assistant.ask("What colour?", [RED]) == "reply 1"
    assert assistant.ask("And this?", [BLUE]) == "reply 2"
    assert assistant.ask("Why?") == "reply 3"
    turns = [
        Turn("human", "<image>\nWhat colour?"),
        Turn("gpt", "reply 1"),
        Turn("human", "<image>\nAnd this?"),
        Turn("gpt", "reply 2"),
        Turn("human", "Why?"),
    ]
    expected = processor(turns, [RED, BLUE])
    assert asked[-1].input_ids.tolist() == expected.input_ids.tolist()
    assert asked[-1].pixel_values[:, 0, 0, 0].tolist() == [255, 0]
    assert assistant.turns == [*turns, Turn("gpt", "reply 3")]


def test_reset_forgets(model: InternVL, processor: Processor, asked: list[Prompt]) -> None:
    assistant = Assistant(model, processor)
    assistant.ask("What colour?", [RED])
    assistant.reset()
    assistant.ask("Why?")
    assert asked[-1].num_tiles == 0 and len(assistant.turns) == 2


def test_a_refused_question_leaves_the_history(model: InternVL, processor: Processor, asked: list[Prompt]) -> None:
    assistant = Assistant(model, processor)
    assistant.ask("What colour?", [RED])
    with pytest.raises(SampleError):
        assistant.ask("Is <image> like <image>?", [BLUE])
    assert len(assistant.turns) == 2 and assistant.images == [RED]


def test_streamed_pieces_are_the_reply(model: InternVL, processor: Processor) -> None:
    assistant = Assistant(model, processor, 6, SamplingConfig(0.8, 0.9, seed=3))
    pieces = list(assistant.stream("What colour?", [RED]))
    assert assistant.turns[-1] == Turn("gpt", "".join(pieces))
    again = Assistant(model, processor, 6, SamplingConfig(0.8, 0.9, seed=3))
    assert again.ask("What colour?", [RED]) == "".join(pieces), "the seed decides the answer"


def test_an_abandoned_answer_is_no_history(model: InternVL, processor: Processor, asked: list[Prompt]) -> None:
    assistant = Assistant(model, processor)
    pieces = assistant.stream("What colour?", [RED])
    assert next(pieces) == "reply "
    pieces.close()  # type: ignore[attr-defined]
    assert assistant.turns == [] and assistant.images == []


def test_a_conversation_about_a_video(model: InternVL, processor: Processor, asked: list[Prompt]) -> None:
    assistant = Assistant(model, processor)
    assistant.ask("What colour?", [RED, BLUE], is_video=True)
    assistant.ask("Why?")
    assert assistant.turns[0].text == "Frame-1: <image>\nFrame-2: <image>\nWhat colour?"
    assert asked[-1].num_tiles == 2
    with pytest.raises(SampleError, match="video stands alone"):
        assistant.ask("And this?", [RED])
    assistant.reset()
    assert assistant.ask("And this?", [RED]) == "reply 3"


def test_pictures_and_videos_are_read_from_files(tmp_path: Path) -> None:
    for k in range(5):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / f"{k}.png")
    assert read_image(tmp_path / "3.png").getpixel((0, 0)) == (3, 0, 0)
    frames = read_video(tmp_path, 3)
    shown = [frame.getpixel((0, 0))[0] for frame in frames]  # type: ignore[index]
    assert len(shown) == 3 and shown == sorted(shown) == [f.getpixel((0, 0))[0] for f in read_video(tmp_path, 3)]  # type: ignore[index]
    with pytest.raises(SampleError, match="no such picture"):
        read_image(tmp_path / "9.png")
