from dataclasses import replace
from pathlib import Path

import pytest

from internvl_lab.config.compose import compose
from internvl_lab.errors import ConfigError, MissingWeightsError
from internvl_lab.prepare import build_template, refuse_multirun_launcher, with_shards


@pytest.mark.parametrize("trainer", [{"devices": 2, "strategy": "ddp"}, {"devices": "auto"}, {"num_nodes": 2}])
def test_multirun_with_a_launcher_of_several_processes_is_refused(trainer):
    with pytest.raises(ConfigError, match="run the whole sweep again"):
        refuse_multirun_launcher(trainer, multirun=True)
    refuse_multirun_launcher(trainer, multirun=False)


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
