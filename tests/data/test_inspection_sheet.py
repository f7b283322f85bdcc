"""The contact sheet: the text as encoded, the supervised part marked, every tile in its place."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from internvl_lab.data import inspection_sheet as sheet
from internvl_lab.data.inspection import ShownSample, inspect_stage
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.plan import Plan
from internvl_lab.data.sheet import OUTLINE
from internvl_lab.text import ChatTemplate


@pytest.fixture
def shown(dataset: PackDataset) -> dict[str, ShownSample]:
    """One sample of each kind."""
    samples = inspect_stage(dataset, "s", "m", 24, 4).shown
    return {sample.kind: sample for sample in samples}


def test_spans_are_the_conversation_with_the_answer_marked(
    shown: dict[str, ShownSample], template: ChatTemplate
) -> None:
    spans = sheet.read_spans(shown["several images"], template)
    assert "".join(span.text for span in spans).startswith("<|im_start|>user\n<img><IMG_CONTEXT>*")
    (answer,) = (span.text for span in spans if span.supervised)
    assert answer.startswith("a red square") and answer.endswith("<|im_end|>")
    assert spans[-1] == sheet.Span("\n", False)
    assert spans[0].text.count("</img>") == 2 and spans[0].text.endswith("<|im_start|>assistant\n")


def test_lines_keep_to_the_width_and_lose_nothing(shown: dict[str, ShownSample], template: ChatTemplate) -> None:
    long = [sheet.Span("word " * 50 + "x" * 300 + "\n\nend", False), sheet.Span("so 红色 be it", True)]
    for spans in (long, sheet.read_spans(shown["video"], template)):
        lines = sheet.wrap_spans(spans, 300)
        assert all(sum(sheet._font_of(span.text).getlength(span.text) for span in line) <= 300 for line in lines)
        text = "".join(span.text for line in lines for span in line)
        assert text == "".join(span.text for span in spans).replace("\n", sheet.NEWLINE)
        assert {span.supervised for line in lines for span in line} == {True, False}


def test_names_of_tiles() -> None:
    assert sheet._tile_names((3,), True) == [("1", False), ("2", False), ("3", True)]
    assert sheet._tile_names((1, 1), True) == [("1", False), ("2", False)]
    assert sheet._tile_names((3, 1), False) == [("1.1", False), ("1.2", False), ("1.3", False), ("2.1", False)]
    assert sheet._tile_names((1, 3), True)[-1] == ("2.3", True)
    assert sheet._tile_names((), True) == []


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in picture.getcolors(1 << 24)}


def test_tiles_are_drawn_in_order(shown: dict[str, ShownSample]) -> None:
    sample = shown["several images"]
    colour_of = [(10 * i, 255 - 10 * i, 100) for i in range(sample.batch.num_tiles)]
    for i, colour in enumerate(colour_of):
        sample.batch.pixel_values[i] = sample.batch.pixel_values.new_tensor(colour)[:, None, None]
    strip = sheet._draw_tiles(sample)
    assert strip is not None
    pixels = np.asarray(strip).astype(int)
    centres = [np.argwhere((pixels == colour).all(-1)).mean(0) for colour in colour_of]
    per_row = sheet.FEW if len(centres) <= sheet.FEW else sheet.MANY
    for i, (top, left) in enumerate(centres):
        edge = (strip.width + sheet.GAP) / per_row
        assert left // edge == i % per_row and top // (strip.height / -(-len(centres) // per_row)) == i // per_row


def test_more_tiles_than_are_drawn_are_counted(shown: dict[str, ShownSample]) -> None:
    video = shown["video"]
    many = video.batch.pixel_values[:1].repeat(40, 1, 1, 1)
    video.batch.pixel_values = many
    strip = sheet._draw_tiles(ShownSample("s", "video", "x", video.batch, (1,) * 40, False))
    assert strip is not None
    rows = sheet.MAX_TILES // sheet.MANY
    assert strip.height == rows * ((strip.width - 6 * sheet.GAP) // sheet.MANY + sheet.LINE_HEIGHT)


def test_a_sheet_marks_answers_frames_thumbnails_and_is_a_grid(
    make_plan: Callable[..., Plan], kit: SimpleNamespace, template: ChatTemplate, shown: dict[str, ShownSample]
) -> None:
    picture = sheet.draw_sheet(list(shown.values()), template)
    assert picture.width == sheet.COLUMNS * sheet.CELL_WIDTH
    assert {sheet.GREEN, OUTLINE} <= colours(picture)
    one = shown["one image"]
    thumbnail = one.thumbnails and one.tiles_per_image[0] > 1
    assert (sheet.BLUE in colours(sheet.draw_sheet([one], template))) == thumbnail
    assert sheet.BLUE not in colours(sheet.draw_sheet([shown["text"], shown["video"]], template))
    with pytest.raises(ValueError, match="at least one"):
        sheet.draw_sheet([], template)


def test_long_texts_show_their_ends() -> None:
    lines = [[sheet.Span(str(i), False)] for i in range(50)]
    short = sheet._shorten(lines)
    assert len(short) == sheet.MAX_LINES and short[0] == lines[0] and short[-1] == lines[-1]
    assert short[sheet.MAX_LINES // 2][0].text == "… 37 lines …"
    assert sheet._shorten(lines[: sheet.MAX_LINES]) == lines[: sheet.MAX_LINES]


def test_long_keys_keep_their_end() -> None:
    assert sheet._cut("a/b") == "a/b"
    assert sheet._cut("x" * 100 + "end").endswith("end") and len(sheet._cut("x" * 103)) == 74
