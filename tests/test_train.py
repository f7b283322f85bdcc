"""The command line as a person types it: in a process of its own, read by exit status and output."""

import os
import subprocess
import sys

import pytest

from internvl_lab.config.compose import CONFIG_DIR, compose
from internvl_lab.run_study import NO_SWEEP, study_rows

EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))
SCRATCH = "init_from={vision: null, projector: null, language: null}"


def train(repository, folder, *overrides):
    """Run `python train.py OVERRIDES` inside `folder`; returns (exit status, standard output, standard error)."""
    command = [sys.executable, str(repository / "train.py"), *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    return done.returncode, done.stdout, done.stderr


def test_train_py_is_short(repository):
    assert len((repository / "train.py").read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.slow
def test_a_wrong_value_is_one_line_and_status_2(repository, tmp_path):
    status, _, errors = train(repository, tmp_path, "tiling.max_tiles=0")
    assert status == 2
    assert errors.strip() == "error: tiling: min_tiles=1 and max_tiles=0 do not fit"
    status, _, errors = train(repository, tmp_path, "experiment=scaling_6b_vit")
    assert status == 2
    assert errors.startswith("error: the weights of model.vision (internvit_6b)")
    assert len(errors.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiling.max_tilez=1"], "error: unknown key 'tiling.max_tilez'; known here: tile_size"),
        (["experiment=nope"], "error: unknown choice 'experiment/nope'; choices in experiment: data_filtering"),
        (["trainer.precision=fp16"], "error: trainer.precision='fp16' must be one of 32-true"),
        (["-m", "seed=1,2", "tiling.max_tilez=1"], "error: unknown key 'tiling.max_tilez'; known here: tile_size"),
    ],
)
def test_a_typo_is_one_line_and_status_2(words, message, repository, tmp_path):
    status, output, errors = train(repository, tmp_path, *words)
    assert status == 2
    assert errors.startswith(message)
    assert len(errors.splitlines()) == 1
    assert output == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_hydra_s_own_flags_work(repository, tmp_path):
    status, output, errors = train(repository, tmp_path, "--cfg", "job", "-p", "tiling", "tiling.max_tiles=3")
    assert (status, errors) == (0, "")
    assert "max_tiles: 3" in output
    assert train(repository, tmp_path, "--help")[0] == 0


def last_row(command):
    """Return what makes of a study its last row alone (tests/test_run_study.py and tests/cli/test_study.py run all)."""
    config = compose(list(command))
    return [NO_SWEEP, *study_rows(config, command)[-1].overrides] if config.sweep.axes else []


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_two_steps(name, repository, tmp_path):
    start = [] if name in ("pretrain_language", "test_time") else [SCRATCH]
    command = (f"experiment={name}", "scale=mini", "debug=tiny", *start)
    status, output, errors = train(repository, tmp_path, *command, *last_row(command))
    assert status == 0, output + errors
    assert (tmp_path / "outputs" / "latest").is_dir()


@pytest.mark.slow
def test_multirun_over_the_encoders_makes_two_runs(repository, tmp_path):
    axis = "model/vision=mini/internvit_300m,mini/internvit_6b"
    command = ("-m", "experiment=scaling_6b_vit", "scale=mini", "debug=tiny", "max_steps_per_stage=1", SCRATCH, axis)
    status, output, errors = train(repository, tmp_path, *command)
    assert status == 0, output + errors
    assert len(list((tmp_path / "outputs" / "scaling_6b_vit").glob("*/metrics.json"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "data"}


@pytest.mark.slow
def test_joblib_runs_trials_side_by_side_and_one_failing_leaves_the_other(repository, tmp_path):
    launcher = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "ckpt_path=null,/nowhere.ckpt")
    status, output, errors = train(repository, tmp_path, *launcher, "stage=stage1", "debug=tiny", SCRATCH)
    assert status == 2, output + errors
    assert errors.splitlines()[-1] == "error: checkpoint /nowhere.ckpt does not exist"
    assert len(list((tmp_path / "outputs" / "quickstart").glob("*/metrics.json"))) == 1


@pytest.mark.slow
def test_submitit_submits_a_job_with_nodes_tasks_gpus_signal_and_requeueing(repository, tmp_path, monkeypatch):
    """Up to `sbatch`, which is a stand-in that keeps the script and refuses it."""
    pytest.importorskip("submitit", reason="extra slurm")
    commands = {"srun": "exit 0", "sbatch": f'for last; do :; done; cp "$last" {tmp_path}/job.sh; exit 1'}
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    trainer = ("trainer=fsdp", "trainer.devices=8", "trainer.num_nodes=2")
    status, _, _ = train(repository, tmp_path, "-m", "hydra/launcher=submitit_cluster", *trainer, "seed=1,2")
    assert status != 0
    job = (tmp_path / "job.sh").read_text(encoding="utf-8").splitlines()
    flags = ("array=0-1%2", "nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "signal=USR1@300", "requeue")
    assert not [flag for flag in flags if f"#SBATCH --{flag}" not in job], job
    (command,) = [line for line in job if line.startswith("srun ")]
    assert " --cpus-per-task=12 " in command and " -m submitit.core._submit " in command


@pytest.mark.slow
def test_multirun_with_lightning_s_launcher_is_refused(repository, tmp_path):
    status, output, errors = train(repository, tmp_path, "-m", "seed=1,2", "trainer=ddp_sim", "debug=tiny")
    assert status == 2, output + errors
    last = errors.splitlines()[-1]  # Hydra's own line before it says which job failed
    assert last.startswith("error: ")
    assert "run the whole sweep again on every rank" in last
    assert "Traceback" not in errors


@pytest.mark.slow
def test_two_ranks_train_like_one(repository, tmp_path):
    common = ("debug=tiny", SCRATCH, "packing.packs_per_step=2", "packing.max_tokens=512", "packing.max_tiles=16")
    stages = ("recipe.stages.stage1.packs_per_step=2", "recipe.stages.stage1_5.packs_per_step=2")
    losses = {}
    trainers = {"one": (), "ddp": ("trainer=ddp_sim",), "fsdp2": ("trainer=fsdp_sim",)}
    for name, trainer in trainers.items():
        folder = tmp_path / name
        folder.mkdir()
        status, output, errors = train(repository, folder, *common, *stages, "trainer.accelerator=cpu", *trainer)
        assert status == 0, output + errors
        lines = (folder / "outputs" / "latest" / "metrics.csv").read_text(encoding="utf-8").splitlines()
        column = lines[0].split(",").index("train/loss")
        losses[name] = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert len(losses["one"]) == 6
    assert losses["ddp"] == pytest.approx(losses["one"], rel=1e-5)
    assert losses["fsdp2"] == pytest.approx(losses["ddp"], rel=1e-6)
