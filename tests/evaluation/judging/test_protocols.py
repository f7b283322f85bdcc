"""Official prompts, readings and averages, the hard cases included."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.benchmark import JUDGED, load_benchmarks
from internvl_lab.evaluation.judging import protocols
from internvl_lab.evaluation.judging.protocols import PROTOCOLS, plain_protocol, protocol_of, read_prompt


def line(**fields: Any) -> dict[str, Any]:
    return {"id": "1", "question": "asked", "prediction": "x = -1", "reference": {"question": "What is x?", **fields}}


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("parse_share", {"0.5": 0.5, " 1.0\n": 1.0, "1e-1": 0.1, "1.1": None, "-0.1": None, "0.5.": None, "nan": None}),
        ("parse_first_share", {"0.5 |": 0.5, "1.0": 1.0, "0.5|": None, "Score: 0.5": None, "": None}),
        (
            "parse_rating",
            {
                "good.\nRating: 4": 4.0,
                "RATING: 0, not informative": 0.0,
                "rating: 3 or Rating: 4": None,
                "Rating: 7": None,
                "Rating:5": None,
                "Rating: 2 ... again rating: 2": 2.0,
            },
        ),
        (
            "parse_verdict",
            {
                "so [[A>>B]]": -2.0,
                "[[A>B]]": -1.0,
                "[[A=B]] tie": 0.0,
                "[[B>A]] yes [[B>A]]": 1.0,
                "[[B>>A]]": 2.0,
                "[[A>B]] or [[B>A]]": None,
                "A>B": None,
                "[[A]]": 0.0,
            },
        ),
        (
            "parse_json_score",
            {'{"extract_answer": "3", "score": 1}': 1.0, '{"score": "0"}': 0.0, "[]": None, "1": None, "{": None},
        ),
        ("parse_integer", {"3": 3.0, " 2\n": 2.0, "3.0": None, "3.": None, "three": None, "-1": -1.0}),
        ("parse_number", {"4": 4.0, "inf": None, "nan": None, "four": None}),
    ],
)
def test_readings(name: str, cases: dict[str, float | None]) -> None:
    parse = getattr(protocols, name)
    assert {text: parse(text) for text in cases} == cases


def test_every_official_protocol_belongs_to_a_judged_benchmark() -> None:
    judged = {name for name, benchmark in load_benchmarks().items() if benchmark.metric == JUDGED}
    assert set(PROTOCOLS) == judged
    assert protocol_of("another", {"judge_metric": "0 or 1"}).source.startswith("internvl-lab's own")


def test_prompts_end_with_what_is_judged() -> None:
    row = line(answer="-1<AND>-5", image_content=["Cat", "Mat"], claude3_sonnet="theirs")
    mmvet = PROTOCOLS["mmvet"].prompt(row)
    assert mmvet.startswith("\nCompare the ground truth") and mmvet.endswith("\n\nWhat is x? | -1 <AND> -5 | x = -1 | ")
    row["prediction"] = "x = -1\nor -5"
    assert PROTOCOLS["mmvet_v2"].prompt(row).endswith(" | 1.0 |\n| What is x? | -1 <AND> -5 | x = -1<br>or -5 | ")
    assert "### Image Contents\nCat, Mat\n\n### Question\nWhat is x?\n\n" in PROTOCOLS["mmhal"].prompt(row)
    assert PROTOCOLS["mmhal"].prompt(row).endswith("### LMM Response to Evaluate\nx = -1\nor -5\n")
    wild = PROTOCOLS["wildvision"].prompt(row)
    assert wild.index("Assistant A's Answer|>\ntheirs\n") < wild.index("Assistant B's Answer|>\nx = -1\nor -5\n")
    video = PROTOCOLS["mmbench_video"].prompt(row)
    assert (
        video == "Question: What is x?\nGroundtruth answer: -1<AND>-5\nCandidate answer: x = -1\nor -5\nYour response: "
    )


def test_a_judge_is_not_asked_half_a_question() -> None:
    for name, field in (("mmhal", "image_content"), ("wildvision", "claude3_sonnet"), ("charxiv_rq", "grading_query")):
        with pytest.raises(ConfigError, match=f"question 1: its row has no {field}"):
            PROTOCOLS[name].prompt(line(answer="a"))


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("mmvet.txt", "f3e131e1d998"),
        ("mmvet_v2.txt", "037f83092095"),
        ("mmhal.txt", "2c73d8c50f17"),
        ("wildvision.txt", "9359538d8f71"),
        ("wildvision_system.txt", "03f68010febd"),
        ("mmbench_video_system.txt", "11066a3a9e57"),
    ],
)
def test_prompts_are_to_the_letter(name: str, digest: str) -> None:
    assert hashlib.sha256(read_prompt(name).encode()).hexdigest()[:12] == digest


def test_averages_by_hand() -> None:
    assert PROTOCOLS["mmvet"].summarise([0.5, 1.0]) == {"mmvet": 0.75}
    assert PROTOCOLS["mmhal"].summarise([6, 3, 2, 0]) == {"mmhal": 2.75, "hallucination_rate": 0.5}
    # won 2 of 5; reward (100 + 50 + 0 - 50 - 100) / 5
    assert PROTOCOLS["wildvision"].summarise([2, 1, 0, -1, -2]) == {"win_rate": 0.4, "reward": 0.0}
    assert PROTOCOLS["wildvision"].summarise([2, 1])["reward"] == 75.0
    assert PROTOCOLS["mmbench_video"].summarise([3, 1, -1]) == {"mmbench_video": 4 / 3, "valid_only": 2.0}
    assert PROTOCOLS["mmbench_video"].summarise([-1]) == {"mmbench_video": 0.0, "valid_only": 0.0}


def test_tries_are_the_official_ones() -> None:
    assert [one.temperature for one in PROTOCOLS["mmvet"].tries] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert [(one.temperature, bool(one.suffix)) for one in PROTOCOLS["mmvet_v2"].tries] == [
        (0.0, False),
        (0.0, True),
        (0.5, True),
        (1.0, True),
        (1.5, True),
    ]


def test_the_plain_protocol() -> None:
    plain = plain_protocol("0..1")
    asked = plain.prompt({"question": "What?", "prediction": "a cat", "reference": {"answer": ["cat", "kitten"]}})
    assert "scale 0..1" in asked and "Question: What?\nReference: cat; kitten\nAnswer: a cat" in asked
    assert plain.summarise([0.5]) == {"judge": 0.5} and plain.unread is None
