import argparse
import io
import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from internvl_lab.cli import curate_review
from internvl_lab.errors import ConfigError

RUN = (
    "import argparse, logging, sys\nfrom internvl_lab.cli import curate_review\n"
    "logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)\n"
    "parser = argparse.ArgumentParser()\ncurate_review.configure(parser)\ncurate_review.execute(parser.parse_args())"
)


@pytest.fixture
def folder(tmp_path):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "no " * 50}]
    verdict = {"rule": "loop", "score": 0.9, "threshold": 0.4, "rejected": True, "detail": "no no"}
    lines = [
        {"key": f"s:{n}", "source": "s", "record": {"conversations": turns}, "verdicts": [verdict], "images": []}
        for n in range(3)
    ]
    (tmp_path / "flagged.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def execute(*arguments):
    parser = argparse.ArgumentParser()
    curate_review.configure(parser)
    curate_review.execute(parser.parse_args(arguments))


def decisions(folder):
    lines = (folder / "reviews.jsonl").read_text().splitlines()
    return [(line["key"], line["decision"], line["by"]) for line in map(json.loads, lines)]


def test_review_in_the_terminal(folder, monkeypatch, caplog):
    monkeypatch.setattr("sys.stdin", io.StringIO("k\ns\nr\n"))
    with caplog.at_level("INFO"):
        execute("--in", str(folder), "--by", "anna")
    assert decisions(folder) == [("s:0", "keep", "anna"), ("s:2", "reject", "anna")]
    assert "2 of 3 flagged samples decided" in caplog.text


def test_the_login_name_decides_where_no_other_is_given(folder, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ben")
    monkeypatch.setattr("sys.stdin", io.StringIO("k\nq\n"))
    execute("--in", str(folder), "--rule", "loop")
    assert decisions(folder) == [("s:0", "keep", "ben")]


def test_without_a_login_name_a_name_must_be_given(folder, monkeypatch):
    def unknown():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", unknown)
    with pytest.raises(ConfigError, match="--by NAME"):
        execute("--in", str(folder))


def test_nothing_flagged_is_said(tmp_path, caplog):
    (tmp_path / "flagged.jsonl").write_text("")
    with caplog.at_level("INFO"):
        execute("--in", str(tmp_path))
    assert "nothing is flagged" in caplog.text


def test_wrong_arguments_are_one_line(tmp_path, folder):
    with pytest.raises(ConfigError, match="does not exist"):
        execute("--in", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="--port 70000"):
        execute("--in", str(folder), "--web", "--port", "70000")


def test_the_page_is_served_until_ctrl_c(folder):
    command = [sys.executable, "-c", RUN, "--in", str(folder), "--web", "--by", "anna"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())[0]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=10) as response:
        assert b"sample 1 of 3" in response.read()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "0 of 3 flagged samples decided" in rest
