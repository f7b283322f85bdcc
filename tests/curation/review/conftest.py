"""Fixtures of the review tests: an output folder of `curate` with flagged samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title="owned"</script>'


def entry(key: str, answer: str, rule: str, images: list[str], question: str = "Describe the image.") -> dict[str, Any]:
    turns = [{"from": "human", "value": ("<image>\n" if images else "") + question}, {"from": "gpt", "value": answer}]
    verdicts = [
        {"rule": rule, "score": 0.62, "threshold": 0.4, "rejected": True, "detail": "found: " + answer[:40]},
        {"rule": "sentence_length", "score": 12.0, "threshold": 400.0, "rejected": False, "detail": ""},
    ]
    record = {"id": key, "conversations": turns}
    return {
        "key": key,
        "source": key.split(":", maxsplit=1)[0],
        "record": record,
        "verdicts": verdicts,
        "images": images,
    }


def draw(path: Path) -> None:
    """Paint a simple scene."""
    picture = Image.new("RGB", (480, 320), "#f2efe6")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((60, 60, 200, 200), fill="#c0362c")
    pen.rectangle((260, 110, 420, 260), outline="#2456a6", width=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with four flagged samples: a loop, digits, Chinese, hostile text with a missing image."""
    out = tmp_path / "out"
    draw(out / "images" / "scene.png")
    samples = [
        entry(
            "web:1",
            "A red disc. " + "The picture shows a red disc and a blue frame. " * 9,
            "loop",
            [
                "images/scene.png",
            ],
        ),
        entry("web:2", "The value is 0." + "0" * 300, "zero_run", [], "What is the value?"),
        entry("zh:3", "图中有一个红色的圆和一个蓝色的方框。" * 8, "loop", [str(out / "images" / "scene.png")]),
        entry(f"web:{HOSTILE}", HOSTILE, "html", ["/etc/hostname"], HOSTILE),
    ]
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    (out / "flagged.jsonl").write_text("".join(lines), encoding="utf-8")
    return out
