"""Rows of a study."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from internvl_lab.config import SweepConfig
from internvl_lab.errors import ConfigError
from internvl_lab.scaling import Row, expand
from internvl_lab.scaling.rows import find_baseline, format_value, refuse_equal


def labels(axes: dict[str, tuple[Any, ...]]) -> list[str]:
    return [row.label for row in expand(SweepConfig("s", axes))]


def test_one_axis() -> None:
    rows = expand(SweepConfig("encoders", {"model/vision": ("mini/internvit_300m", "mini/internvit_6b")}))
    assert rows == [
        Row("internvit_300m", ("model/vision=mini/internvit_300m",)),
        Row("internvit_6b", ("model/vision=mini/internvit_6b",)),
    ]


def test_product_in_order() -> None:
    rows = expand(SweepConfig("s", {"model/vision": ("a/x", "a/y"), "tiling.max_tiles": (1, 6)}))
    assert [row.label for row in rows] == ["x, max_tiles=1", "x, max_tiles=6", "y, max_tiles=1", "y, max_tiles=6"]
    assert rows[1].overrides == ("model/vision=a/x", "tiling.max_tiles=6")


def test_ambiguous_labels_become_overrides() -> None:
    assert labels({"model/vision": ("mini/x", "full/x")}) == ["model/vision=mini/x", "model/vision=full/x"]


def test_cases_set_several_keys_and_name_the_row() -> None:
    cases = {"scratch": {"recipe": "internvl2_5"}, "reused": {"recipe": "reuse_vit", "++x.y": [1, 2]}}
    sweep = SweepConfig("s", {"encoder": cases, "seed": (1, 2)}, baseline="scratch, seed=1")
    rows = expand(sweep)
    assert [row.label for row in rows] == [
        "scratch, seed=1",
        "scratch, seed=2",
        "reused, seed=1",
        "reused, seed=2",
    ]
    assert rows[2].overrides == ("recipe=reuse_vit", "++x.y=[1,2]", "seed=1")
    assert sweep.keys == {"recipe", "x.y", "seed"}


@pytest.mark.parametrize("cases", [{"a": None}, {"a": "x=1"}, {"a": ["x=1"]}])
def test_a_case_is_a_group_of_overrides(cases: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.axes\.encoder: case 'a' needs a group of overrides"):
        expand(SweepConfig("s", {"encoder": cases}))


@pytest.mark.parametrize("axes", [{"a": ()}, {"a": {}}, {"a": "text"}])
def test_an_axis_needs_values(axes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.axes\.a needs a list"):
        expand(SweepConfig("s", axes))


def test_equal_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="the rows 'seed=1' and 'seed=1' are the same run"):
        labels({"seed": (1, 1)})
    with pytest.raises(ConfigError, match="the rows 'one' and 'two' are the same run"):
        labels({"x": {"one": {"seed": 1}, "two": {"seed": 1}}})


def test_rows_of_one_run_are_refused() -> None:
    """What decides no result (`trainer.strategy`) is not in the key: the second row would get the first one's."""
    rows = [Row("ddp", ("trainer.strategy=ddp",), "k"), Row("fsdp2", ("trainer.strategy=fsdp2",), "k")]
    with pytest.raises(ConfigError, match="the rows 'ddp' and 'fsdp2' are the same run"):
        refuse_equal(rows)
    refuse_equal([rows[0], Row("fsdp2", ("trainer.strategy=fsdp2",), "other")])


def test_no_axes_are_refused() -> None:
    with pytest.raises(ConfigError, match="no axes"):
        expand(SweepConfig("s", {}))


def test_baseline() -> None:
    axes = {"seed": (1, 2)}
    rows = expand(SweepConfig("s", axes, baseline="seed=2"))
    assert find_baseline(rows, "seed=2") == rows[1]
    assert find_baseline(rows, None) == rows[0]
    with pytest.raises(ConfigError, match=r"sweep\.baseline='seed=3'.*seed=1, seed=2"):
        expand(SweepConfig("s", axes, baseline="seed=3"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1e-4, "0.0001"),
        (6, "6"),
        ("mini/x", "mini/x"),
        ("two words", "'two words'"),
        ("it's", "'it\\'s'"),
        ((1, 2), "[1,2]"),
        (["a b", None], "['a b',null]"),
        ({"a": 1, "b": [True]}, "{a:1,b:[true]}"),
    ],
)
def test_values_are_written_as_hydra_reads_them(value: object, text: str) -> None:
    assert format_value(value) == text
    parsed = OverridesParser.create().parse_override(f"k={text}").value()
    assert str(parsed) == str(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(("label", "slug"), [("a, b=1", "a_b_1"), ("x/y z", "x_y_z"), ("..", "row")])
def test_slug(label: str, slug: str) -> None:
    assert Row(label, ()).slug == slug
