"""A whole evaluation: from a checkpoint folder to the report, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from internvl_lab.atomic import held
from internvl_lab.checkpoints import resolve_source
from internvl_lab.config import MiniworldConfig
from internvl_lab.config.asking import AskingConfig
from internvl_lab.config.evaluate import EvaluateConfig
from internvl_lab.errors import BudgetError, ConfigError
from internvl_lab.evaluation import session, suites
from internvl_lab.evaluation.session import evaluate_checkpoint
from internvl_lab.inference import Generator

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = "asset:quickstart"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generate ten questions a task instead of 120."""
    monkeypatch.setattr(suites, "MiniworldConfig", partial(MiniworldConfig, num_val=110))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that miniworld is generated into once."""
    return tmp_path_factory.mktemp("data")


def config(data: Path, out: Path, **more: Any) -> EvaluateConfig:
    base = EvaluateConfig(
        QUICKSTART, ("existence", "text_only"), str(out), str(data), samples_per_task=10, batch_size=1
    )
    return replace(base, **more)


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.usefixtures("small")
def test_two_processes_share_no_folder(data: Path, tmp_path: Path) -> None:
    with held(tmp_path / "out" / "predictions", "out"), pytest.raises(ConfigError, match="choose another out"):
        evaluate_checkpoint(config(data, tmp_path / "out"), resolve_source(QUICKSTART))


@pytest.mark.usefixtures("small")
def test_a_killed_evaluation_resumes_bit_equal(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = resolve_source(QUICKSTART)
    evaluate_checkpoint(config(data, tmp_path / "whole"), weights)
    calls = 0
    generate = Generator.generate

    def killed(self: Generator, prompts: list[Any], blind: bool = False) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 5:  # in the second chunk of the second task
            raise KeyboardInterrupt
        return generate(self, prompts, blind)

    with monkeypatch.context() as patch:
        patch.setattr(Generator, "generate", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_checkpoint(config(data, tmp_path / "cut"), weights)
    log = tmp_path / "cut" / "predictions" / "text_only.jsonl"
    assert len(log.read_text().splitlines()) == 4 and not (tmp_path / "cut" / "metrics.json").exists()
    log.write_bytes(log.read_bytes() + b'{"id": "half a li')
    asked: list[str] = []

    def recorded(self: Generator, prompts: list[Any], blind: bool = False) -> list[str]:
        asked.extend(prompt.key for prompt in prompts)
        return generate(self, prompts, blind)

    monkeypatch.setattr(Generator, "generate", recorded)
    evaluate_checkpoint(config(data, tmp_path / "cut"), weights)
    assert len(asked) == 6
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_judged_sets_and_wandb(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "MMVet.tsv").write_text("index\tquestion\tanswer\n1\tWhat?\tred\n")
    (tmp_path / "scores.jsonl").write_text('{"task": "mmvet", "id": "1", "score": 0.5}\n')
    logged: dict[str, Any] = {}

    class Recorder:
        def __init__(self, folder: Path, **options: Any) -> None:
            logged["options"] = options

        def log_rows(self, key: str, columns: list[str], rows: Any) -> None:
            logged[key] = rows

        def log_summary(self, values: dict[str, Any]) -> None:
            logged.update(values)

        def finish(self) -> None:
            logged["finished"] = True

    monkeypatch.setattr(session, "WandbLog", Recorder)
    answers = str(tmp_path / "scores.jsonl")
    cfg = config(data, tmp_path / "out", tasks=("mmvet",), judge_answers=answers, wandb="offline", max_new_tokens=2)
    paths = evaluate_checkpoint(cfg, resolve_source(QUICKSTART))
    assert json.loads(paths["metrics"].read_text())["tasks"]["mmvet"]["score"] == 0.5
    assert json.loads((tmp_path / "out" / "judge" / "mmvet.jsonl").read_text())["reference"] == "red"
    assert logged["finished"] and logged["evaluation/comprehensive"][0][2] == "50.0"


def test_a_judge_is_asked_and_its_failure_loses_nothing(data: Path, tmp_path: Path, judge_server: ModuleType) -> None:
    (data / "MMVet.tsv").write_text("index\tquestion\tanswer\n1\tWhat?\tred\n2\tWho?\tblue\n")
    with judge_server.running() as server:
        server.reply = lambda text, request: "1.0" if "Who?" in text else "0.5"
        judge = AskingConfig("openai", "m", server.url, max_calls=1, first_delay_s=0.0)
        cfg = config(data, tmp_path / "out", tasks=("mmvet",), judge=judge, max_new_tokens=2)
        with pytest.raises(BudgetError, match="run the same command again"):
            evaluate_checkpoint(cfg, resolve_source(QUICKSTART))
        metrics = tmp_path / "out" / "metrics.json"
        assert json.loads(metrics.read_text())["tasks"]["mmvet"]["score"] is None
        evaluate_checkpoint(replace(cfg, judge=replace(judge, max_calls=2)), resolve_source(QUICKSTART))
    task = json.loads(metrics.read_text())["tasks"]["mmvet"]
    assert (task["score"], task["n"], task["judge"][:4]) == (0.75, 2, "m, a") and len(server.requests) == 2
    assert "| 75.0 |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("more", "message"),
    [({"tasks": ("nothing",)}, "unknown task 'nothing'"), ({"device": "nowhere"}, "device=nowhere")],
)
def test_mistakes(data: Path, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_checkpoint(config(data, tmp_path, **more), resolve_source(QUICKSTART))


@pytest.mark.slow
def test_kill_9_from_the_command_line(data: Path, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        words = [
            "checkpoint=asset:quickstart",
            "tasks=[captioning]",
            f"data={data}",
            "batch_size=1",
            "samples_per_task=24",
        ]
        return [sys.executable, "-m", "internvl_lab", "evaluate", *words, f"out={tmp_path / out}"]

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    log = tmp_path / "cut" / "predictions" / "captioning.jsonl"
    process = subprocess.Popen(command("cut"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(log.read_bytes().splitlines()) < 24
    subprocess.run(command("cut"), check=True, env=environment, capture_output=True)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
