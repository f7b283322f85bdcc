import pytest

from internvl_lab.config import DataConfig, JpegConfig, MiniworldConfig, PackingConfig, SourceConfig, TilingConfig
from internvl_lab.config.compose import compose
from internvl_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: TilingConfig(min_tiles=4, max_tiles=2), "min_tiles"),
        (lambda: TilingConfig(resize="cv2"), "resize"),
        (lambda: JpegConfig(min_quality=0), "qualities"),
        (lambda: JpegConfig(min_quality=90, max_quality=80), "qualities"),
        (lambda: PackingConfig(max_tokens=0), "max_tokens"),
        (lambda: PackingConfig(packs_per_step=0), "packs_per_step"),
        (lambda: PackingConfig(policy="best"), r"packing\.policy='best'"),
        (lambda: PackingConfig(max_cost_ratio=0.0), r"packing\.max_cost_ratio=0\.0"),
        (lambda: PackingConfig(max_cost_ratio=1.1, policy="official"), "null for policy=official"),
        (lambda: JpegConfig(backend="turbo"), r"data\.jpeg\.backend='turbo'"),
        (lambda: SourceConfig(repeat=0.0), "repeat"),
        (lambda: SourceConfig(repeat=4.5), "repeat"),
        (lambda: SourceConfig(repeat=4.0001), r"repeat=4\.0001 must lie in \(0, 4\]"),
        (lambda: SourceConfig(repeat=-1.0), "repeat"),
        (lambda: SourceConfig(repeat=float("nan")), "repeat"),
        (lambda: SourceConfig(weight=0.0), r"weight=0\.0 must be above 0"),
        (lambda: SourceConfig(weight=float("inf")), "weight"),
        (lambda: DataConfig(loss_averaging="cube"), "loss_averaging"),
        (lambda: DataConfig(weight_unit="word"), "weight_unit"),
        (lambda: DataConfig(num_workers=-1), r"data\.num_workers=-1"),
        (lambda: DataConfig(prefetch_factor=0), r"data\.prefetch_factor=0"),
        (lambda: DataConfig(max_bad_share=1.5), r"data\.max_bad_share=1\.5"),
        (lambda: DataConfig(max_bad_share=-0.1), r"data\.max_bad_share=-0\.1"),
        (lambda: DataConfig(max_bad_in_row=0), r"data\.max_bad_in_row=0"),
        (lambda: SourceConfig(max_tiles=0), r"max_tiles=0"),
        (lambda: SourceConfig(min_frames=0), r"min_frames=0"),
        (lambda: SourceConfig(min_frames=9, max_frames=8), r"min_frames=9 and max_frames=8 do not fit"),
        (lambda: DataConfig(long_samples="drop"), r"data\.long_samples='drop' must be skip, truncate_text or split"),
        (lambda: DataConfig(cache_gb=0), r"data\.cache_gb=0 must be above 0"),
        (lambda: TilingConfig(tile_size=0), r"tiling\.tile_size=0"),
        (lambda: MiniworldConfig(seed=-1), r"data\.miniworld\.seed=-1"),
        (lambda: MiniworldConfig(num_pretrain=-1), r"data\.miniworld\.num_pretrain=-1"),
        (lambda: MiniworldConfig(num_val=-1), r"data\.miniworld\.num_val=-1"),
        (lambda: MiniworldConfig(samples_per_shard=0), r"data\.miniworld\.samples_per_shard=0"),
    ],
)
def test_impossible_values_name_the_key(make, key):
    with pytest.raises(ConfigError, match=key):
        make()


def test_the_limits_themselves_pass():
    assert DataConfig(num_workers=0, prefetch_factor=1, max_bad_share=1.0).max_bad_share == 1
    assert MiniworldConfig(num_pretrain=0, num_val=0, samples_per_shard=1).num_val == 0


def test_defaults_are_the_report_s():
    assert (PackingConfig().max_tokens, PackingConfig().max_tiles) == (16384, 48)
    assert (JpegConfig().min_quality, JpegConfig().max_quality) == (75, 100)
    assert DataConfig().loss_averaging == "square"


def test_the_jpeg_backend_and_the_policy_are_overrides():
    config = compose(["packing=official", "data.jpeg.backend=pillow"])
    assert config.data.jpeg.backend == "pillow"
    assert (config.packing.policy, config.packing.group_window) == ("official", 1)
    assert compose([]).packing == compose(["packing.policy=pool", "packing.max_cost_ratio=null"]).packing
    with pytest.raises(ConfigError, match="null for policy=official"):
        compose(["packing=official", "packing.max_cost_ratio=1.1"])


def test_commands_are_always_streamed_and_others_when_asked():
    assert SourceConfig(shards="pipe:cat x").is_streamed and SourceConfig(shards="/x", stream=True).is_streamed
    assert not SourceConfig(shards="/x").is_streamed
    overrides = ["data.mixtures.pretrain.pretrain.shards=pipe:cat /x.tar"]
    assert compose(overrides).data.mixtures["pretrain"]["pretrain"].is_streamed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stage=stage2", "stage.mixture=x"],
            r"stage stage2: stage\.mixture='x' is not in data\.mixtures",
        ),
        (["stage=stage2", "~data.mixtures.finetune.finetune"], r"stage stage2: data\.mixtures\.finetune has no source"),
        (
            ["+data.mixtures.finetune.new={shards: 'pipe:cat x'}"],
            r"data\.mixtures\.finetune mixes streamed sources \(new\) with indexed ones \(finetune\): stream all",
        ),
        (["data.mixtures.val.val.shards=pipe:cat x"], r"data\.mixtures\.val is streamed: held-out data needs an index"),
    ],
)
def test_a_mixture_that_no_stage_can_read_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose([*overrides, "plan=true"])
