"""W&B, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from internvl_lab.errors import ConfigError
from internvl_lab.tracking import CUMULATIVE, WandbLog, build_wandb, read_offline_wandb
from internvl_lab.tracking.wandb_log import run_id
from internvl_lab.tracking.wandb_offline import read_records


def test_id_is_stable_and_kept_in_the_run_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    assert run_id(first) == run_id(first) == (first / "wandb_id.txt").read_text().strip()
    assert run_id(first) != run_id(second)


@pytest.mark.parametrize("options", [None, {"mode": "disabled", "project": "p"}])
def test_off_means_no_logger(run_dir: Path, options: dict[str, str] | None) -> None:
    assert build_wandb(run_dir, options, {}) is None
    assert not list(run_dir.iterdir())


def test_unknown_mode_is_refused(run_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"logger\.wandb\.mode='sometimes' must be one of offline, online, disabled"):
        build_wandb(run_dir, {"mode": "sometimes"}, {})


def test_online_is_passed_on_without_connecting(run_dir: Path) -> None:
    log = build_wandb(run_dir, {"mode": "online", "project": "mine", "entity": "us", "tags": ["a"]}, {"seed": 1})
    assert isinstance(log, WandbLog)
    assert log._wandb_init["mode"] == "online"
    assert log._wandb_init["entity"] == "us"
    assert log._wandb_init["id"] == run_id(run_dir)
    assert log.name == "mine"


def test_one_run_holds_stages_pictures_and_tables(run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = build_wandb(run_dir, {"mode": "offline", "project": "p"}, {"seed": 3, "model": {"name": "tiny"}})
    assert log is not None
    log.begin_stage("stage1", 0)
    log.log_metrics({"train/loss": 2.0, "tokens": 10}, step=1)
    log.begin_stage("stage2", 100)
    log.log_metrics({"train/loss": 1.0, "tokens": 20}, step=1)
    picture = run_dir / "sheet.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    log.log_images("report/sheet", [picture], ["a caption"])
    log.log_rows("report/answers", ["image", "answer"], [[picture, "red"]])
    log.log_summary({"score": 0.9})
    log.finish()
    columns = read_offline_wandb(run_dir)
    assert columns == {
        "stage": ["stage1", "stage2"],
        "tokens": [10, 20],
        "train/loss": [2.0, 1.0],
        "trainer/global_step": [1, 101],
    }
    media = [path for path in (run_dir / "wandb").glob("offline-run-*/files/media/**/*") if path.is_file()]
    assert sorted(path.suffix for path in media) == [".json", ".png"], "the table and the picture"
    output = capfd.readouterr()
    assert output.out + output.err == ""


def test_cumulative_counters_are_defined_as_axes(run_dir: Path) -> None:
    log = build_wandb(run_dir, {}, {})
    assert log is not None
    log.log_metrics({"train/loss": 1.0, **dict.fromkeys(CUMULATIVE, 1.0)}, 1)
    log.log_metrics({"val/loss": 2.0}, 1)
    log.finish()
    assert read_offline_wandb(run_dir)["flops"] == [1.0, 1.0], "so that val/loss can be drawn over FLOPs"
    (file,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    defined = [content for kind, content in read_records(file) if kind == "metric"]
    assert set(CUMULATIVE) <= {content.get("name") for content in defined}
    assert [c["step_metric"] for c in defined if c.get("glob_name") == "*"] == ["trainer/global_step"]


def test_scores_are_drawn_over_a_counter(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defined: dict[str, str] = {}

    class Experiment:
        def define_metric(self, key: str, step_metric: str) -> None:
            defined[key] = step_metric

    monkeypatch.setattr(WandbLog, "experiment", Experiment())
    log = build_wandb(run_dir, {"mode": "offline"}, {})
    assert log is not None
    log.draw_over(["val/score", "val/ocr/score"], "tokens")
    assert defined == {"val/score": "tokens", "val/ocr/score": "tokens"}


@pytest.mark.slow
def test_nothing_is_written_outside_the_run_folder(run_dir: Path, tmp_path: Path) -> None:
    """In a process of its own, because wandb reads its folders from the environment once."""
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from internvl_lab.tracking import build_wandb\n"
        "log = build_wandb(Path(sys.argv[1]), {}, {}); log.log_metrics({'a': 1.0}, 1)\n"
        "log.log_rows('table', ['a'], [[1]]); log.finish()"
    )
    unset = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    source = Path(__file__).parents[2] / "src"
    environment |= {"HOME": str(home), "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)],
        check=False,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert [path for path in home.rglob("*wandb*") if path.is_file()] == []
    assert (run_dir / "wandb" / "data").is_dir()
