import os
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment

from internvl_lab.config import ModelConfig
from internvl_lab.config.compose import compose, compose_raw, plain, typed_config
from internvl_lab.errors import ConfigError, MissingWeightsError
from internvl_lab.prepare import (
    SLURM_LAUNCHERS,
    build_template,
    build_trainer,
    check_attention,
    check_trainer,
    rank_of_process,
    refuse_multirun_launcher,
    run_hash,
    sources_of,
    with_shards,
)


@pytest.mark.parametrize("trainer", [{"devices": 2, "strategy": "ddp"}, {"devices": [0, 1]}, {"num_nodes": 2}])
def test_multirun_with_a_launcher_of_several_processes_is_refused(trainer):
    with pytest.raises(ConfigError, match="run the whole sweep again"):
        refuse_multirun_launcher(trainer, multirun=True)
    refuse_multirun_launcher(trainer, multirun=False)
    with pytest.raises(ConfigError, match="run the whole sweep again"):
        refuse_multirun_launcher(trainer, multirun=True, launcher="submitit_local")
    for launcher in SLURM_LAUNCHERS:
        refuse_multirun_launcher(trainer, multirun=True, launcher=launcher)


def test_multirun_on_one_device_is_fine():
    refuse_multirun_launcher({"devices": 1, "strategy": "auto"}, multirun=True)


def test_miniworld_names_become_folders_of_real_shards(tmp_path):
    config = compose(["debug=tiny", f"paths.data_dir={tmp_path}", "max_steps_per_stage=1"])
    located = with_shards(config)
    assert set(located.data.mixtures) == {"pretrain", "finetune", "val"}
    for name, sources in located.data.mixtures.items():
        assert list(Path(sources[name].shards).glob("*.tar"))


def test_two_configurations_of_miniworld_do_not_share_a_folder(tmp_path):
    overrides = ["debug=tiny", f"paths.data_dir={tmp_path}"]
    first = with_shards(compose(overrides)).data.mixtures["val"]["val"].shards
    second = with_shards(compose([*overrides, "data.miniworld.seed=1"])).data.mixtures["val"]["val"].shards
    assert first != second


def test_loops_are_planted_and_filtered_beside_the_sound_split(tmp_path):
    overrides = ["debug=tiny", f"paths.data_dir={tmp_path}", "data.miniworld.loop_share=0.5"]
    sources = [with_shards(compose([*overrides, f"data.miniworld.filtered={on}"])) for on in ("false", "true")]
    planted, kept = (Path(config.data.mixtures["finetune"]["finetune"].shards) for config in sources)
    assert planted.name == "finetune-loops-0.5" and kept.is_relative_to(f"{planted}-filtered")
    assert len({config.data.mixtures["val"]["val"].shards for config in sources}) == 1
    sizes = [sum(path.stat().st_size for path in folder.glob("*.tar")) for folder in (planted, kept)]
    assert 0 < sizes[1] < sizes[0]


def test_a_split_that_is_not_generated_is_named():
    config = compose(["debug=tiny"])
    with pytest.raises(ConfigError, match="miniworld:pretrain"):
        with_shards(replace(config, data=replace(config.data, miniworld=None)))


def test_a_language_model_without_tokenizer_is_refused():
    config = compose(["model.language.tokenizer=null", "init_from.language=null"])
    with pytest.raises(MissingWeightsError, match=r"model\.language\.tokenizer=DIR"):
        build_template(config)


def test_the_mini_template_has_no_system_turn():
    template = build_template(compose())
    assert template.system_message == ""
    assert len(template.tokenizer) == compose().model.language.vocab_size


@pytest.mark.parametrize("options", [{"accelerator": "abacus"}, {"no_such_argument": 1}, {"precision": "17-mixed"}])
def test_what_lightning_refuses_is_a_configuration_error(options):
    with pytest.raises(ConfigError, match=r"^trainer: "):
        check_trainer(options)


def test_a_run_is_named_by_the_content_of_its_weights_and_not_by_ranks(tmp_path):
    def name(*overrides):
        raw = compose_raw(overrides)
        return run_hash(typed_config(raw), plain(raw))

    asset = Path(str(files("internvl_lab"))) / "assets" / "qwen2_5_0_5b"
    copy = tmp_path / "copy"
    shutil.copytree(asset, copy)
    assert name(f"init_from.language={copy}") == name(f"init_from.language={asset}")
    (copy / "provenance.json").unlink()
    assert name(f"init_from.language={copy}") != name(f"init_from.language={asset}")
    assert name("trainer=ddp_sim", "trainer.accelerator=auto") == name()
    assert name("seed=1") != name()


def test_sources_are_what_lies_outside_the_package():
    config = compose(["init_from.vision=some/dir", "ckpt_path=a.ckpt"])
    assert sources_of(config) == [Path("some/dir"), Path("a.ckpt")]


def test_only_the_first_node_prepares(monkeypatch):
    assert rank_of_process() == 0
    monkeypatch.setenv("NODE_RANK", "1")
    assert rank_of_process() == 1


def test_a_run_without_held_out_shards_goes_on_without_scores(tmp_path, caplog):
    overrides = ["scale=full", f"paths.data_dir={tmp_path}"]
    with caplog.at_level("WARNING", logger="internvl_lab.prepare"):
        located = with_shards(compose(overrides))
    assert "val" not in located.data.mixtures
    assert "no held-out shards" in caplog.text
    remote = with_shards(compose([*overrides, "data.mixtures.val.val.shards='s3://bucket/val'"]))
    assert remote.data.mixtures["val"]["val"].shards == "s3://bucket/val"


def test_attention_that_cannot_run_is_refused_before_anything_is_built():
    cpu = {"accelerator": "cpu", "precision": "bf16-mixed"}
    check_attention(ModelConfig(), cpu)
    check_attention(ModelConfig(attention="dense", vision_attention="eager"), cpu)
    with pytest.raises(ConfigError, match=r"model\.attention=torch_varlen.*CUDA device, and this is cpu"):
        check_attention(ModelConfig(attention="torch_varlen"), cpu)
    with pytest.raises(ConfigError, match=r"model\.vision_attention=flash2 is not available"):
        check_attention(ModelConfig(vision_attention="flash2"), cpu)


def test_lightning_s_slurm_handlers_are_off_in_every_trainer(monkeypatch):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        monkeypatch.setenv(name, "0")
    trainer = build_trainer({"accelerator": "cpu", "devices": 1}, logger=False, enable_checkpointing=False)
    environment = trainer._accelerator_connector.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue


def test_checkpoints_of_two_runs_with_one_name_and_size_are_told_apart(tmp_path):
    hashes = set()
    for run, time_s in (("a", 1), ("b", 2)):
        file = tmp_path / run / "step_00000001.ckpt"
        file.parent.mkdir()
        file.write_bytes(b"same size")
        os.utime(file, (time_s, time_s))
        raw = compose_raw(["debug=tiny", f"init_from.vision={file}"])
        hashes.add(run_hash(typed_config(raw), plain(raw)))
    assert len(hashes) == 2
