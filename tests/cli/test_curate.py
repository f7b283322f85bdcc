from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from internvl_lab.cli import main

LOOP = "and so on and so forth " * 30


def write(path: Path, count: int = 3) -> Path:
    answers = [LOOP if i % 3 == 1 else f"answer {i} of many, which is like no other {i * i}" for i in range(count)]
    turns = ([{"from": "human", "value": f"What is {i}?"}, {"from": "gpt", "value": a}] for i, a in enumerate(answers))
    path.write_text("".join(json.dumps({"conversations": pair}) + "\n" for pair in turns))
    return path


def test_a_file_is_curated_and_counted(tmp_path, caplog):
    data = write(tmp_path / "mine.jsonl")
    with caplog.at_level(logging.INFO, logger="internvl_lab"):
        assert main(["curate", "--in", str(data), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "mine: 2 of 3 records kept" in caplog.messages
    assert any(message.startswith("rejected: ") and "longest_loop 1" in message for message in caplog.messages)
    assert (tmp_path / "out" / "report.html").is_file()


def test_thresholds_change_without_measuring(tmp_path):
    data, out = write(tmp_path / "mine.jsonl"), tmp_path / "out"
    assert main(["curate", "--in", str(data), "--out", str(out)]) == 0
    rules = json.loads((out / "summary.json").read_bytes())["rules"]
    off = [f"curation.rules.{name}.enabled=false" for name, rule in rules.items() if rule["fired"]]
    assert off
    assert main(["curate", "--rescore-from", str(out), "--out", str(tmp_path / "new"), "curation=default", *off]) == 0
    assert (tmp_path / "new" / "kept" / "mine.jsonl").read_bytes() == data.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--in", "none.jsonl"], "does not exist"),
        (["--in", "none.jsonl", "curation.rules.nope.threshold=1"], "unknown key 'curation.rules.nope'"),
        (["--rescore-from", "nowhere"], "holds no run"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, capsys, arguments, message):
    assert main(["curate", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_kill_9_of_all_processes_at_any_time_loses_nothing(tmp_path):
    data = write(tmp_path / "mine.jsonl", 3000)
    small = (
        "import sys; from internvl_lab import cli; from internvl_lab.curation import inputs as i; i.CHUNK_BYTES = 20000"
    )
    small += "; sys.exit(cli.main())"
    command = [sys.executable, "-c", small, "curate", "--in", str(data), "--workers", "2", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    for wanted in (1, 8, 20):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], start_new_session=True)
        scores = tmp_path / "killed" / "scores"
        while process.poll() is None and (not scores.exists() or len(list(scores.iterdir())) < wanted):
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    for name in ("kept/mine.jsonl", "rejected.jsonl", "decisions.jsonl", "summary.json", "report.md", "report.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
