"""Turn a benchmark's rows into questions: the prompt with its suffix, the options, the reference of the metric.

::

    Row ─ fields renamed ─ options found ─ prompt filled in ─> Item(turns, load_images, reference)

Named parts of prompts stand here once; the YAML files use them as {short} and {choose}. Source: spec section 11.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from internvl_lab.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_lab.data.transforms import decode_image
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.benchmark import JUDGED, Benchmark
from internvl_lab.evaluation.metrics.pairs import LETTERS, options_of
from internvl_lab.evaluation.readers import Row, read_rows, read_video
from internvl_lab.evaluation.readers.row import as_list
from internvl_lab.inference.processor import place_images
from internvl_lab.text.template import Turn

SHORT = "Answer the question using a single word or phrase."
CHOOSE = "Answer with the option's letter from the given choices directly."
CHOOSE_ZH = "请直接回答选项字母。"
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_BILINEAR = Image.Resampling.BILINEAR
_OPTION_LABEL = re.compile(r"^\(?([A-Z])[).:]\s+")


@dataclass(frozen=True)
class Item:
    """Hold one question of any benchmark; its pictures stay on disk until asked for."""

    key: str
    question: str
    """Text with the benchmark's suffix, without placeholders of images."""
    reference: Any
    """What the metric compares with: str, list or dict; only what JSON can hold."""
    load_images: Callable[[], list[Image.Image]]
    """Read and decode the pictures or frames (RGB); raises SampleError."""
    is_video: bool = False
    turns: tuple[Turn, ...] = ()
    """The conversation, where it is more than the question."""

    def prompt(self, num_images: int) -> tuple[Turn, ...]:
        """Return the conversation with a placeholder for each picture."""
        return self.turns or (Turn("human", place_images(self.question, num_images, self.is_video)),)


def build_items(benchmark: Benchmark, data: Path, limit: int | None = None) -> list[Item]:
    """Read a benchmark's questions in the order of its files.

    Args:
        benchmark: says where and how.
        data: folder with the benchmarks' files.
        limit: only the first so many.
    Raises:
        ConfigError: a file is missing or broken, no row is left, or none has a question.
    """
    items: list[Item] = []
    seen: Counter[str] = Counter()
    for fields, row in _rows(benchmark, data):
        if limit is not None and len(items) >= limit:
            break
        key = str(fields.get("id", fields.get("index", len(items))))
        seen[key] += 1
        if seen[key] > 1:  # several questions about one picture may share its id
            key = f"{key}#{seen[key]}"
        items.append(_build_item(benchmark, fields, row, key, data))
    if not items:
        raise ConfigError(f"{benchmark.name}: no question is left in {', '.join(benchmark.files)}")
    if not any(item.question for item in items):
        raise ConfigError(f"{benchmark.name}: no row has a question; the last one's fields are {', '.join(fields)}")
    return items


def _rows(benchmark: Benchmark, data: Path) -> Iterator[tuple[dict[str, Any], Row]]:
    """Yield (renamed fields, row) of all files, without the rows that `where` leaves out."""
    files = benchmark.find_files(data)
    answers = _read_answers(data / benchmark.answers) if benchmark.answers else {}
    for path in files:
        for row in read_rows(path, data):
            fields = {**row.fields, "file": path.stem, **benchmark.constants}
            for ours, theirs in benchmark.fields.items():
                if theirs in row.fields:
                    fields[ours] = row.fields[theirs]
            if answers:
                fields["answer"] = answers.get(_question_id(fields))
            if all(str(fields.get(name)) == value for name, value in benchmark.where.items()):
                yield fields, row


def _read_answers(path: Path) -> dict[str, Any]:
    """Read the answers of an annotation file by question."""
    rows = (row.fields for row in read_rows(path, path.parent))
    return {_question_id(fields): fields.get("answers", fields.get("answer")) for fields in rows}


def _question_id(fields: Mapping[str, Any]) -> str:
    return str(fields.get("question_id", fields.get("questionId", fields.get("id"))))


def _build_item(benchmark: Benchmark, fields: dict[str, Any], row: Row, key: str, data: Path) -> Item:
    """Build one question."""
    options = read_options(fields)
    # a suffix alone is no question: `answering.check_item` leaves it out, and counts it
    is_empty = "question" not in benchmark.constants and not _question(fields)
    question = "" if is_empty else fill_prompt(benchmark, fields, options)
    if benchmark.num_frames:
        load: Callable[[], list[Image.Image]] = partial(_load_frames, benchmark, fields, key, data)
    else:
        load = partial(_load_images, row, key, benchmark.upscale_first)
    return Item(key, question, build_reference(benchmark, fields, options), load, bool(benchmark.num_frames))


def read_options(fields: Mapping[str, Any]) -> dict[str, str]:
    """Read the options of a row as letter -> text, without the labels that some files write before them."""
    given = fields.get("options", fields.get("candidates"))
    if isinstance(given, str) and not given.startswith(("[", "{")):  # MMIU: one option a line
        given = [line.strip() for line in given.splitlines() if line.strip()]
    elif isinstance(given, str):
        given = as_list(given) if given.startswith("[") else given
    if isinstance(given, Mapping) and {"text", "label"} <= set(given):  # ARC
        given = dict(zip(given["label"], given["text"], strict=True))
    source = {"options": given} if given is not None else fields
    options = options_of(source)
    labelled = {letter: _OPTION_LABEL.match(text) for letter, text in options.items()}
    if options and all(match and match[1] == letter for letter, match in labelled.items()):
        return {letter: _OPTION_LABEL.sub("", text) for letter, text in options.items()}
    return options


def fill_prompt(benchmark: Benchmark, fields: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """Fill in the prompt of a row; `<image>` inside a question becomes `Image-1` and so on.

    Raises:
        ConfigError: the prompt names a field that the row lacks.
    """
    template = benchmark.open_prompt if benchmark.open_prompt and not options else benchmark.prompt
    question = _question(fields)
    hint = fields.get("hint")
    parts = {
        **{name: _as_text(value) for name, value in fields.items()},
        "question": number_images(question),
        "hint": f"{hint}\n" if hint else "",
        "options": "\n".join(f"{letter}. {text}" for letter, text in options.items()),
        "bracketed_options": "\n".join(f"({letter}) {text}" for letter, text in options.items()),
        "instruction": benchmark.instructions.get(str(fields.get("file")), ""),
        "short": SHORT,
        "choose": CHOOSE_ZH if _CHINESE.search(question) else CHOOSE,
    }
    try:
        return template.format(**parts).strip()
    except KeyError as error:
        raise ConfigError(f"{benchmark.name}: the prompt names {error}, which no row has") from error


def _question(fields: Mapping[str, Any]) -> str:
    question = fields.get("question")
    return "" if question is None else str(question).strip()


def _as_text(value: Any) -> str:
    """Return a field as a prompt shows it; lists of texts line by line."""
    is_texts = isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value)
    return "\n".join(value) if is_texts else str(value)


def number_images(question: str) -> str:
    """Replace `<image>` inside a question by `Image-1` and so on, because the pictures are all put before it."""
    count = 0

    def number(_: re.Match[str]) -> str:
        """Name the next picture."""
        nonlocal count
        count += 1
        return f"Image-{count}"

    lead = re.sub(rf"^(?:{IMAGE_PLACEHOLDER}\s*)+", "", question)
    return re.sub(IMAGE_PLACEHOLDER, number, lead).replace(VIDEO_PLACEHOLDER, "")


def build_reference(benchmark: Benchmark, fields: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """Collect what a metric may ask for: the row's short fields, its options, its answers.

    A choice whose answer is a number is an index into the options, 0 or `first_index` for the first.
    """
    # a judge and a server read whole texts
    keep = _is_text if benchmark.metric == JUDGED or benchmark.submission else _is_small
    kept = {name: v for name, v in fields.items() if name == "choices" or (name not in LETTERS and keep(v))}
    answer = _read_answer(benchmark, fields.get("answer", fields.get("answers")), options)
    for name in ("answer", "answers", "options", "candidates"):
        kept.pop(name, None)
    if answer is not None:
        kept["answer"] = answer
    if options:
        kept["options"] = dict(options)
    return kept


def _read_answer(benchmark: Benchmark, answer: Any, options: Mapping[str, str]) -> str | list[str] | None:
    """Return the right answer or answers as text; a number that counts options becomes a letter."""
    if isinstance(answer, str) and answer.startswith("["):
        answer = as_list(answer) or answer
    if isinstance(answer, (list, tuple)):
        return [str(one.get("answer", one) if isinstance(one, Mapping) else one) for one in answer]
    if answer is None:
        return None
    text = str(answer)
    if benchmark.answer_pattern and (match := re.search(benchmark.answer_pattern, text)):
        return match[1]
    is_text = text in options.values() and isinstance(answer, str)
    number = int(text) - benchmark.first_index if text.isdecimal() and not is_text else -1
    return LETTERS[number] if 0 <= number < len(options) else text


def _is_small(value: Any) -> bool:
    """Say whether a field is worth keeping beside every prediction: numbers, short texts, short lists of these."""
    if isinstance(value, (list, tuple)):
        return len(value) <= 16 and all(isinstance(one, (str, int, float)) for one in value)
    return isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 256)


def _is_text(value: Any) -> bool:
    """Say whether JSON can hold a field: a number, a text, or a list of these."""
    return isinstance(value, (str, int, float)) or (isinstance(value, list) and all(map(_is_text, value)))


def _load_images(row: Row, key: str, upscale_first: bool) -> list[Image.Image]:
    """Decode the images of a row."""
    images = [decode_image(data, key) for data in row.load_images()]
    return double_first(images) if upscale_first else images


def double_first(images: list[Image.Image]) -> list[Image.Image]:
    """Double the edges of the first image. Source: VLMEvalKit, `load_image(upscale=True)`, on MMMU."""
    return [image.resize((2 * image.width, 2 * image.height), _BILINEAR) for image in images[:1]] + images[1:]


def _load_frames(benchmark: Benchmark, fields: Mapping[str, Any], key: str, data: Path) -> list[Image.Image]:
    """Read the frames of a row's video."""
    name = str(fields.get("video", fields.get("video_path", "")))
    if not name:
        raise SampleError(key, "missing_file", "the row names no video")
    start, end = fields.get("start"), fields.get("end")
    try:
        bound = None if start is None or end is None else (float(start), float(end))
    except (TypeError, ValueError) as error:
        raise SampleError(key, "broken_time", f"start {start!r} and end {end!r} are no seconds") from error
    folder = data / benchmark.videos.format(**fields)
    path = folder / name
    if not path.exists():  # names without a suffix, as in Video-MME
        path = next(iter(sorted(folder.glob(f"{name}.*"))), path)
    return read_video(path, key, benchmark.num_frames, bound)
