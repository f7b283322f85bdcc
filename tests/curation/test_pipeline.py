from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from internvl_lab.config.curation import CurationConfig, RuleConfig, RulesConfig
from internvl_lab.curation import inputs, outputs, pipeline
from internvl_lab.curation.pipeline import curate
from internvl_lab.curation.planted_words import paragraph
from internvl_lab.curation.verdicts import CurationRecord, Verdict
from internvl_lab.errors import ConfigError, ShardError

RESULTS = ("kept/mine.jsonl", "rejected.jsonl", "decisions.jsonl", "summary.json", "report.md", "report.html")
STRICT = CurationConfig(
    rules=RulesConfig(
        longest_loop=RuleConfig(10**6), compression=RuleConfig(1.2), zero_run=RuleConfig(3, exempt=("mine",))
    )
)


def results(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in RESULTS}


@pytest.fixture
def many(data, monkeypatch) -> Path:
    """Make many small chunks of the input."""
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 400)
    return data


def test_workers_and_chunks_do_not_change_the_result(data, tmp_path, monkeypatch):
    curate(data, tmp_path / "one", progress=False)
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 300)
    curate(data, tmp_path / "two", workers=2, progress=False)
    assert len(list((tmp_path / "two" / "scores").iterdir())) > 2
    assert results(tmp_path / "one") == results(tmp_path / "two")


def run_and_die(data: Path, out: Path, place: str, count: int) -> None:
    """Curate in a forked process that is killed when it calls `place` for the `count`-th time."""

    def deadly(original, calls=[0]):  # noqa: B006
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return call

    module, name = place.split(".")
    holder = {"pipeline": pipeline, "outputs": outputs}[module]
    setattr(holder, name, deadly(getattr(holder, name)))
    curate(data, out, progress=False)


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("pipeline.measure_chunk", 3),
        ("pipeline.build_index", 1),
        ("pipeline.remove_signatures", 1),
        ("pipeline.find_duplicates", 1),
        ("outputs._write_line", 5),
        ("pipeline.write_report", 1),
    ],
)
def test_a_killed_run_goes_on_and_ends_the_same(many, tmp_path, place, count):
    process = multiprocessing.get_context("fork").Process(
        target=run_and_die, args=(many, tmp_path / "killed", place, count)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for folder in (tmp_path / "killed").glob("s*"):  # scores and signatures: a kill in the middle of writing
        (folder / ".000000.1.2.partial").write_bytes(b"half")
    assert not (tmp_path / "killed" / "summary.json").exists()
    curate(many, tmp_path / "killed", progress=False)
    curate(many, tmp_path / "whole", progress=False)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_what_is_measured_is_not_measured_again(many, tmp_path, monkeypatch):
    curate(many, tmp_path / "out", progress=False)
    monkeypatch.setattr(pipeline, "measure_chunk", None)
    before = results(tmp_path / "out")
    curate(many, tmp_path / "out", progress=False)
    assert results(tmp_path / "out") == before


def test_new_thresholds_on_old_scores_equal_a_fresh_run(many, tmp_path, monkeypatch):
    curate(many, tmp_path / "first", progress=False)
    before = results(tmp_path / "first")
    curate(many, tmp_path / "fresh", STRICT, progress=False)
    monkeypatch.setattr(pipeline, "measure_chunk", None)
    curate(None, tmp_path / "rescored", STRICT, rescore_from=tmp_path / "first", progress=False)
    curate(many, tmp_path / "first", STRICT, progress=False)  # the same folder will do as well
    assert results(tmp_path / "rescored") == results(tmp_path / "fresh") == results(tmp_path / "first")
    assert all(results(tmp_path / "fresh")[name] != before[name] for name in RESULTS[1:])


def test_reviews_overrule(data, tmp_path, lines):
    reviews = tmp_path / "reviews.jsonl"
    reviews.write_text(
        '{"key": "mine:2", "decision": "keep", "by": "ann"}\n{"key": "mine:3", "decision": "reject", "by": "ann"}\n'
    )
    summary = curate(data, tmp_path / "out", reviews=reviews, progress=False)
    decisions = {line["key"]: line for line in lines(tmp_path / "out" / "decisions.jsonl")}
    assert decisions["mine:2"]["keep"] is True
    assert decisions["mine:2"]["by"] == "review:ann"
    assert decisions["mine:3"]["rules"] == ["manual_review"]
    assert summary["reviewed"] == {"keep": 1, "reject": 1}


class Stern:
    """A scorer that dislikes pictures."""

    name = "stern"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, records: list[CurationRecord]) -> list[list[Verdict]]:
        self.asked += [record.key for record in records]
        return [[Verdict("stern", 2.0, 7.0, record.has_media, "a picture")] for record in records]


def test_scorers_are_asked_about_what_is_still_in(many, tmp_path, lines):
    reviews = tmp_path / "reviews.jsonl"
    reviews.write_text('{"key": "mine:3", "decision": "keep", "by": "ann"}\n')
    stern = Stern()
    summary = curate(many, tmp_path / "out", reviews=reviews, scorers=[stern], progress=False)
    assert stern.asked == ["mine:1"]
    rejected = {line["key"]: line for line in lines(tmp_path / "out" / "rejected.jsonl")}
    assert [verdict["rule"] for verdict in rejected["mine:1"]["verdicts"]] == ["stern"]
    assert summary["rules"]["stern"]["fired"] == 1


def test_sources_of_a_meta_json_share_one_search_for_duplicates(data, tmp_path, lines):
    turns = [{"from": "human", "value": "Is four even?"}, {"from": "gpt", "value": "yes"}]
    (tmp_path / "other.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    entries = {
        "mine": {"root": str(data.parent), "annotation": str(data), "repeat_time": 0.5},
        "empty": {"root": str(tmp_path), "annotation": str(tmp_path / "empty.jsonl")},
        "other": {"root": str(tmp_path), "annotation": str(tmp_path / "other.jsonl")},
    }
    (tmp_path / "meta.json").write_text(json.dumps(entries))
    curate(tmp_path / "meta.json", tmp_path / "out", progress=False)
    (last,) = (line for line in lines(tmp_path / "out" / "rejected.jsonl") if line["source"] == "other")
    assert last["verdicts"][0]["detail"] == "like mine:3"
    meta = json.loads((tmp_path / "out" / "meta.json").read_bytes())
    assert {name: entry["length"] for name, entry in meta.items()} == {"mine": 2, "empty": 0, "other": 0}
    assert meta["mine"]["repeat_time"] == 0.5
    assert (tmp_path / "out" / "kept" / "empty.jsonl").read_bytes() == b""


def test_an_exempt_source_keeps_its_copies(many, tmp_path, lines):
    rules = RulesConfig(exact_duplicate=RuleConfig(0, exempt=("mi*",)))
    curate(many, tmp_path, CurationConfig(rules=rules), progress=False)
    assert "mine:4" in {line["key"] for line in lines(tmp_path / "decisions.jsonl") if line["keep"]}


def near_off() -> CurationConfig:
    return CurationConfig(
        rules=RulesConfig(
            near_duplicate=RuleConfig(0.8, enabled=False), near_duplicate_image=RuleConfig(0.9, enabled=False)
        )
    )


def test_without_the_extra_near_duplicates_can_be_turned_off(data, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    with pytest.raises(ConfigError, match="imagehash"):
        curate(data, tmp_path / "out", progress=False)
    assert curate(data, tmp_path / "out", near_off(), progress=False)["kept"] == 3


def test_near_duplicates_may_be_turned_off_later_but_not_on(data, tmp_path):
    curate(data, tmp_path / "all", progress=False)
    assert curate(data, tmp_path / "all", near_off(), progress=False)["kept"] == 3
    curate(data, tmp_path / "few", near_off(), progress=False)
    with pytest.raises(ConfigError, match="without near duplicates"):
        curate(data, tmp_path / "few", progress=False)


def test_other_inputs_and_rules_are_refused(data, tmp_path):
    curate(data, tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match="another measuring settings"):
        curate(data, tmp_path / "out", CurationConfig(languages={"mine": ("latin",)}), progress=False)
    data.write_text(data.read_text() * 2)
    with pytest.raises(ConfigError, match="another input"):
        curate(data, tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match="another input"):
        curate(None, tmp_path / "new", rescore_from=tmp_path / "out", progress=False)


def test_wrong_folders_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="either --in or --rescore-from"):
        curate(None, tmp_path)
    with pytest.raises(ConfigError, match="holds no run"):
        curate(None, tmp_path / "new", rescore_from=tmp_path)
    curate(data, tmp_path / "out", progress=False)
    shutil.rmtree(tmp_path / "out" / "index")
    with pytest.raises(ConfigError, match="not complete"):
        curate(None, tmp_path / "new", rescore_from=tmp_path / "out", progress=False)


def test_a_folder_in_use_is_refused(data, tmp_path):
    with (tmp_path / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another curate"):
            curate(data, tmp_path, progress=False)


def test_a_damaged_shard_stops_the_run(shards, tmp_path):
    tar = shards / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(ShardError, match="shard-000001"):
        curate(shards, tmp_path / "out", workers=2, progress=False)


def test_near_duplicates_of_text_across_chunks(tmp_path, lines, monkeypatch):
    from random import Random

    monkeypatch.setattr(inputs, "CHUNK_BYTES", 700)
    texts = [paragraph(Random(i), 12, 12) for i in range(4)]
    texts.append(texts[1].replace("the", "THE").replace("old", "new", 1))
    turns = ([{"from": "human", "value": "Tell me."}, {"from": "gpt", "value": text}] for text in texts)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"conversations": pair}) + "\n" for pair in turns))
    curate(tmp_path / "t.jsonl", tmp_path / "out", progress=False)
    (rejected,) = lines(tmp_path / "out" / "rejected.jsonl")
    assert rejected["key"] == "t:5"
    assert rejected["verdicts"][0]["rule"] == "near_duplicate"
    assert rejected["verdicts"][0]["detail"] == "like t:2"
