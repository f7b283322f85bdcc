"""All seven published sizes, as their configs compose them, to the parameter. Source: spec section 1.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.cli import main
from internvl_lab.cli.sizes import PUBLISHED
from internvl_lab.config.compose import compose

PARTS = ("vision", "projector", "language", "total")
COUNTS = {
    "1b": (304_012_288, 4_482_816, 629_697_920, 938_193_024),
    "2b": (304_012_288, 12_595_200, 1_889_146_880, 2_205_754_368),
    "4b": (304_012_288, 12_595_200, 3_396_030_464, 3_712_637_952),
    "8b": (304_012_288, 33_570_816, 7_737_782_272, 8_075_365_376),
    "26b": (5_536_496_000, 116_429_824, 19_861_260_288, 25_514_186_112),
    "38b": (5_536_496_000, 91_786_240, 32_759_882_752, 38_388_164_992),
    "78b": (5_536_496_000, 172_008_448, 72_699_813_888, 78_408_318_336),
}


def test_the_command_counts_every_size(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    assert main(["sizes", "--json", str(path)]) == 0
    assert json.loads(path.read_text()) == {size: dict(zip(PARTS, n, strict=True)) for size, n in COUNTS.items()}


def test_the_report_rounds_the_same_counts() -> None:
    assert {size: round(counts[-1] / 1e9, 1) for size, counts in COUNTS.items()} == PUBLISHED


def test_without_a_file_the_table_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizes"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{counts[-1]:,}" in shown for counts in COUNTS.values())
    assert "report" in shown


def test_a_size_brings_its_scale_along() -> None:
    config = compose(["model=internvl2_5_26b"])
    assert config.tiling.tile_size == config.model.vision.image_size == 448
    assert (config.model.vision.name, config.model.language.name) == ("internvit_6b", "internlm2_5_20b")
    assert config.model.language.rope_theta == 5e7
    assert config.model.language.rope_scaling_factor == 2.5
