"""Lightning's view of a streamed stage: packs without a plan, and a state that does not promise too much."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from internvl_lab.config import SourceConfig
from internvl_lab.data.inspection import inspect_stage
from internvl_lab.data.stream_loader import StreamLoader
from internvl_lab.errors import ConfigError, ResumeError
from internvl_lab.text import ChatTemplate

sys.path.insert(0, str(Path(__file__).parent))
from test_datamodule import Make, fit, keys


@pytest.fixture
def streamed(kit: SimpleNamespace, template: ChatTemplate, shards_dir: Path, run_dir: Path) -> Make:
    """Read the shards through commands."""
    make = Make(kit, template, shards_dir, run_dir)
    source = SourceConfig(shards=f"pipe:cat {shards_dir}/shard-{{000000..000003}}.tar")
    mixtures = {**make.cfg.data.mixtures, "pretrain": {"all": source}}
    make.cfg = replace(make.cfg, data=replace(make.cfg.data, mixtures=mixtures))
    return make


def test_a_streamed_stage_has_packs_and_no_plan(streamed: Make, caplog: pytest.LogCaptureFixture) -> None:
    module = streamed()
    module.prepare_data()
    with caplog.at_level(logging.INFO):
        batches = list(module.train_dataloader())
    assert "pretrain is streamed, 4 tars by 1 readers" in caplog.text
    assert [batch.pack_number for batch in batches] == list(range(40))
    assert {key for batch in batches[:20] for key in batch.sample_keys} == {f"s{i:05d}" for i in range(100)}
    assert keys(streamed().train_dataloader()) == [batch.sample_keys for batch in batches]
    assert len(list(module.val_dataloader())) > 0  # held out and indexed
    for what in (lambda: module.plan, module.describe):
        with pytest.raises(ConfigError, match=r"data\.mixtures\.pretrain is streamed: it has neither index nor plan"):
            what()
    loader = module.train_dataloader()
    with pytest.raises(ConfigError, match="only what has an index can be inspected"):
        inspect_stage(loader.dataset, "stage1", "pretrain", 10)


def test_a_stream_says_that_it_resumes_with_the_next_epoch(streamed: Make, caplog: pytest.LogCaptureFixture) -> None:
    module = streamed()
    assert module.state_dict()["stream"] == {"epoch": -1, "exact": False}
    whole = keys(module.train_dataloader())
    module.commit(7)
    state = json.loads(json.dumps(module.state_dict()))
    assert state["stream"]["epoch"] >= 1 and state["next_pack"] == 28 and len(json.dumps(state)) <= 1024
    resumed = streamed()
    with caplog.at_level(logging.WARNING):
        resumed.load_state_dict(state)
    epoch = state["stream"]["epoch"] + 1
    assert f"does not resume exactly: step 7 goes on with the beginning of epoch {epoch}, and what" in caplog.text
    assert resumed.state_dict() == state
    loader = resumed.train_dataloader()
    rest = list(loader)
    assert len(rest) == 12 and isinstance(loader, StreamLoader) and loader.epoch >= epoch
    assert [batch.sample_keys for batch in rest] != whole[28:]


def test_a_stream_does_not_pass_for_indexed_data(streamed: Make, shards_dir: Path) -> None:
    state = streamed().state_dict()
    with pytest.raises(ResumeError, match=r"packing \(config\) changed"):
        streamed(packing=replace(streamed.cfg.packing, max_tokens=300)).load_state_dict(state)
    mixtures = {"pretrain": {"all": SourceConfig(shards=str(shards_dir))}}
    indexed = streamed(data=replace(streamed.cfg.data, mixtures=mixtures))
    for module, other in ((indexed, state), (streamed(), indexed.state_dict())):
        with pytest.raises(ResumeError, match=r"the content of the shards .*\(index\)"):
            module.load_state_dict(other)


@pytest.mark.filterwarnings("ignore")
def test_through_lightning_a_stream_trains_and_resumes_to_the_last_step(streamed: Make, tmp_path: Path) -> None:
    whole = fit(streamed, tmp_path, 6).seen
    assert len(whole) == 24
    rest = fit(streamed, tmp_path, 10, tmp_path / "last.ckpt").seen
    assert len(rest) == 16


def test_streamed_and_indexed_sources_do_not_mix(streamed: Make, shards_dir: Path) -> None:
    data = streamed.cfg.data
    mixed = {"pretrain": {**data.mixtures["pretrain"], "more": SourceConfig(shards=str(shards_dir))}}
    with pytest.raises(ConfigError, match=r"mixes streamed sources \(all\) with indexed ones \(more\)"):
        streamed(data=replace(data, mixtures=mixed))
