"""Lightning's view: loaders of a stage, a small state that resumes exactly, and refusals that name what changed."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import lightning as L
import pytest
import torch

from internvl_lab.config import DataConfig, RecipeConfig, RunConfig, SourceConfig, StageConfig
from internvl_lab.data.batch import Batch
from internvl_lab.data.datamodule import MultimodalDataModule
from internvl_lab.data.loader import PackLoader
from internvl_lab.data.plan import Cost
from internvl_lab.errors import ConfigError, ResumeError, ShardError
from internvl_lab.text import ChatTemplate

STAGE = StageConfig(name="stage1", mixture="pretrain", max_steps=10)


class Make:
    """Build data modules over one configuration, with changes."""

    def __init__(self, kit: SimpleNamespace, template: ChatTemplate, shards_dir: Path, run_dir: Path) -> None:
        sources = {"pretrain": {"all": SourceConfig(shards=str(shards_dir))}}
        sources["val"] = {"held_out": SourceConfig(shards=str(shards_dir), tasks=("one",))}
        data = DataConfig(mixtures=sources, num_workers=0)
        self.cfg = RunConfig(seed=5, data=data, tiling=kit.tiling, packing=kit.packing)
        self.kit, self.template, self.run_dir = kit, template, run_dir

    def __call__(self, stage: StageConfig = STAGE, cost: Cost | None = None, **changes: Any) -> MultimodalDataModule:
        cfg = replace(self.cfg, **changes)
        return MultimodalDataModule(cfg, stage, self.template, cost or self.kit.cost, self.run_dir)


@pytest.fixture
def make(kit: SimpleNamespace, template: ChatTemplate, shards_dir: Path, run_dir: Path) -> Make:
    return Make(kit, template, shards_dir, run_dir)


def keys(loader: Any) -> list[list[str]]:
    return [batch.sample_keys for batch in loader]


def test_train_loader_has_the_stage_length(make: Make) -> None:
    module = make()
    loader = module.train_dataloader()
    assert len(loader) == 10 * 4 == len(keys(loader))
    doubled = make(replace(STAGE, packs_per_step=8))
    assert len(doubled.train_dataloader()) == 10 * 8
    assert not list(make.run_dir.iterdir())


def test_state_is_small_and_resumes_behind_the_committed_step(make: Make) -> None:
    module = make()
    whole = keys(module.train_dataloader())
    module.commit(7)
    state = json.loads(json.dumps(module.state_dict()))
    assert len(json.dumps(state)) <= 1024
    assert set(state) >= {"version", "index", "config", "seed", "next_pack"} and state["next_pack"] == 28
    assert len(json.dumps(state)) <= 600  # of one source
    resumed = make()
    resumed.load_state_dict(state)
    assert keys(resumed.train_dataloader()) == whole[28:]
    assert resumed.state_dict()["next_pack"] == 28
    state.pop("anchor")
    without_anchor = make()
    without_anchor.load_state_dict(state)
    assert keys(without_anchor.train_dataloader()) == whole[28:]


def test_refusal_names_what_changed(make: Make, template: ChatTemplate) -> None:
    state = make().state_dict()
    make().load_state_dict(state)
    with pytest.raises(ResumeError, match=r"stage stage1: the seed changed"):
        make(seed=6).load_state_dict(state)
    data, sources = make.cfg.data, make.cfg.data.mixtures
    heavier = {"pretrain": {"all": replace(sources["pretrain"]["all"], weight=2.0)}}
    quality = replace(data.jpeg, min_quality=80)
    changed = {
        "tiling": make(tiling=replace(make.cfg.tiling, max_tiles=2)),
        "packing": make(packing=replace(make.cfg.packing, max_tokens=300)),
        "the loss weights": make(data=replace(data, loss_averaging="token")),
        "data.jpeg": make(data=replace(data, jpeg=quality)),
        "data.mixtures.pretrain": make(data=replace(data, mixtures=heavier)),
        "the model's cost": make(cost=Cost(1.0, 2.0, 3.0)),
        "tiling, data.jpeg": make(data=replace(data, jpeg=quality), tiling=replace(make.cfg.tiling, max_tiles=2)),
    }
    for what, module in changed.items():
        with pytest.raises(
            ResumeError, match=rf"stage stage1: {what} \(config\) changed.*data\.allow_changed_data=true"
        ):
            module.load_state_dict(state)
    with pytest.raises(ResumeError, match=r"packing \(config\) changed"):
        make(replace(STAGE, packs_per_step=2)).load_state_dict(state)
    old = {name: value for name, value in state.items() if name != "parts"}
    with pytest.raises(ResumeError, match=r"the settings of data, tiling, packing or template \(config\) changed"):
        changed["tiling"].load_state_dict(old)
    with pytest.raises(ResumeError, match=r"\(index\) and the seed changed"):
        make().load_state_dict({**state, "index": "0" * 16, "seed": 1})
    with pytest.raises(ResumeError, match="version 0"):
        make().load_state_dict({**state, "version": 0})


def test_other_data_is_refused(make: Make, shards_dir: Path, tmp_path: Path) -> None:
    state = make().state_dict()
    folder = Path(shutil.copytree(shards_dir, tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))
    data = replace(make.cfg.data, mixtures={"pretrain": {"all": SourceConfig(shards=str(folder))}})
    make(data=data).load_state_dict(state)  # moved, but the same
    (folder / "shard-000003.tar").unlink()
    with pytest.raises(ShardError, match=r"lacks 1 of its shards: shard-000003\.tar"):
        make(data=data).load_state_dict(state)
    (folder / "shards.json").unlink()
    with pytest.raises(ResumeError, match=r"the content of the shards of all \(index\) changed"):
        make(data=data).load_state_dict(state)


def test_changed_data_goes_on_when_asked(
    make: Make, shards_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = make()
    loader = module.train_dataloader()
    keys(loader)  # the anchor lies behind the beginning
    module.commit(7)
    state = module.state_dict()
    assert state["anchor"][0] > 0
    folder = Path(shutil.copytree(shards_dir, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "shards.json")))
    (folder / "shard-000003.tar").unlink()
    mixtures = {"pretrain": {"all": SourceConfig(shards=str(folder), repeat=0.5)}}
    data = replace(make.cfg.data, mixtures=mixtures, allow_changed_data=True)
    changed = make(data=data)
    with caplog.at_level(logging.WARNING):
        changed.load_state_dict(state)
    assert "the content of the shards of all (index) and data.mixtures.pretrain (config) changed" in caplog.text
    assert "goes on at step 7" in caplog.text
    whole = keys(make(data=data).train_dataloader())
    assert keys(changed.train_dataloader()) == whole[28:]  # of the new order: the old anchor plays no part
    again, careful = make(data=data), make(data=replace(data, allow_changed_data=False))
    for resumed in (again, careful):  # once saved, the new data is what later starts must have
        resumed.load_state_dict(changed.state_dict())
        assert keys(resumed.train_dataloader()) == whole[28:]
    caplog.clear()
    make(data=replace(make.cfg.data, allow_changed_data=True)).load_state_dict(state)
    assert not caplog.records  # nothing changed, nothing said


def test_the_sources_that_changed_are_named(make: Make, shards_dir: Path, tmp_path: Path) -> None:
    names = [f"source{i}" for i in range(100)]
    sources = {name: SourceConfig(shards=str(shards_dir), repeat=0.01) for name in names}
    state = make(data=replace(make.cfg.data, mixtures={"pretrain": sources})).state_dict()
    assert len(json.dumps(state)) <= 1024
    folder = Path(shutil.copytree(shards_dir, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "shards.json")))
    (folder / "shard-000003.tar").unlink()
    for name in ("source7", "source42"):
        sources[name] = SourceConfig(shards=str(folder), repeat=0.01)
    with pytest.raises(ResumeError, match=r"the content of the shards of source7, source42 \(index\) changed"):
        make(data=replace(make.cfg.data, mixtures={"pretrain": sources})).load_state_dict(state)
    del sources["source3"]
    with pytest.raises(ResumeError, match=r"shards \(index\) and data\.mixtures\.pretrain \(config\)"):
        make(data=replace(make.cfg.data, mixtures={"pretrain": sources})).load_state_dict(state)


def test_sources_without_shards_are_refused_before_the_first_stage(make: Make, shards_dir: Path) -> None:
    mixtures = {
        "pretrain": {"all": SourceConfig(shards=str(shards_dir))},
        "finetune": {"a": SourceConfig(shards=str(shards_dir)), "b": SourceConfig(), "c": SourceConfig(shards="/no")},
    }
    recipe = RecipeConfig(stages={"stage1": STAGE, "stage2": replace(STAGE, name="stage2", mixture="finetune")})
    expected = (
        r"stage stage2: 2 of 3 sources have no shards: set data\.mixtures\.finetune\.b\.shards=DIR \(now '', which is "
        r"no folder\) or drop the source with ~data\.mixtures\.finetune\.b; the same for c"
    )
    with pytest.raises(ConfigError, match=expected):
        make(data=replace(make.cfg.data, mixtures=mixtures), recipe=recipe)
    mixtures["finetune"] = {"a": SourceConfig(shards="https://host/{000000..000009}.tar")}
    make(data=replace(make.cfg.data, mixtures=mixtures), recipe=recipe)


def test_stages_over_one_mixture_differ_in_order(make: Make) -> None:
    one, two = make(), make(replace(STAGE, name="stage2"))
    assert keys(one.train_dataloader()) != keys(two.train_dataloader())
    assert one.plan_seed == make().plan_seed >= 0


def test_validation_is_one_plain_round(make: Make) -> None:
    module = make()
    loader = module.val_dataloader()
    assert isinstance(loader, PackLoader) and not loader.dataset.augment
    seen = [key for pack in keys(loader) for key in pack]
    assert sorted(seen) == [f"s{i:05d}" for i in range(1, 100, 4)]
    first, again = next(iter(loader)), next(iter(module.val_dataloader()))
    assert torch.equal(first.pixel_values, again.pixel_values)
    mixtures = {"pretrain": make.cfg.data.mixtures["pretrain"]}
    assert make(data=replace(make.cfg.data, mixtures=mixtures)).val_dataloader() == []


def test_unknown_mixture(make: Make) -> None:
    with pytest.raises(
        ConfigError, match=r"stage stage1: stage\.mixture='other' is not in data\.mixtures \(pretrain, val\)"
    ):
        make(replace(STAGE, mixture="other"))


def test_describe(make: Make) -> None:
    summary = make().describe()
    assert summary["samples"] == 100 and summary["sources"]["all"]["samples"] == 100
    assert summary["skipped"] == {} and 0 < summary["fill"]["token_fill"] <= 1
    json.dumps(summary)


def test_skipped_samples_are_named_in_the_run_folder(make: Make) -> None:
    module = make(packing=replace(make.cfg.packing, max_tiles=6))
    module.setup()
    lines = [json.loads(line) for line in (make.run_dir / "skipped.jsonl").read_text().splitlines()]
    assert len(lines) == module.describe()["skipped"]["over_max_tiles"] > 0
    assert set(lines[0]) == {"stage", "source", "shard", "key", "reason", "detail"}


def test_each_stage_replaces_its_own_skipped_samples(make: Make) -> None:
    def stages() -> list[str]:
        return [json.loads(line)["stage"] for line in (make.run_dir / "skipped.jsonl").read_text().splitlines()]

    tight, tighter = (replace(make.cfg.packing, max_tiles=tiles) for tiles in (6, 3))
    one, two = make(packing=tight), make(replace(STAGE, name="stage2"), packing=tighter)
    one.setup()
    two.setup()
    expected = sum(one.describe()["skipped"].values()), sum(two.describe()["skipped"].values())
    assert 0 < expected[0] < expected[1]
    assert (stages().count("stage1"), stages().count("stage2")) == expected
    one.setup()
    assert (stages().count("stage1"), stages().count("stage2")) == expected
    make().setup()  # started anew with room for all
    assert set(stages()) == {"stage2"}
    make(replace(STAGE, name="stage2")).setup()
    assert not list(make.run_dir.iterdir())


def test_too_many_faulty_samples_stop_before_training(make: Make, kit: SimpleNamespace, tmp_path: Path) -> None:
    members = [(f"k{i}.json", b"{" if i < 3 else kit.record_bytes()) for i in range(20)]
    kit.write_tar(tmp_path / "bad" / "s.tar", members)
    mixtures = {"pretrain": {"src": SourceConfig(shards=str(tmp_path / "bad"))}}
    data = replace(make.cfg.data, mixtures=mixtures)
    assert make(data=data).describe()["skipped"] == {"bad_json": 3}
    strict = replace(data, max_bad_share=0.002)
    with pytest.raises(ShardError, match=r"source src: 3 of 20 .*the first is k0 in s\.tar: bad_json"):
        make(data=strict).setup()


def test_quarantine_is_cut_back_on_resume(make: Make) -> None:
    names = ("earlier", "stage1", "later")
    lines = [json.dumps({"stage": n, "key": f"k{s}", "step": s}) + "\n" for n in names for s in range(5)]
    (make.run_dir / "quarantine.jsonl").write_text("".join(lines))
    recipe = RecipeConfig(stages={name: replace(STAGE, name=name) for name in names})
    module = make(recipe=recipe)
    module.commit(3)
    module.train_dataloader()
    assert (make.run_dir / "quarantine.jsonl").read_text() == "".join(lines[:8])


class Recorder(L.LightningModule):
    """Note the keys of every batch; commit as training does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[str]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.seen.append(batch.sample_keys)
        return self.weight.sum()

    def on_train_batch_end(self, *_: Any) -> None:
        self.trainer.datamodule.commit(self.trainer.global_step)  # type: ignore[attr-defined]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(make: Make, folder: Path, steps: int, ckpt_path: Path | None = None) -> Recorder:
    model = Recorder()
    trainer = L.Trainer(
        max_steps=steps, accumulate_grad_batches=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder, limit_val_batches=0,
        barebones=False,
    )  # fmt: skip
    trainer.fit(model, datamodule=make(), ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "last.ckpt")
    return model


@pytest.mark.filterwarnings("ignore")
def test_through_lightning_resume_loses_and_repeats_nothing(make: Make, tmp_path: Path) -> None:
    whole = fit(make, tmp_path, 10).seen
    assert len(whole) == 40
    first = fit(make, tmp_path, 6).seen
    rest = fit(make, tmp_path, 10, tmp_path / "last.ckpt").seen
    assert first + rest == whole


def test_long_samples_are_made_to_fit_where_the_settings_say_so(make: Make) -> None:
    packing = replace(make.cfg.packing, max_tokens=45)
    cut = make(packing=packing, data=replace(make.cfg.data, long_samples="truncate_text"))
    skipped, fitted = make(packing=packing).plan.mixture, cut.plan.mixture
    assert skipped.skipped["over_max_tokens"] - fitted.skipped["over_max_tokens"] == fitted.fitted["truncated"] > 0
    batches = list(cut.train_dataloader())
    assert all(batch.bad_samples == [] and batch.num_tokens <= 45 for batch in batches)
    with pytest.raises(ResumeError, match=r"\(config\) changed"):
        make(packing=packing).load_state_dict(cut.state_dict())


def test_remote_shards_go_through_the_cache_of_the_settings(make: Make, shards_dir: Path, tmp_path: Path) -> None:
    """fsspec's files in memory stand for a bucket."""
    files = fsspec.filesystem("memory")
    for path in [*shards_dir.glob("*.tar"), shards_dir / "shards.json"]:
        files.pipe(f"/bucket/{path.name}", path.read_bytes())
    mixtures = {"pretrain": {"all": SourceConfig(shards="memory://bucket")}}
    data = replace(make.cfg.data, mixtures=mixtures, cache_dir=str(tmp_path / "cache"), cache_gb=1e-9)
    remote, local = make(data=data), make()
    remote.prepare_data()
    assert keys(remote.train_dataloader()) == keys(local.train_dataloader())
    assert remote.plan.fingerprint == local.plan.fingerprint
    assert len(list((tmp_path / "cache" / "shards").rglob("*.tar"))) == 1
