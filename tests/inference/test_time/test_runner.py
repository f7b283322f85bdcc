from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from internvl_lab.config import TestTimeConfig
from internvl_lab.errors import SampleError
from internvl_lab.inference.test_time import Problem, Respondent, SampleStore, collect, judge
from internvl_lab.inference.test_time.runner import arms_of

MakeConfig = Callable[..., TestTimeConfig]


def run(config: TestTimeConfig, problems: list[Problem], respondent: Respondent) -> SampleStore:
    store = SampleStore(Path(config.out), {})
    collect(config, problems, lambda _: respondent, store)
    return store


def test_arms_follow_the_settings(config_of: MakeConfig) -> None:
    assert [arm.name for arm in arms_of(config_of())] == ["direct", "cot", "samples"]
    plain = config_of(prompt="direct", samples=0, select="first")
    assert [arm.name for arm in arms_of(plain)] == ["direct"]
    assert [(arm.name, arm.sampling.num_samples) for arm in arms_of(config_of(prompt="direct"))][1] == ("samples", 3)


def test_every_question_is_answered_in_every_arm(
    config_of: MakeConfig, problems: list[Problem], respondent: Respondent
) -> None:
    store = run(config_of(checkpoint=("a", "b")), problems, respondent)
    assert len(store.records) == 2 * 3 * len(problems)
    for record in store.records.values():
        assert len(record.samples) == (3 if record.arm == "samples" else 1)
        assert record.num_tiles == 1 and record.prompt_flops > 0
        for sample in record.samples:
            assert sample.right == (bool(sample.answer) and len(sample.answer) % 2 == 0)
            assert 1 <= sample.num_tokens <= 6 and sample.mean_logprob < 0
    cot, direct = (store.records["a", arm, "counting", "p0"] for arm in ("cot", "direct"))
    assert cot.prompt_tokens > direct.prompt_tokens


def test_a_killed_run_resumes_to_the_same_file(
    config_of: MakeConfig, problems: list[Problem], respondent: Respondent, tmp_path: Path
) -> None:
    whole = config_of(batch_size=3, out=str(tmp_path / "whole"))
    run(whole, problems, respondent)
    expected = (tmp_path / "whole" / "samples.jsonl").read_bytes()
    cut = config_of(batch_size=3, out=str(tmp_path / "cut"))
    calls: list[str] = []

    def load(name: str) -> Respondent:
        calls.append(name)
        return respondent

    for size in (0, 900, len(expected) // 2, len(expected) - 5):
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / "samples.jsonl").write_bytes(expected[:size])
        collect(cut, problems, load, SampleStore(tmp_path / "cut", {}))
        assert (tmp_path / "cut" / "samples.jsonl").read_bytes() == expected
    assert calls == ["a"] * 4
    collect(cut, problems, load, SampleStore(tmp_path / "cut", {}))
    assert len(calls) == 4, "a finished run opens no model"


def test_an_unreadable_question_is_a_counted_skip(
    config_of: MakeConfig, problems: list[Problem], respondent: Respondent
) -> None:
    def broken() -> list[object]:
        raise SampleError("p1", "corrupt_image", "cut")

    problems[1] = replace(problems[1], load_images=broken)  # type: ignore[arg-type]
    config = config_of()
    store = run(config, problems, respondent)
    record = store.records["a", "samples", "ocr", "p1"]
    assert record.samples == () and "corrupt_image" in record.error
    assert len(judge(config, problems, lambda _: respondent, store)) == len(problems) - 1


@pytest.mark.parametrize(("critic", "opened"), [("logprob", []), ("self", ["a", "b"]), ("judge", ["judge"])])
def test_critics_open_their_models_once(
    config_of: MakeConfig, problems: list[Problem], respondent: Respondent, critic: str, opened: list[str]
) -> None:
    config = config_of(checkpoint=("a", "b"), critic=critic, select="best_of_n")
    store = run(config, problems, respondent)
    calls: list[str] = []

    def load(name: str) -> Respondent:
        calls.append(name)
        return respondent

    scores = judge(config, problems, load, store)
    assert calls == opened and len(scores) == 2 * len(problems)
    assert all(len(of.scores) == 3 and all(0 <= score <= 1 for score in of.scores) for of in scores.values())
    assert judge(config, problems, load, store) == scores
    assert calls == opened, "known scores are read back"
