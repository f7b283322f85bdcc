"""Mixtures are a group of their own; the report's presets keep to what it publishes."""

import pytest

from internvl_lab.config.compose import CONFIG_DIR, compose
from internvl_lab.errors import ConfigError

NAMES = sorted(path.stem for path in (CONFIG_DIR / "data" / "mixture").glob("*.yaml"))
FINETUNE = {
    "captioning", "general_qa", "mathematics", "chart", "ocr", "knowledge", "document", "grounding", "science",
    "conversation", "medical", "gui", "multi_image", "multi_document", "video_captioning", "video_qa", "video_gui",
    "text_general", "text_code", "text_long", "text_mathematics", "text_knowledge",
}  # fmt: skip
PRETRAIN = {
    "captioning", "general_qa", "mathematics", "chart", "ocr", "knowledge", "grounding", "document", "conversation",
    "medical", "gui", "video_captioning", "video_qa",
}  # fmt: skip


def mixtures(*overrides):
    halves = {"data/mixture=internvl2_5_pretrain": "stage=stage1", "data/mixture=internvl2_5_finetune": "stage=stage2"}
    return compose([*overrides, *(halves[name] for name in overrides if name in halves)]).data.mixtures


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["mini", "full"])
def test_every_mixture_composes_at_both_scales(name, scale):
    found = mixtures(f"scale={scale}", f"data/mixture={name}")
    assert "val" in found and all(source.shards for sources in found.values() for source in sources.values())


def test_scale_chooses_the_mixture():
    assert mixtures()["finetune"]["finetune"].shards == "miniworld:finetune"
    assert mixtures("scale=full")["finetune"]["finetune"].shards == "data/finetune"
    assert mixtures("scale=full", "data=mini")["pretrain"]["pretrain"].shards == "miniworld:pretrain"
    assert mixtures("data/mixture=folders", "paths.data_dir=/x")["val"]["val"].shards == "/x/val"


def test_the_report_s_mixtures_have_its_categories():
    both = mixtures("scale=full", "data/mixture=internvl2_5")
    assert set(both["pretrain"]) == PRETRAIN and set(both["finetune"]) == FINETUNE
    assert both["pretrain"] == mixtures("data/mixture=internvl2_5_pretrain")["pretrain"]
    assert both["finetune"] == mixtures("data/mixture=internvl2_5_finetune")["finetune"]
    folders = {source.shards for name in ("pretrain", "finetune") for source in both[name].values()}
    assert len(folders) == len(PRETRAIN) + len(FINETUNE)


def test_the_report_s_mixtures_keep_to_its_rules():
    """Section 4.1: r in (0, 4], 6-36 tiles an image, 12-36 over several, 1 a frame; JPEG on images only."""
    both = mixtures("scale=full", "data/mixture=internvl2_5")
    for name, source in (item for mixture in ("pretrain", "finetune") for item in both[mixture].items()):
        kind = name.split("_")[0]
        assert source.jpeg == (kind not in ("video", "text"))
        if kind == "video":
            assert source.max_tiles == 1
        elif kind == "text":
            assert source.max_tiles is None
        else:
            assert (12 if kind == "multi" else 6) <= source.max_tiles <= 36


def test_a_preset_is_filled_and_cut_by_overrides():
    chosen = mixtures(
        "data/mixture=internvl2_5_finetune",
        "data.mixtures.finetune.ocr.shards=/ocr",
        "data.mixtures.finetune.ocr.repeat=2.5",
        "+data.mixtures.finetune.ocr.weight=0.5",
        "~data.mixtures.finetune.medical",
        "+data.mixtures.finetune.mine={shards: /mine, repeat: 0.25}",
    )["finetune"]
    assert (chosen["ocr"].shards, chosen["ocr"].repeat, chosen["ocr"].weight) == ("/ocr", 2.5, 0.5)
    assert "medical" not in chosen and chosen["mine"].repeat == 0.25


def test_a_stage_without_its_mixture_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match=r"stage stage2: stage\.mixture='finetune' is not in data\.mixtures \("):
        compose(["data/mixture=internvl2_5_pretrain", "plan=true"])


def test_a_repeat_outside_the_range_is_refused():
    for repeat in ("0", "4.5", "-1"):
        with pytest.raises(ConfigError, match=r"must lie in \(0, 4\]"):
            mixtures(f"+data.mixtures.finetune.finetune.repeat={repeat}")
