"""Chat: one question, and a conversation with memory."""

from __future__ import annotations

import pytest
from PIL import Image

from internvl_lab.errors import SampleError
from internvl_lab.inference import Assistant, Generator, Processor, Prompt, answer
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

    def record(self: Generator, batch: list[Prompt], blind: bool = False) -> list[str]:
        prompts.extend(batch)
        return [f"reply {len(prompts)}"]

    monkeypatch.setattr(Generator, "generate", record)
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
