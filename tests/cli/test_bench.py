from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.cli import bench, parse
from internvl_lab.errors import ConfigError


def run(*arguments: str) -> None:
    bench.execute(parse(["bench", *arguments]))


def test_step_shows_the_table_and_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "step.json"
    limits = ("--samples", "4", "--pack-tokens", "80", "--pack-tiles", "5", "--batch-size", "3")
    choices = ("--precision", "bf16-mixed", "--attention", "dense", "--checkpointing", "full")
    run("step", "--size", "tiny", *limits, *choices, "--repeats", "1", "--seed", "5", "--json", str(file))
    content = json.loads(file.read_text())
    assert content["ratios"].keys() == content["peers"].keys() == {"padded", "length_sorted", "hf_packed", "recipe"}
    expected = {"samples": 4, "seed": 5, "pack_tokens": 80, "pack_tiles": 5, "batch_size": 3}
    expected |= {"precision": "bf16-mixed", "attention": "dense", "compiled": False}
    assert {name: content["setting"][name] for name in expected} == expected
    assert content["ours"]["recomputes"] == "vision+language"
    shown = capsys.readouterr().out
    assert "hf_packed" in shown
    assert "ours / peer" in shown


def test_head_takes_its_sizes_from_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "head.json"
    sizes = ("--rows", "32", "--vocab-size", "60", "--hidden-size", "8", "--supervised", "0.5", "--dtype", "bfloat16")
    run("head", *sizes, "--repeats", "2", "--json", str(file))
    setting = json.loads(file.read_text())["setting"]
    assert [setting[k] for k in ("rows", "vocab_size", "hidden_size", "supervised_share")] == [32, 60, 8, 0.5]
    assert (setting["dtype"], setting["repeats"]) == ("bfloat16", 2)
    assert "naive" in capsys.readouterr().out


def test_attention_takes_its_sizes_from_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "attention.json"
    run("attention", "--tokens", "64", "--samples", "4", "--head-size", "8", "--repeats", "1", "--json", str(file))
    content = json.loads(file.read_text())
    assert [content["setting"][k] for k in ("tokens", "samples", "head_size", "ours")] == [64, 4, 8, "sdpa_docs"]
    assert content["peers"].keys() == content["ratios"].keys() == {"dense", "padded"}
    assert "padded" in capsys.readouterr().out


def test_packing_reports_packs_that_anyone_can_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, file = tmp_path / "pairs.json", tmp_path / "packing.json"
    pairs.write_text(json.dumps({"pairs": [[300, 1], [700, 2], [2000, 1], [400, 2], [600, 0]]}))
    limits = ("--max-tokens", "1000", "--max-tiles", "4", "--repeats", "1")
    run("packing", "--pairs", str(pairs), *limits, "--json", str(file))
    content = json.loads(file.read_text())
    assert sorted(map(sorted, content["packs"])) == [[0, 1], [3, 4]] and content["oversize"] == [2]
    assert content["efficiency"] == 1 and content["us_per_sample"] > 0 and "official" in content["peers"]
    assert "1 oversize" in capsys.readouterr().out


def test_loader_takes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from internvl_lab.bench import loader

    figures = dict.fromkeys(loader.FIGURES, 2.0)
    report = {"device": "cpu", "backend": "fast", **figures, "base": figures, "peers": {"official": figures}}
    ratios = {name: dict.fromkeys(loader.FIGURES[:4], 1.0) for name in ("ours", "base")}
    seen: list[loader.LoaderSetting] = []
    monkeypatch.setattr(loader, "bench_loader", lambda setting: seen.append(setting) or {**report, "ratios": ratios})
    file = tmp_path / "loader.json"
    run("loader", "--shards", "/a", "--samples", "7", "--repeats", "2", "--seed", "5", "--json", str(file))
    assert (seen[0].shards, seen[0].samples, seen[0].repeats, seen[0].seed) == ("/a", 7, 2, 5)
    assert json.loads(file.read_text())["tiles_per_cpu_s"] == 2
    run("loader")
    assert seen[1].shards == ""


def test_without_json_no_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("head", "--rows", "8", "--vocab-size", "20", "--hidden-size", "4", "--repeats", "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("step", "--size", "tiny", "--samples", "0"),
        ("step", "--repeats", "0"),
        ("step", "--size", "9b"),
        ("step", "--size", "tiny", "--checkpointing", "some"),
        ("head", "--rows", "0"),
        ("loader", "--samples", "-1"),
    ],
)
def test_impossible_options_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        run(*arguments)


def test_a_measurement_must_be_named() -> None:
    with pytest.raises(SystemExit):
        run()


def test_generate_takes_its_sizes_from_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "generate.json"
    sizes = ("--size", "tiny", "--samples", "2", "--prompt-tokens", "20", "--tiles", "1", "--new-tokens", "2")
    run("generate", *sizes, "--repeats", "1", "--json", str(file))
    content = json.loads(file.read_text())
    assert content["peers"].keys() == content["ratios"].keys() == {"one", "hf", "hf_one"}
    assert [content["setting"][k] for k in ("samples", "prompt_tokens", "new_tokens")] == [2, 20, 2]
    assert "hf_one" in capsys.readouterr().out
