"""Generation: equal to the plain loop without cache or padding, whatever the batch."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_lab.errors import ConfigError, TokenMismatchError
from internvl_lab.inference import Generator, Processor, Prompt
from internvl_lab.inference.generation import grey_tile
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate

NEW_TOKENS = 12


class IdTemplate:
    """Stand in for the template so that an answer is its token ids, and the end token can be chosen."""

    def __init__(self, end_id: int) -> None:
        self.end_id = end_id

    def decode(self, ids: list[int]) -> str:
        """Return the ids as text."""
        return " ".join(map(str, ids))


def generate(
    model: InternVL, prompts: list[Prompt], end_id: int = -1, batch_size: int = 64, blind: bool = False
) -> list[list[int]]:
    """Generate and return token ids."""
    generator = Generator(model, IdTemplate(end_id), NEW_TOKENS, batch_size)  # type: ignore[arg-type]
    return [[int(t) for t in text.split()] for text in generator.generate(prompts, blind)]


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Draw random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def prompts(processor: Processor) -> list[Prompt]:
    """Mix text, image, multi-image and video prompts of many lengths."""
    made = []
    for i in range(21):
        images = [noise(56 + 30 * (i % 5), 56, 100 * i + k) for k in range((0, 1, 2, 3)[i % 4])]
        made.append(processor("What colour " * (1 + i % 6) + "?", images, is_video=i % 4 == 3, key=f"p{i}"))
    return made


@torch.no_grad()
def plain_greedy(model: InternVL, prompt: Prompt) -> list[int]:
    """Decode by the packed training path: no cache, no padding, one row, everything computed anew for each token."""
    visual = model.encode_tiles(torch.from_numpy(prompt.pixel_values)) if prompt.num_tiles else None
    embeddings = model.embed(torch.from_numpy(prompt.input_ids).long()[None], visual)
    answer: list[int] = []
    for _ in range(NEW_TOKENS):
        length = embeddings.shape[1]
        hidden = model.language_model(
            inputs_embeds=embeddings,
            position_ids=torch.arange(length)[None],
            use_cache=False,
            **model.backend.lay_out(torch.tensor([0, length], dtype=torch.int32), length),
        ).last_hidden_state
        answer.append(int(model.lm_head(hidden[:, -1]).argmax()))
        newest = model.language_model.get_input_embeddings()(torch.tensor([[answer[-1]]]))
        embeddings = torch.cat([embeddings, newest], dim=1)
    return answer


def test_equals_the_loop_without_cache(model: InternVL, prompts: list[Prompt]) -> None:
    expected = [plain_greedy(model, prompt) for prompt in prompts]
    assert len({tuple(answer) for answer in expected}) > len(prompts) // 2, "the test needs answers that differ"
    assert generate(model, prompts) == expected


def test_batch_size_changes_nothing(model: InternVL, prompts: list[Prompt]) -> None:
    expected = generate(model, prompts, batch_size=1)
    assert generate(model, prompts, batch_size=64) == expected
    assert generate(model, prompts, batch_size=5) == expected
    assert generate(model, prompts[::-1], batch_size=5) == expected[::-1]


@pytest.mark.parametrize("rank", [0, 3, 8])
def test_stops_at_the_end_token_while_others_go_on(model: InternVL, prompts: list[Prompt], rank: int) -> None:
    free = generate(model, prompts)
    counts = Counter(token for answer in free for token in set(answer))
    end = counts.most_common()[rank][0]
    cut = [answer[: answer.index(end)] if end in answer else answer for answer in free]
    assert len({len(answer) for answer in cut}) > 1, "the test needs rows that end at different steps"
    assert generate(model, prompts, end_id=end) == cut


def test_finished_rows_leave_the_batch(model: InternVL, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch) -> None:
    free = generate(model, prompts)
    end = Counter(token for answer in free for token in set(answer[:6])).most_common(1)[0][0]
    sizes: list[int] = []
    step = Generator._step

    def counted(self: Generator, tokens: torch.Tensor, rows: object) -> torch.Tensor:
        sizes.append(len(tokens))
        return step(self, tokens, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Generator, "_step", counted)
    generate(model, prompts, end_id=end)
    ended_after = sorted(answer.index(end) if end in answer else NEW_TOKENS for answer in free)
    for number, size in enumerate(sizes):
        alive = sum(length > number for length in ended_after)
        assert alive <= size <= max(2 * alive, 1)
    assert sizes[-1] < len(prompts)


def test_early_exit_when_all_rows_ended(
    model: InternVL, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = generate(model, prompts[:1])[0][0]
    monkeypatch.setattr(Generator, "_step", lambda *_: pytest.fail("no step is needed after the only row ended"))
    assert generate(model, prompts[:1], end_id=first) == [[]]


def test_one_vision_call_a_batch(model: InternVL, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encode = InternVL.encode_tiles

    def counted(self: InternVL, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(InternVL, "encode_tiles", counted)
    generate(model, prompts)
    assert calls == [sum(p.num_tiles for p in prompts)]
    calls.clear()
    generate(model, prompts, blind=True)
    assert calls == [1]


def test_blind_equals_grey_tiles(model: InternVL, prompts: list[Prompt]) -> None:
    grey = [Prompt(p.key, p.input_ids, np.repeat(grey_tile(56), p.num_tiles, axis=0)) for p in prompts]
    blind = generate(model, prompts, blind=True)
    assert blind == generate(model, grey)
    assert blind != generate(model, prompts)


def test_blind_tells_nothing_of_the_picture(model: InternVL, processor: Processor) -> None:
    a, b = (processor("What colour?", [noise(56, 56, seed)]) for seed in (1, 2))
    assert generate(model, [a]) != generate(model, [b])
    assert generate(model, [a], blind=True) == generate(model, [b], blind=True)


def test_grey_tile_normalises_to_almost_nothing(model: InternVL) -> None:
    normalised = model._normalise(torch.from_numpy(grey_tile(56)))
    assert normalised.abs().max() < 0.5 / 255 / 0.22


def test_training_mode_is_restored(model: InternVL, template: ChatTemplate, prompts: list[Prompt]) -> None:
    trained = copy.deepcopy(model).train()
    Generator(trained, template, 2).generate(prompts[:2])
    assert trained.training and trained.vision_tower.training
    Generator(model, template, 2).generate(prompts[:2])
    assert not model.training


def test_answers_are_decoded_by_the_template(model: InternVL, template: ChatTemplate, prompts: list[Prompt]) -> None:
    ids = generate(model, prompts[:3], end_id=template.end_id)
    assert Generator(model, template, NEW_TOKENS).generate(prompts[:3]) == [template.decode(answer) for answer in ids]


def test_no_prompts(model: InternVL, template: ChatTemplate) -> None:
    assert Generator(model, template).generate([]) == []


def test_mismatch_names_the_prompt(model: InternVL, prompts: list[Prompt]) -> None:
    broken = Prompt("photo-7", prompts[1].input_ids, prompts[1].pixel_values[:0])
    with pytest.raises(TokenMismatchError, match=r"photo-7.*0 tiles"):
        generate(model, [prompts[0], broken])


@pytest.mark.parametrize(("tokens", "batch"), [(0, 1), (1, 0)])
def test_limits_below_one_are_refused(model: InternVL, template: ChatTemplate, tokens: int, batch: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Generator(model, template, tokens, batch)
