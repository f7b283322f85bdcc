"""The tables hold the plan's figures, and are sound Markdown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from internvl_lab.config.compose import compose
from internvl_lab.scaling import expand, plan_row
from internvl_lab.scaling.cost_tables import (
    Section,
    flops_section,
    layout_lines,
    layout_name,
    markdown,
    memory_section,
    print_section,
    stages_section,
    study_section,
    totals_line,
    use_section,
)
from internvl_lab.scaling.memory import Layout


@pytest.fixture(scope="module")
def planned():
    config = compose(["model=internvl2_5_1b", "trainer=gpu", "cost.price_per_gpu_hour=2"])
    return config, plan_row(config)


def test_every_table_has_a_row_a_stage_and_fits_its_columns(planned):
    config, cost = planned
    for section in (stages_section(config, cost), use_section(cost), flops_section(cost)):
        assert [row[0] for row in section.rows] == ["stage1", "stage1_5", "stage2"]
        assert {len(row) for row in section.rows} == {len(section.columns)}


def test_memory_is_shown_for_one_gpu_ddp_and_fsdp2_and_adds_up(planned):
    section = memory_section(planned[0])
    assert "GiB" in section.title
    assert [row[1] for row in section.rows[:3]] == ["1 GPU", "8 x ddp", "8 x fsdp2"]
    for row in section.rows:
        *kinds, total = (float(value.replace(",", "")) for value in row[2:])
        assert sum(kinds) == pytest.approx(total, rel=0.01)


def test_small_models_are_measured_in_mib():
    assert "MiB" in memory_section(compose([])).title


def test_the_lines_say_what_to_ask_for_and_what_it_costs(planned):
    config, cost = planned
    lines = layout_lines(config, cost)
    assert lines[0].startswith("smallest layout that fits h100 (10% of its memory kept free): 1 GPU, ")
    assert lines[1].startswith("  ask for it with: 'recipe.stages.stage2.gradient_checkpointing=[")
    assert layout_lines(compose([]), plan_row(compose([])))[1].endswith("nothing more, it is the configured one")
    line = totals_line(config, [cost])
    assert line.startswith("at most ") and line.endswith("at 2 an hour")
    assert "2 rows: " in totals_line(config, [cost, cost])
    impossible = compose(["model=internvl2_5_78b", "cost.memory_gb=1"])
    assert "no layout of up to 1024 h100 fits" in layout_lines(impossible, plan_row(impossible))[0]


def test_a_study_is_a_row_each():
    config = compose(["experiment=scaling_6b_vit", "scale=mini"])
    rows = expand(config.sweep)
    costs = [plan_row(compose(["scale=mini", *row.overrides])) for row in rows]
    section = study_section(rows, costs)
    assert [row[1] for row in section.rows] == ["internvit_300m", "internvit_6b"]
    assert [row[2] for row in section.rows] == ["1.82M", "2.35M"]
    assert {len(row) for row in section.rows} == {len(section.columns)}


def test_markdown_and_terminal_show_the_same_cells():
    section = Section("title", ("stage", "steps"), [("one", "1"), ("two", "22")])
    text = markdown("head", [section], ["  a line"])
    assert text == "# Plan: head\n\n## title\n\n| stage | steps |\n|---|--:|\n| one | 1 |\n| two | 22 |\n\n- a line\n"
    console = Console(file=io.StringIO(), width=80)
    print_section(section, console)
    shown = console.file.getvalue().split()
    assert [word for word in ("title", "one", "1", "two", "22") if word in shown] == ["title", "one", "1", "two", "22"]


def test_layouts_have_short_names():
    assert [layout_name(Layout()), layout_name(Layout(16, "fsdp2"))] == ["1 GPU", "16 x fsdp2"]
