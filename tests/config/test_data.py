import pytest

from internvl_lab.config import DataConfig, JpegConfig, PackingConfig, SourceConfig, TilingConfig
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
        (lambda: SourceConfig(repeat=0.0), "repeat"),
        (lambda: SourceConfig(repeat=4.5), "repeat"),
        (lambda: DataConfig(loss_averaging="cube"), "loss_averaging"),
        (lambda: DataConfig(weight_unit="word"), "weight_unit"),
    ],
)
def test_impossible_values_name_the_key(make, key):
    with pytest.raises(ConfigError, match=key):
        make()


def test_defaults_are_the_report_s():
    assert (PackingConfig().max_tokens, PackingConfig().max_tiles) == (16384, 48)
    assert (JpegConfig().min_quality, JpegConfig().max_quality) == (75, 100)
    assert DataConfig().loss_averaging == "square"
