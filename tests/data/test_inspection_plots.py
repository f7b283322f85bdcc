"""The histograms: one PNG each, weighted by repeat, with every sample in a bar."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from internvl_lab.data import inspection_plots as plots
from internvl_lab.data.inspection import Inspection, inspect_stage
from internvl_lab.data.loader import PackDataset


@pytest.fixture
def inspection(dataset: PackDataset) -> Inspection:
    return inspect_stage(dataset, "stage1", "pretrain", 12, 0)


def test_one_picture_each(inspection: Inspection) -> None:
    pictures = plots.draw_histograms(inspection)
    assert set(pictures) == {"tokens", "tiles", "pack_fill", "aspect_ratios"}
    for data in pictures.values():
        assert Image.open(io.BytesIO(data)).size == (960, 504)
    text = replace(inspection, aspect_ratios=np.zeros(0), aspect_repeat=np.zeros(0))
    assert set(plots.draw_histograms(text)) == {"tokens", "tiles", "pack_fill"}


@pytest.mark.parametrize(
    ("draw", "total"), [(plots._draw_tokens, 250.0), (plots._draw_tiles, 250.0), (plots._draw_ratios, 375.0)]
)
def test_every_sample_is_in_a_bar_as_often_as_it_comes(
    inspection: Inspection, draw: Callable[..., None], total: float
) -> None:
    often = np.full(len(inspection.aspect_ratios), 2.5)
    axes = Figure().add_subplot()
    draw(axes, replace(inspection, repeat=np.full(100, 2.5), aspect_repeat=often))
    bars = [bar for container in axes.containers for bar in container]
    assert sum(bar.get_height() for bar in bars) == pytest.approx(total)


def test_fill_says_its_means(inspection: Inspection) -> None:
    axes = Figure().add_subplot()
    plots._draw_fill(axes, inspection)
    tokens, tiles = (text.get_text() for text in axes.get_legend().get_texts())
    assert tokens == f"tokens {inspection.fill.summary['token_fill']:.1%}"
    assert tiles == f"tiles {inspection.fill.summary['tile_fill']:.1%}"
    assert axes.get_xlim() == (0, 1)


def test_kinds_that_do_not_occur_have_no_entry(inspection: Inspection) -> None:
    axes = Figure().add_subplot()
    images = replace(inspection, kind=np.ones(100, np.int8))
    plots._draw_tokens(axes, images)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one image"]


def test_ratios_are_symmetric_around_squares(inspection: Inspection) -> None:
    axes = Figure().add_subplot()
    plots._draw_ratios(axes, replace(inspection, aspect_ratios=np.array([0.2, 1.0, 1.0]), aspect_repeat=np.ones(3)))
    low, high = axes.get_xlim()
    assert low * high == pytest.approx(1) and low < 0.2
    assert max(axes.containers[0], key=lambda bar: bar.get_height()).get_height() == 2
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1:4", "1:2", "2:3", "1:1", "3:2", "2:1", "4:1"]
