"""Questions asked while a stage trains: what they leave, and that training does not notice."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from internvl_lab.config import (
    CallbacksConfig,
    EvaluationConfig,
    LoraConfig,
    OptimizerConfig,
    PackingConfig,
    RunConfig,
    SchedulerConfig,
    ValidationConfig,
)
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation import evaluate, validation
from internvl_lab.evaluation.tasks import read_tasks
from internvl_lab.evaluation.validation import Validation, build_validation
from internvl_lab.inference import Processor
from internvl_lab.models import gather_weights
from internvl_lab.tracking import CsvLog, WandbLog
from internvl_lab.training import InternVLModule, add_monitors, build_callbacks, find_resume, loop_settings

ROOT = Path(__file__).parents[2]
PACKING = PackingConfig(max_tokens=128, max_tiles=4)
DECODING = EvaluationConfig(batch_size=4, max_new_tokens=6)
TASKS = ("attribute", "video", "text_only")
STAGES = {
    "all parts, drop path": {},
    "frozen encoder in eval mode, adapters with dropout": {
        "trainable": ("projector",),
        "lora": LoraConfig(("language",), 2, dropout=0.3),
    },
}


@pytest.fixture(scope="session")
def tiny():
    """Give the training tests' module of tiny runs."""
    spec = importlib.util.spec_from_file_location("tiny_run", ROOT / "tests" / "training" / "tiny_run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_run"] = module
    spec.loader.exec_module(module)
    return module


class Run:
    """Train six steps of two packs on random tokens and pictures, with or without questions."""

    def __init__(self, folder, tiny, template, tiling, val_dir, make_model):
        self.folder, self.tiny, self.make_model = folder, tiny, make_model
        self.template, self.tiling, self.val_dir = template, tiling, val_dir
        self.rounds = []

    def __call__(self, every_steps=2, loggers=(), stop_after=None, precision="32-true", backend=None, **stage):
        tiny, stage = self.tiny, self.tiny.tiny_stage(6, **stage)
        data = tiny.TinyData(6, 2, self._pack)
        torch.manual_seed(1)  # of the adapters
        module = InternVLModule(
            self.make_model(), stage, OptimizerConfig(), SchedulerConfig(), 7, compile_backend=backend
        )
        quiet = CallbacksConfig(progress_bar=False, hang_timeout_s=60)
        checkpoints = self.folder / "checkpoints"
        callbacks = build_callbacks(stage, PACKING, self.folder, checkpoints, settings=quiet)
        tasks, _ = read_tasks(self.val_dir, self.template, TASKS)
        asked = Validation(
            ValidationConfig(every_steps, max_pictures=4),
            DECODING,
            tasks,
            Processor(self.template, self.tiling),
            self.folder,
        )
        ask = asked._ask
        asked._ask = lambda trainer, *rest: self.rounds.append(trainer.global_step) or ask(trainer, *rest)
        callbacks = add_monitors(callbacks, [asked])
        trainer = L.Trainer(
            **loop_settings(stage, 2, 1),
            accelerator="cpu",
            devices=1,
            precision=precision,
            logger=[CsvLog(self.folder), *loggers],
            callbacks=[*callbacks, *([tiny.StopAfter(stop_after)] if stop_after else [])],
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.folder,
        )
        trainer.fit(module, datamodule=data, ckpt_path=find_resume(checkpoints), weights_only=True)
        return module

    def _pack(self, number):
        rng = np.random.default_rng(number)
        ids = rng.integers(8, 250, 16)
        ids[:4] = self.template.context_id
        labels = np.where(np.arange(16) > 9, np.roll(ids, -1), IGNORE_INDEX)
        labels[-1] = IGNORE_INDEX
        weights = (labels != IGNORE_INDEX).astype(np.float32)
        pixels = rng.integers(0, 256, (1, 3, 56, 56), dtype=np.uint8)
        sample = {"ids": ids, "labels": labels, "weights": weights, "pixels": pixels}
        return self.tiny.make_batch([sample], [str(number)], number)

    def rows(self):
        with (self.folder / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def losses(self):
        """Return all columns that neither the clock nor the questions write."""
        return [{k: v for k, v in row.items() if not k.startswith(("perf/", "val/"))} for row in self.rows()]


@pytest.fixture
def make_run(tmp_path, tiny, template, tiling, val_dir, model):
    """Give a function that makes runs in folders of their own, all from the same weights."""
    from copy import deepcopy

    return lambda name: Run(tmp_path / name, tiny, template, tiling, val_dir, lambda: deepcopy(model))


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_losses_and_weights_are_those_of_a_run_without_questions(make_run, stage):
    asked, silent = make_run("asked"), make_run("silent")
    before, after = silent(every_steps=None, **stage), asked(**stage)
    assert (asked.rounds, silent.rounds) == ([2, 4, 6], [])
    assert asked.losses() == silent.losses()
    weights = gather_weights(before.model)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in gather_weights(after.model).items())
    modes = [[part.training for part in module.modules()] for module in (before, after)]
    assert modes[0] == modes[1]


def test_a_round_leaves_scores_beside_the_tokens_predictions_and_pictures(make_run, val_dir, template, tiling):
    run = make_run("asked")
    module = run()
    names = [*(f"val/{task}/score" for task in TASKS), "val/score", "val/looping"]
    rows = {int(row["step"]): row for row in run.rows()}
    assert [step for step, row in rows.items() if any(row[name] for name in names)] == [2, 4, 6]
    assert all(rows[step][name] and int(rows[step]["tokens"]) == 32 * step for step in (2, 4, 6) for name in names)
    folder = run.folder / "validation" / "stage2" / "step_00000006"
    kept = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    expected = evaluate(module.model, template, tiling, val_dir, replace(DECODING, tasks=TASKS, blind=False))
    assert [(row["task"], row["key"], row["prediction"]) for row in kept] == [
        (task.name, p.key, p.prediction) for task in expected.tasks for p in task.predictions
    ]
    assert float(rows[6]["val/score"]) == expected.score
    assert Image.open(folder / "samples.png").width > 800  # a cell a task, side by side


@pytest.mark.parametrize(
    "settings", [{"precision": "bf16-mixed"}, pytest.param({"backend": "eager"}, marks=pytest.mark.slow)]
)
def test_autocast_and_compiled_layers_are_left_alone_too(make_run, settings):
    asked, silent = make_run("asked"), make_run("silent")
    silent(every_steps=None, **settings)
    asked(**settings)
    assert asked.rounds == [2, 4, 6]
    assert asked.losses() == silent.losses()


def test_a_resumed_run_asks_no_round_twice(make_run):
    whole, parts = make_run("whole"), make_run("parts")
    whole()
    parts(stop_after=4)
    assert parts.rounds == [2, 4]
    parts()
    assert parts.rounds == [2, 4, 6]
    scores = [[row.get("val/score") for row in run.rows()] for run in (whole, parts)]
    assert scores[0] == scores[1]
    assert whole.losses() == parts.losses()


class Shown(WandbLog):
    """Keep what W&B would be given."""

    def __init__(self):
        L.pytorch.loggers.Logger.__init__(self)
        self.calls, self.axes = [], {}

    def draw_over(self, keys, axis):
        self.axes |= dict.fromkeys(keys, axis)

    def log_images(self, key, paths, captions=None):
        self.calls.append((key, [path.name for path in paths]))

    def log_rows(self, key, columns, rows):
        self.calls.append((key, [dict(zip(columns, row, strict=True)) for row in rows]))

    def log_metrics(self, metrics, step=None):
        """Not looked at here."""

    def begin_stage(self, stage, step_offset=0):
        """Not looked at here."""

    def finalize(self, status):
        """Not looked at here."""


def test_w_and_b_gets_a_sheet_and_a_table_with_a_picture_a_row(make_run):
    run, shown = make_run("asked"), Shown()
    run(every_steps=6, loggers=[shown])
    assert shown.axes["val/attribute/score"] == shown.axes["val/score"] == "tokens"
    (_, sheet), (_, rows) = shown.calls
    assert [key for key, _ in shown.calls] == ["val/samples", "val/predictions"]
    assert sheet == ["samples.png"]
    assert {row["task"] for row in rows} == set(TASKS)
    assert all((row["stage"], row["step"], row["tokens"]) == ("stage2", 6, 192) for row in rows)
    assert all(Image.open(row["picture"]).height > 100 for row in rows)


def test_modes_and_random_states_come_back():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
    module[1].eval()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)

    def draws():
        return float(torch.rand(())), random.random(), np.random.rand()

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    expected = draws()
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
    with validation._undisturbed(module):
        module.eval()
        module.train()
        draws()
    assert draws() == expected
    assert [part.training for part in module.modules()] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("settings", "trainer", "has_shards", "message"),
    [
        (
            {"tasks": ("attribute", "nothing")},
            {},
            True,
            r"callbacks\.validation\.tasks: unknown task 'nothing'; .* holds",
        ),
        ({}, {"strategy": "fsdp2"}, True, r"callbacks\.validation\.every_steps=5: .* trainer\.strategy=fsdp2"),
        (
            {},
            {},
            False,
            r"callbacks\.validation\.every_steps=5 needs held-out shards: name them in data\.mixtures\.val",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    val_dir, template, tmp_path, settings, trainer, has_shards, message
):
    callbacks = CallbacksConfig(validation=ValidationConfig(every_steps=5, **settings))
    config = RunConfig(callbacks=callbacks, trainer=trainer)
    with pytest.raises(ConfigError, match=message) as caught:
        build_validation(config, template, str(val_dir) if has_shards else None, tmp_path)
    assert "\n" not in str(caught.value)


def test_off_is_no_callback(template, tmp_path):
    assert build_validation(RunConfig(), template, None, tmp_path) == []


@pytest.mark.slow
def test_two_ranks_share_the_questions_and_score_as_one(tmp_path):
    words = [
        "debug=tiny",
        "stage=finetune_lora",
        "stage.lora.dropout=0.0",
        "init_from=asset:quickstart",
        "packing.packs_per_step=2",
    ]
    words += [
        "stage.packs_per_step=2",
        "data.miniworld.num_val=33",
        "evaluation.enabled=false",
        "logger=csv",
        "trainer.num_threads=1",
    ]
    words += ["callbacks.validation={every_steps: 2, tasks: [counting, video], samples_per_task: 3}"]
    found = []
    for trainer in ("cpu", "ddp_sim"):
        out = tmp_path / trainer
        folders = [f"paths.output_dir={out}", f"paths.data_dir={tmp_path / 'data'}"]
        command = [sys.executable, "train.py", *words, f"trainer={trainer}", *folders]
        subprocess.run(command, cwd=ROOT, check=True, env=dict(os.environ, PYTHONPATH=str(ROOT / "src")))
        with (out / "latest" / "metrics.csv").open(newline="") as file:
            row = next(row for row in csv.DictReader(file) if row.get("val/score"))
        kept = next((out / "latest").glob("validation/*/*/predictions.jsonl")).read_text()
        found.append(({name: value for name, value in row.items() if name.startswith("val/")}, kept))
    assert len(found[0][1].splitlines()) == 6
    assert found[0] == found[1]
