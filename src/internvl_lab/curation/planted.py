"""A labelled set with planted faults: what the rules are tuned on (one seed) and measured on (another).

    miniworld (pictures) ─────────┐
    planted_clean (texts) ────────┼── shuffle ──> meta.json, NAME.jsonl, images/, labels.jsonl {"key", "fault"}
    faults of answers, boxes, ────┤
    pictures, records; duplicates ┘

Text that looks repetitive and is legitimate makes up most of the clean part, because recall alone is easy.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from internvl_lab.atomic import write_atomic
from internvl_lab.curation.items import dump
from internvl_lab.curation.planted_clean import CHINESE, ENGLISH, Pair
from internvl_lab.curation.planted_faults import ANSWERS
from internvl_lab.curation.planted_words import ADJECTIVES, NOUNS, paragraph
from internvl_lab.data.miniworld.sample import make_sample
from internvl_lab.data.miniworld.vocabulary import TASKS
from internvl_lab.data.transforms import decode_image

LANGUAGES: dict[str, tuple[str, ...]] = {"english": ("latin",)}
"""Scripts expected of the sources: what a user of such data would set."""
NEAR_WORDS = 60
"""Words of the texts that near duplicates are made of."""


@dataclass(frozen=True)
class Size:
    """Say how many records the set holds."""

    texts: int = 1400
    """Clean texts."""
    pictures: int = 800
    """Clean records of miniworld."""
    each: int = 40
    """Records of each fault."""


@dataclass
class Planted:
    """Hold one record of the set."""

    source: str
    record: dict[str, Any]
    images: list[bytes] = field(default_factory=list)
    fault: str = ""
    """Name of the planted fault; empty = clean."""
    line: str | None = None
    """What stands in the file instead of the record."""


def write_planted(out: Path, seed: int, size: Size | None = None) -> dict[str, int]:
    """Write the labelled set of one seed as a meta JSON with its sources, and `labels.jsonl` beside it.

    Returns:
        {"records", "faulty"}.
    """
    out = Path(out)
    lines: dict[str, list[str]] = {}
    labels = []
    for number, planted in enumerate(make_planted(seed, size)):
        names = []
        for i, data in enumerate(planted.images):
            names.append(f"images/{number:05d}-{i}.jpg")
            write_atomic(out / names[-1], data)
        rows = lines.setdefault(planted.source, [])
        rows.append(dump(_with_images(planted.record, names)) if planted.line is None else planted.line)
        labels.append({"key": f"{planted.source}:{len(rows)}", "fault": planted.fault})
    for source, rows in lines.items():
        write_atomic(out / f"{source}.jsonl", "".join(f"{row}\n" for row in rows))
    write_atomic(out / "labels.jsonl", "".join(f"{dump(label)}\n" for label in labels))
    meta = {
        source: {"root": str(out), "annotation": str(out / f"{source}.jsonl"), "length": len(rows)}
        for source, rows in sorted(lines.items())
    }
    write_atomic(out / "meta.json", json.dumps(meta, indent=1) + "\n")
    return {"records": len(labels), "faulty": sum(bool(label["fault"]) for label in labels)}


def make_planted(seed: int, size: Size | None = None) -> list[Planted]:
    """Make the labelled set of one seed, in the order of the files."""
    size = size or Size()
    rng = Random(f"{seed}/order")
    clean = [*_clean_texts(seed, size.texts), *_clean_pictures(seed, size.pictures)]
    faulty = [planted for make in _FAULTS for planted in make(seed, size.each)]
    records = clean + faulty
    rng.shuffle(records)
    for copy in _duplicates(
        seed, size.each, records
    ):  # behind their originals, because the first of its kind is no fault
        records.append(copy)
    return records


def _texts(source: str, makers: tuple[Callable[[Random], Pair], ...], number: int, seed: int) -> Iterator[Planted]:
    """Draw `number` clean texts, the makers in turns: no conversation twice, one in four with two turns."""
    seen: set[Pair] = set()
    for i in range(number):
        maker = makers[i % len(makers)]
        rng = Random(f"{seed}/{maker.__name__}/{i}")
        pair = maker(rng)
        while pair in seen:
            pair = maker(rng)
        seen.add(pair)
        more = maker(rng) if i % 4 == 3 else ()
        yield Planted(source, _conversation(*pair, *more))


def _clean_texts(seed: int, number: int) -> Iterator[Planted]:
    chinese = number // 8
    yield from _texts("english", ENGLISH, number - chinese, seed)
    yield from _texts("chinese", CHINESE, chinese, seed)


def _clean_pictures(seed: int, number: int) -> Iterator[Planted]:
    """Take samples of miniworld; text-only questions that come twice there would be duplicates here."""
    tasks = [task for task in TASKS if task != "text_only"]
    for i in range(number):
        yield _picture(seed, i, tasks[i % len(tasks)])


def _picture(seed: int, index: int, task: str) -> Planted:
    sample = make_sample("finetune", index, seed, task)
    record: dict[str, Any] = {
        name: sample.record[name] for name in ("id", "conversations", "image", "video") if name in sample.record
    }
    return Planted("miniworld", record, [data for _, data in sample.images])


def _fresh_picture(seed: int, fault: str, i: int, task: str | None = None) -> Planted:
    """Take a sample of miniworld that the clean part does not hold."""
    tasks = [name for name in TASKS if name not in ("text_only", "video", "multi_image")]
    planted = _picture(seed + 1_000_003, 97 * i + sum(map(ord, fault)), task or tasks[i % len(tasks)])
    planted.fault = fault
    return planted


def _conversation(*texts: str) -> dict[str, Any]:
    """Put questions and answers in turns."""
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]}


def _with_images(record: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Name the image files in the record; a fault may have put other names there."""
    if not names or "missing" in str(record.get("image", "")):
        return record
    return (
        {**record, "video": names} if "video" in record else {**record, "image": names if len(names) > 1 else names[0]}
    )


def _answer_faults(seed: int, number: int) -> Iterator[Planted]:
    for maker in ANSWERS:
        for i in range(number):
            rng = Random(f"{seed}/{maker.__name__}/{i}")
            source = "chinese" if maker.__name__.endswith("_chinese") else "english"
            yield Planted(source, _conversation(*maker(rng)), fault=maker.__name__)


def _box_faults(seed: int, number: int) -> Iterator[Planted]:
    """Break the boxes of grounding answers in nine ways."""
    for i in range(number):
        rng = Random(f"{seed}/boxes/{i}")
        noun = rng.choice(NOUNS)
        x1, y1, x2, y2 = rng.randint(0, 400), rng.randint(0, 400), rng.randint(500, 999), rng.randint(500, 999)
        broken = (
            f"<ref>{noun}</ref><box>[[{x1}, {y1}, {x2}, {y2}]]",
            f"<ref>{noun}<box>[[{x1}, {y1}, {x2}, {y2}]]</box>",
            f"<ref>{noun}</ref><box>[[{x1}, {y1}, {x2 + 1000}, {y2}]]</box>",
            f"<ref>{noun}</ref><box>[[{x2}, {y1}, {x1}, {y2}]]</box>",
            f"<ref>{noun}</ref><box>[[{x1}, {y1}, {x2}]]</box>",
            f"<ref>{noun}</ref><box>[[0.{x1}, 0.{y1}, 0.{x2}, 0.{y2}]]</box>",
            f"<ref></ref><box>[[{x1}, {y1}, {x2}, {y2}]]</box>",
            f"<ref>{noun}</ref><box>[{x1}, {y1}, {x2}, {y2}]</box>",
            f"<ref>{noun}</ref><box></box>",
        )
        answer = f"{broken[i % len(broken)]} {'' if i % 2 else paragraph(rng, 1, 2)}".strip()
        question = f"Where is the {rng.choice(ADJECTIVES)} {noun}?"
        yield Planted("english", _conversation(question, answer), fault="boxes")


def _blank_images(seed: int, number: int) -> Iterator[Planted]:
    """Replace the picture by one colour, with the noise of a sensor or of JPEG."""
    for i in range(number):
        planted = _fresh_picture(seed, "blank_image", i)
        rng = np.random.default_rng((seed, i))
        noise = rng.integers(-2, 3, (rng.integers(60, 400), rng.integers(60, 400), 3))
        pixels = np.clip(rng.integers(0, 256, 3) + noise * rng.integers(0, 2), 0, 255).astype(np.uint8)
        planted.images = [_jpeg(Image.fromarray(pixels), int(rng.integers(40, 96)))]
        yield planted


def _unreadable_images(seed: int, number: int) -> Iterator[Planted]:
    """Cut the file, empty it, put a web page in its place, or name one that is not there."""
    for i in range(number):
        planted = _fresh_picture(seed, "unreadable_image", i)
        data = planted.images[0]
        planted.images = [(data[: len(data) // 2], b"", b"<!doctype html><title>404</title>", data)[i % 4]]
        if i % 4 == 3:
            planted.record["image"] = f"images/missing-{i}.jpg"
        yield planted


def _image_counts(seed: int, number: int) -> Iterator[Planted]:
    """Ask for more pictures than there are."""
    for i in range(number):
        planted = _fresh_picture(seed, "image_count", i)
        first = planted.record["conversations"][0]
        first["value"] = "<image>\n" * (2 + i % 2) + first["value"].replace("<image>\n", "")
        yield planted


def _malformed(seed: int, number: int) -> Iterator[Planted]:
    """Break the record itself."""
    for i in range(number):
        rng = Random(f"{seed}/malformed/{i}")
        record = _conversation(paragraph(rng, 1, 1), paragraph(rng, 1, 3))
        turns = record["conversations"]
        lines = (
            dump(record)[: -rng.randint(2, 30)],
            dump({"id": i, "text": turns[1]["value"]}),
            dump({"conversations": [turns[0], {"from": "gpt", "value": ""}]}),
            dump({"conversations": [turns[0], {"from": "assistant", "value": turns[1]["value"]}]}),
            dump({"conversations": [turns[0], {"from": "gpt", "value": None}]}),
            dump([turns]),
        )
        yield Planted("english", record, fault="malformed", line=lines[i % len(lines)])


def _duplicates(seed: int, number: int, records: list[Planted]) -> Iterator[Planted]:
    """Copy clean records: exactly, with small changes of the text, with the picture saved again."""
    rng = Random(f"{seed}/duplicates")
    texts = [p for p in records if not p.fault and not p.images]
    long = [p for p in texts if p.source == "english" and len(_answer(p).split()) >= NEAR_WORDS]
    long = [p for p in long if _answer(p).isprintable() and len(p.record["conversations"]) == 2]
    pictures = [p for p in records if not p.fault and len(p.images) == 1]
    for original in rng.sample(texts, number) + rng.sample(pictures, number):
        yield Planted(original.source, original.record, original.images, "exact_duplicate")
    for original in rng.sample(long, number):
        question = original.record["conversations"][0]["value"]
        yield Planted("english", _conversation(question, _edited(_answer(original), rng)), fault="near_duplicate")
    for original in rng.sample(pictures, number):
        image = decode_image(original.images[0], "planted")
        scale = rng.uniform(0.8, 1.25)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        saved = _jpeg(image, rng.randint(50, 95))
        yield Planted(original.source, original.record, [saved], "near_duplicate_image")


def _answer(planted: Planted) -> str:
    return str(planted.record["conversations"][-1]["value"])


def _edited(text: str, rng: Random) -> str:
    """Change two words, the case of some and the spaces."""
    words = text.split()
    for _ in range(2):
        words[rng.randrange(len(words))] = rng.choice(NOUNS)
    words = [word.upper() if rng.random() < 0.05 else word for word in words]
    return "  ".join(words) if rng.random() < 0.5 else " ".join(words)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


_FAULTS: tuple[Callable[[int, int], Iterator[Planted]], ...] = (
    _answer_faults,
    _box_faults,
    _blank_images,
    _unreadable_images,
    _image_counts,
    _malformed,
)
