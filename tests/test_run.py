import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from internvl_lab.checkpoints import convert, resolve_source
from internvl_lab.config.compose import compose_raw, plain, typed_config
from internvl_lab.errors import CheckpointError, ConfigError, MissingWeightsError
from internvl_lab.run import Invocation, run
from internvl_lab.scaling import read_runs
from internvl_lab.tracking import read_offline_wandb
from internvl_lab.training import RunStopped

STAGES = ("stage1", "stage1_5", "stage2")
FROM_SCRATCH = "init_from={vision: null, projector: null, language: null}"


def execute(tmp_path, *overrides, multirun=False):
    """Run in this process what `python train.py OVERRIDES` runs; returns (score, run folder)."""
    folders = (f"paths.output_dir={tmp_path}/outputs", f"paths.data_dir={tmp_path}/data")
    raw = compose_raw([*overrides, *folders])
    score = run(typed_config(raw), Invocation(plain(raw), tuple(overrides), multirun))
    return score, tmp_path / "outputs" / "latest"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One tiny quickstart from random weights, all stages, evaluated."""
    root = tmp_path_factory.mktemp("quickstart")
    score, folder = execute(root, "debug=tiny", FROM_SCRATCH, "data.journal=true")
    return root, score, folder


def test_a_run_leaves_what_the_readme_promises(finished):
    _, score, folder = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) >= {"overall", "tasks", "train_s", "seed"}
    assert set(metrics["overall"]) == {"score", "blind", "n"}
    assert len(metrics["tasks"]) == 11
    assert metrics["overall"]["score"] == score
    for name in ("report.md", "contact_sheet.png", "loss_curves.png", "metrics.csv", "config.yaml", "identity.json"):
        assert (folder / name).stat().st_size > 0, name
    steps = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert [(s["stage"], s["step"]) for s in steps] == [(name, step) for name in STAGES for step in (1, 2)]


def test_each_stage_moves_only_its_parts(finished):
    _, _, folder = finished
    weights = {name: load_file(folder / "stages" / name / "weights" / "model.safetensors") for name in STAGES}
    moved_1_5 = changed(weights["stage1"], weights["stage1_5"])
    moved_2 = changed(weights["stage1_5"], weights["stage2"])
    assert {name.split(".")[1] for name in moved_1_5} == {"vision_tower", "multi_modal_projector"}
    assert any("language_model" in name for name in moved_2)
    assert "lm_head.weight" in moved_2
    assert any("vision_tower" in name for name in moved_2)


def changed(before, after):
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_the_same_command_again_says_finished_and_trains_nothing(finished, capsys):
    root, score, folder = finished
    before = (folder / "metrics.json").stat().st_mtime_ns
    again, _ = execute(root, "debug=tiny", FROM_SCRATCH, "data.journal=true")
    assert again == score
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    assert "this run is finished" in capsys.readouterr().out


def test_one_stage_starts_from_a_run(finished, tmp_path):
    _, _, folder = finished
    execute(tmp_path, "debug=tiny", "stage=stage1", f"init_from={folder}", "evaluation.enabled=false")
    source = load_file(folder / "stages" / "stage2" / "weights" / "model.safetensors")
    target = load_file(tmp_path / "outputs/latest/stages/stage1/weights/model.safetensors")
    assert {name.split(".")[1] for name in changed(source, target)} == {"multi_modal_projector"}


def test_a_lora_stage_leaves_merged_weights_and_an_adapter(finished, tmp_path):
    _, _, folder = finished
    words = ("debug=tiny", "stage=finetune_lora", f"init_from={folder}", "stage.learning_rate=0.01")
    execute(tmp_path, *words, "evaluation.enabled=false")
    stage = tmp_path / "outputs/latest/stages/finetune_lora"
    source = load_file(folder / "stages" / "stage2" / "weights" / "model.safetensors")
    target = load_file(stage / "weights" / "model.safetensors")
    moved = changed(source, target)
    assert {name.split(".")[1] for name in moved} == {"language_model"}
    assert all(name.endswith("_proj.weight") for name in moved)
    merged = convert([resolve_source(str(folder))], tmp_path / "merged", "native", adapter=stage / "adapter")
    assert not changed(target, load_file(merged / "model.safetensors"))


def test_a_full_finetune_keeps_the_encoder(finished, tmp_path):
    _, _, folder = finished
    execute(tmp_path, "debug=tiny", "stage=finetune_full", f"init_from={folder}", "evaluation.enabled=false")
    source = load_file(folder / "stages" / "stage2" / "weights" / "model.safetensors")
    target = load_file(tmp_path / "outputs/latest/stages/finetune_full/weights/model.safetensors")
    assert not any("vision_tower" in name for name in changed(source, target))


def test_full_scale_without_weights_stops_with_one_line(tmp_path):
    with pytest.raises(MissingWeightsError) as caught:
        execute(tmp_path, "experiment=scaling_6b_vit")
    message = str(caught.value)
    for word in ("internvit_6b", "OpenGVLab/InternViT-6B-448px-V2_5", "init_from.vision=DIR", "scale=mini"):
        assert word in message
    assert "\n" not in message
    assert not (tmp_path / "outputs").exists()


def test_the_plan_of_test_time_scaling_needs_no_weights(tmp_path, capsys):
    score, _ = execute(tmp_path, "experiment=test_time", "plan=true")
    assert score is None
    assert "weights/InternVL2_5-8B answers 100 questions each of all tasks" in capsys.readouterr().out
    assert not (tmp_path / "outputs").exists()
    with pytest.raises(MissingWeightsError, match="no checkpoint in weights/InternVL2_5-8B"):
        execute(tmp_path, "experiment=test_time")


def test_plan_is_answered_before_any_weight_check(tmp_path):
    score, _ = execute(tmp_path, "experiment=scaling_6b_vit", "plan=true")
    assert score is None


@pytest.mark.parametrize(("requeue", "calls"), [(True, [signal.SIGUSR1]), (False, [])])
def test_a_signal_outside_training_is_one_line_and_a_requeue(tmp_path, monkeypatch, capsys, requeue, calls):
    asked = []
    monkeypatch.setattr("internvl_lab.run.requeue_job", asked.append)
    monkeypatch.setattr("internvl_lab.run._run_single", lambda *_: signal.raise_signal(signal.SIGUSR1))
    with pytest.raises(RunStopped) as caught:
        execute(tmp_path, "debug=tiny", FROM_SCRATCH, f"callbacks.requeue={requeue}")
    assert caught.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "stopped by SIGUSR1; the same command continues"
    assert asked == calls


def test_a_kernel_that_cannot_run_here_is_refused_before_data_are_made(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.attention=torch_varlen is not available"):
        execute(tmp_path, "debug=tiny", "trainer=cpu", "model.attention=torch_varlen")
    assert not list(tmp_path.iterdir())


def test_multirun_with_lightning_s_launcher_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.devices=2"):
        execute(tmp_path, "debug=tiny", "trainer=ddp_sim", multirun=True)


def test_a_checkpoint_resumes_its_own_stage(finished, tmp_path):
    _, _, folder = finished
    checkpoint = next((folder / "stages" / "stage1_5" / "checkpoints").glob("*.ckpt"))
    execute(tmp_path, "debug=tiny", FROM_SCRATCH, "evaluation.enabled=false", f"ckpt_path={checkpoint}")
    rows = (tmp_path / "outputs/latest/metrics.csv").read_text().splitlines()
    assert sum(row.startswith("stage1,") and "val/loss" not in row for row in rows) >= 2  # trained from the start
    assert not any(row.startswith("stage1_5,1,") for row in rows)  # resumed after step 2
    with pytest.raises(ConfigError, match="belongs to stage stage1_5"):
        execute(tmp_path, "debug=tiny", FROM_SCRATCH, "stage=stage1", f"ckpt_path={checkpoint}")


def test_a_checkpoint_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        execute(tmp_path, "debug=tiny", FROM_SCRATCH, f"ckpt_path={tmp_path}/nothing.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        execute(tmp_path, "debug=tiny", FROM_SCRATCH, f"ckpt_path={tmp_path}/broken.ckpt")


def test_the_report_is_in_the_offline_wandb_run_too(tmp_path):
    execute(tmp_path, "debug=tiny", FROM_SCRATCH, "max_steps_per_stage=1", "logger.wandb.mode=offline")
    run_folder = tmp_path / "outputs" / "latest"
    files = list((run_folder / "wandb").glob("offline-run-*/files/media/**/*"))
    pictures = {path.name for path in files if path.suffix == ".png"}
    assert any("contact_sheet" in name for name in pictures)
    assert any("loss_curves" in name for name in pictures)
    assert any(path.name.endswith(".table.json") for path in files)
    history = read_offline_wandb(run_folder)
    assert [loss for loss in history["train/loss"] if loss is not None]
    assert {"tokens", "samples", "tiles", "flops"} <= history.keys()
    (plain,), (offline,) = read_runs([str(run_folder)]), read_runs([str(run_folder / "wandb")])
    assert repr((plain.values, plain.tasks)) == repr((offline.values, offline.tasks)), "the same table from both"
    assert {"score", "standard_error", "train_s", "val_loss", "params_vision"} <= plain.values.keys()
