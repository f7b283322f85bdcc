import json
import logging

import pytest

from internvl_lab.cli import main

SMALL = ["debug=tiny", "init_from={vision: null, projector: null, language: null}"]


def inspect(*overrides):
    return main(["inspect", *SMALL, *overrides])


def test_files_numbers_and_tables(tmp_path, capsys, caplog):
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO):
        assert inspect(f"paths.data_dir={tmp_path}/data", f"out={out}") == 0
    names = {"contact_sheet.png", "tokens.png", "tiles.png", "pack_fill.png", "aspect_ratios.png"}
    assert {path.name for path in out.iterdir()} == names | {"inspect.md", "inspect.json"}
    numbers = json.loads((out / "inspect.json").read_text())
    assert (numbers["stage"], numbers["mixture"]) == ("stage2", "finetune")
    assert numbers["sources"]["finetune"]["used"] == 66 == numbers["totals"]["samples"]
    assert sum(kind["token_share"] for kind in numbers["kinds"].values()) == pytest.approx(1)
    assert 0 < numbers["fill"]["efficiency"] <= 1
    assert len(numbers["shown"]) == len(set(numbers["shown"])) == 12
    report = (out / "inspect.md").read_text()
    assert all(f"({name})" in report for name in names)
    printed = capsys.readouterr().out
    assert "stage2 (of stage1, stage1_5, stage2; stage=NAME shows another): mixture finetune" in printed
    assert f"{numbers['totals']['tokens']:,.0f}" in printed and "video" in printed
    assert "inspect.md" in caplog.text


def test_another_stage_two_sources_and_what_is_left_out(tmp_path, capsys):
    out = tmp_path / "out"
    overrides = ["stage=stage1", "packing.max_tiles=5", f"paths.data_dir={tmp_path}/data", f"out={out}"]
    again = "+data.mixtures.pretrain.again={shards: 'miniworld:pretrain', repeat: 0.5}"
    assert main(["inspect", "--samples", "0", *SMALL, *overrides, again]) == 0
    numbers = json.loads((out / "inspect.json").read_text())
    assert (numbers["stage"], numbers["mixture"], numbers["shown"]) == ("stage1", "pretrain", [])
    first, second = numbers["sources"]["pretrain"], numbers["sources"]["again"]
    assert first["share"]["tokens"] == pytest.approx(2 * second["share"]["tokens"])
    left_out = first["skipped"]["over_max_tiles"]
    assert left_out > 0 and first["used"] + left_out == first["found"] == 66
    assert len((out / "skipped.jsonl").read_text().splitlines()) == 2 * left_out
    assert "over_max_tiles" in (out / "inspect.md").read_text()
    assert "all" in capsys.readouterr().out
    assert not (out / "contact_sheet.png").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "inspect needs one out=DIR"),
        (["out="], "inspect needs one out=DIR"),
        (["out=a", "out=b"], "inspect needs one out=DIR"),
        (["out=a", "foo=1"], "unknown key 'foo'"),
        (["out=a", "--samples", "-1"], "--samples must be at least 0"),
        (
            ["out=a", "data/mixture=nope"],
            "unknown choice 'data/mixture/nope'; choices in data/mixture: folders, intern",
        ),
    ],
)
def test_one_clear_line(overrides, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *overrides]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_a_source_without_shards_says_which_key_to_set(tmp_path, capsys):
    overrides = ["data/mixture=internvl2_5", f"paths.data_dir={tmp_path}", f"out={tmp_path}/out"]
    assert main(["inspect", *overrides, "data.miniworld=null"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: stage stage2: 22 of 22 sources have no shards: set data.mixtures.finetune.captioning."
    )
    assert len(error.splitlines()) == 1
