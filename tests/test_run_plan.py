import io
import json

import pytest
from rich.console import Console

from internvl_lab.config.compose import compose, compose_raw, plain, typed_config
from internvl_lab.data import load_or_build_index
from internvl_lab.data.miniworld import miniworld_root
from internvl_lab.errors import ConfigError
from internvl_lab.prepare import build_template, run_hash, with_shards
from internvl_lab.run import Invocation, run
from internvl_lab.run_plan import pack_means, plan_study, show_plan
from internvl_lab.run_study import study_hash


def plan(tmp_path, *overrides, study=False):
    overrides = (*overrides, f"paths.output_dir={tmp_path}/outputs", f"paths.data_dir={tmp_path}/data")
    config, console = compose(overrides), Console(file=io.StringIO(), width=100)
    folder = show_plan(config, plain(compose_raw(overrides)), overrides, study=study, console=console)
    return console.file.getvalue(), folder


def test_full_scale_plan_needs_no_weights_and_counts_exactly(tmp_path):
    text, folder = plan(tmp_path, "experiment=scaling_6b_vit")
    assert "5,536,496,000" in text
    assert "629,697,920" in text
    assert "(missing)" in text
    saved = json.loads((folder / "plan.json").read_text())
    assert saved["parameters"]["total"] == 6_178_492_928
    assert saved["weights"]["projector"] == "random"


def test_mini_plan_lists_stages_in_order_and_is_saved_where_the_run_will_lie(tmp_path):
    text, folder = plan(tmp_path, "cost.price_per_gpu_hour=2")
    assert text.index("stage1 ") < text.index("stage1_5") < text.index("stage2")
    assert "asset:internvit_300m" in text
    config = compose(["cost.price_per_gpu_hour=2"])
    assert folder == tmp_path / "outputs" / "quickstart" / run_hash(config, plain(compose_raw([])))
    assert "# Plan: experiment quickstart" in (folder / "plan.md").read_text()
    saved = json.loads((folder / "plan.json").read_text())
    assert saved["total"]["price"] == pytest.approx(2 * saved["total"]["gpu_hours"])
    assert [stage["name"] for stage in saved["stages"]] == ["stage1", "stage1_5", "stage2"]
    for stage in saved["stages"]:
        memory = stage["memory_bytes"]
        assert memory.pop("total") == sum(memory.values())


def test_an_output_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(ConfigError, match=r"the plan cannot be saved in paths\.output_dir=.*outputs"):
        plan(tmp_path)


def test_the_price_is_no_part_of_the_run():
    changed = plain(compose_raw(["cost.mfu=0.3", "cost.gpu=h200"]))
    assert run_hash(compose([]), changed) == run_hash(compose([]), plain(compose_raw([])))


def test_a_study_is_planned_row_by_row_and_adds_up(tmp_path):
    text, folder = plan(tmp_path, "experiment=scaling_6b_vit", "scale=mini", study=True)
    assert "study of 2 rows" in text and "2 rows: at most" in text
    assert folder.name.startswith("study-")
    given = ("experiment=scaling_6b_vit", "scale=mini", f"paths.output_dir={tmp_path}")
    assert folder.name == f"study-{study_hash(compose(given), plain(compose_raw(given)))}", "where the study will lie"
    saved = json.loads((folder / "plan.json").read_text())
    assert [row["label"] for row in saved["rows"]] == ["internvit_300m", "internvit_6b"]
    assert [row["overrides"] for row in saved["rows"]][1] == ["model/vision=mini/internvit_6b"]
    for key in ("flops", "gpu_hours", "tokens", "tiles"):
        assert saved["total"][key] == sum(row["total"][key] for row in saved["rows"])
    assert saved["total"]["peak_memory_bytes"] == max(row["total"]["peak_memory_bytes"] for row in saved["rows"])


def test_rows_get_the_command_line_s_overrides():
    overrides = ("experiment=scaling_6b_vit", "scale=mini", "max_steps_per_stage=7", "sweep=vision_encoder")
    rows = plan_study(compose(overrides), overrides).data["rows"]
    assert {stage["steps"] for row in rows for stage in row["stages"]} == {7}


def test_a_chosen_axis_is_a_single_run(tmp_path, capsys):
    for overrides, word in ((["scale=mini"], "study of 2 rows"), (["model/vision=mini/internvit_6b"], "parts")):
        given = ("experiment=scaling_6b_vit", "scale=mini", *overrides, f"paths.output_dir={tmp_path}", "plan=true")
        raw = compose_raw(given)
        assert run(typed_config(raw), Invocation(plain(raw), given)) is None
        assert word in capsys.readouterr().out


def test_packs_are_measured_once_the_data_are_there_and_indexed(tmp_path):
    small = "data.miniworld={num_pretrain: 30, num_finetune: 30, num_val: 12, samples_per_shard: 30}"
    overrides = [small, f"paths.data_dir={tmp_path}"]
    config = compose(overrides)
    assert pack_means(config) == {}
    located = with_shards(config)
    assert pack_means(config) == {}  # generated, not indexed
    load_or_build_index(located.data.mixtures["pretrain"]["pretrain"].shards, build_template(config))
    assert set(pack_means(config)) == {"stage1", "stage1_5"}
    assert miniworld_root(config.data.miniworld, str(tmp_path)).is_dir()


def test_looping_answers_and_missing_tokenizers_leave_the_bound(tmp_path):
    assert pack_means(compose(["experiment=data_filtering", "data.miniworld.filtered=true"])) == {}
    assert pack_means(compose(["model=internvl2_5_8b"])) == {}
