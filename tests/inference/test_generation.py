"""Generation: equal to the plain loop without cache or padding, whatever the batch."""

from __future__ import annotations

import copy
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_lab.config import SamplingConfig
from internvl_lab.errors import ConfigError, TokenMismatchError
from internvl_lab.inference import Generator, Processor, Prompt
from internvl_lab.inference.generation import GREEDY, MAX_COLUMNS, Answer, grey_tile
from internvl_lab.inference.sampling import choose, uniforms
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate, Turn

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
def plain(model: InternVL, prompt: Prompt, sampling: SamplingConfig = GREEDY, sample: int = 0) -> list[int]:
    """Decode by the packed training path: no cache, no padding, one row, everything computed anew for each token."""
    draws = torch.from_numpy(uniforms(sampling.seed, prompt.key, sample, NEW_TOKENS))
    visual = model.encode_tiles(torch.from_numpy(prompt.pixel_values)) if prompt.num_tiles else None
    embeddings = model.embed(torch.from_numpy(prompt.input_ids).long()[None], visual)
    answer: list[int] = []
    for step in range(NEW_TOKENS):
        length = embeddings.shape[1]
        hidden = model.language_model(
            inputs_embeds=embeddings,
            position_ids=torch.arange(length)[None],
            use_cache=False,
            **model.backend.lay_out(torch.tensor([0, length], dtype=torch.int32), length),
        ).last_hidden_state
        answer.append(int(choose(model.lm_head(hidden[:, -1]), sampling, draws[step : step + 1])))
        newest = model.language_model.get_input_embeddings()(torch.tensor([[answer[-1]]]))
        embeddings = torch.cat([embeddings, newest], dim=1)
    return answer


def test_equals_the_loop_without_cache(model: InternVL, prompts: list[Prompt]) -> None:
    expected = [plain(model, prompt) for prompt in prompts]
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


SAMPLED = SamplingConfig(0.9, 0.95, num_samples=3, seed=5)


def draw(
    model: InternVL,
    prompts: list[Prompt],
    sampling: SamplingConfig = SAMPLED,
    end_id: int = -1,
    batch_size: int = 64,
) -> list[tuple[Answer, ...]]:
    """Sample and return all answers of all prompts."""
    return Generator(model, IdTemplate(end_id), NEW_TOKENS, batch_size).sample(prompts, sampling)  # type: ignore[arg-type]


def ids_of(answers: list[tuple[Answer, ...]]) -> list[list[list[int]]]:
    """Return token ids alone."""
    return [[list(answer.token_ids) for answer in of] for of in answers]


def test_samples_equal_the_loop_without_cache(model: InternVL, prompts: list[Prompt]) -> None:
    expected = [[plain(model, prompt, SAMPLED, sample) for sample in range(3)] for prompt in prompts[:8]]
    assert all(len({tuple(ids) for ids in of}) == 3 for of in expected), "the test needs samples that differ"
    assert ids_of(draw(model, prompts[:8])) == expected


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_an_answer_depends_on_no_neighbour(model: InternVL, prompts: list[Prompt], batch_size: int) -> None:
    end = Counter(i for answers in ids_of(draw(model, prompts)) for ids in answers for i in set(ids)).most_common(1)[0][
        0
    ]
    expected = ids_of(draw(model, prompts, end_id=end))
    assert len({len(ids) for answers in expected for ids in answers}) > 3, "the test needs answers of many lengths"
    assert ids_of(draw(model, prompts, end_id=end, batch_size=batch_size)) == expected
    assert ids_of(draw(model, prompts[::-1], end_id=end, batch_size=batch_size)) == expected[::-1]
    alone = [answers for prompt in prompts[:4] for answers in ids_of(draw(model, [prompt], end_id=end))]
    assert alone == expected[:4]


def test_more_samples_begin_with_the_fewer(model: InternVL, prompts: list[Prompt]) -> None:
    many = SamplingConfig(0.9, 0.95, num_samples=2 * MAX_COLUMNS + 3, seed=5)
    drawn = ids_of(draw(model, prompts[:3], many))
    assert [answers[:3] for answers in drawn] == ids_of(draw(model, prompts[:3]))
    assert drawn[1][2 * MAX_COLUMNS + 2] == plain(model, prompts[1], many, 2 * MAX_COLUMNS + 2)


def test_samples_share_the_vision_pass_and_the_prefill(
    model: InternVL, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    language = Generator._language

    def counted(self: Generator, embeds: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(embeds.shape[1])
        return language(self, embeds, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Generator, "_language", counted)
    draw(model, prompts[:2], SamplingConfig(1.0, num_samples=40))
    assert sorted(calls) == sorted(len(prompt.input_ids) for prompt in prompts[:2])


def test_seeds_and_keys_change_the_draws(model: InternVL, processor: Processor) -> None:
    a, b = (processor("What colour?", key=key) for key in "ab")
    first, second = ids_of(draw(model, [a, b]))
    assert first != second
    assert ids_of(draw(model, [a], SamplingConfig(0.9, 0.95, num_samples=3, seed=6)))[0] != first


def test_a_repetition_penalty_repeats_less(model: InternVL, prompts: list[Prompt]) -> None:
    def distinct(penalty: float) -> int:
        answers = draw(model, prompts, SamplingConfig(repetition_penalty=penalty))
        return sum(len(set(answer.token_ids)) for (answer,) in answers)

    assert distinct(1.0) < distinct(1.1) <= distinct(1e9) == len(prompts) * NEW_TOKENS


def test_logprobs_equal_the_scores_of_the_same_text(
    model: InternVL, template: ChatTemplate, prompts: list[Prompt]
) -> None:
    prompt = next(p for p in prompts if p.num_tiles)
    generator = Generator(model, template, NEW_TOKENS)
    answers = ["It is red.", "What colour is the large circle?", ""]
    scores = generator.score(prompt, answers)
    for answer, score in zip(answers, scores, strict=True):
        labels = template.encode([Turn("human", "x"), Turn("gpt", answer)], []).labels
        assert score == pytest.approx(_plain_score(model, prompt, labels[labels >= 0].tolist()), abs=1e-5)
    (drawn,) = generator.sample([prompt])[0]
    ids = [*drawn.token_ids, *([template.end_id] if drawn.ended else [])]
    assert drawn.mean_logprob == pytest.approx(_plain_score(model, prompt, ids), abs=1e-5)


@torch.no_grad()
def _plain_score(model: InternVL, prompt: Prompt, ids: list[int]) -> float:
    """Average the log-probabilities of ids behind a prompt, through the model's own forward."""
    row = torch.tensor([[*prompt.input_ids.tolist(), *ids]])
    hidden = model(
        input_ids=row,
        position_ids=torch.arange(row.shape[1])[None],
        cu_seqlens=torch.tensor([0, row.shape[1]], dtype=torch.int32),
        max_seqlen=row.shape[1],
        pixel_values=torch.from_numpy(prompt.pixel_values),
    )
    logprobs = torch.log_softmax(model.lm_head(hidden[0]), dim=-1)
    start = len(prompt.input_ids) - 1
    return sum(float(logprobs[start + i, token]) for i, token in enumerate(ids)) / len(ids)


def test_streamed_pieces_join_to_the_answer(model: InternVL, template: ChatTemplate, prompts: list[Prompt]) -> None:
    generator = Generator(model, template, 40)
    for prompt in prompts[:6]:
        pieces = list(generator.stream(prompt, SAMPLED))
        assert "".join(pieces) == generator.sample([prompt], SAMPLED)[0][0].text
        assert all(pieces), "no empty piece"
    assert any(len(list(generator.stream(prompt, SAMPLED))) > 1 for prompt in prompts[:6])


def test_a_character_of_several_tokens_is_streamed_whole(
    model: InternVL, template: ChatTemplate, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = template.tokenizer("é—象", add_special_tokens=False).input_ids
    assert len(ids) > 3, "the test needs characters of several tokens"
    steps = [generation_step(token) for token in [*ids, template.end_id]]
    monkeypatch.setattr(Generator, "_decode", lambda *_: iter(steps))
    assert list(Generator(model, template).stream(prompts[0])) == ["é", "—", "象"]


def generation_step(token: int) -> object:
    """Make a decoding step of one token."""
    return SimpleNamespace(slots=np.zeros((1, 1), int), tokens=np.array([[token]]), logprobs=np.zeros((1, 1)))


@pytest.mark.parametrize(("tokens", "batch"), [(0, 1), (1, 0)])
def test_limits_below_one_are_refused(model: InternVL, template: ChatTemplate, tokens: int, batch: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Generator(model, template, tokens, batch)
