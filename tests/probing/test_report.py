from dataclasses import replace

from internvl_lab.probing.report import write_classification, write_segmentation
from internvl_lab.probing.score import Score

BASE = Score("mini", 0, "linear", 2, "shape", "world", 10, 0.5, 0.4, 0.1)


def test_several_depths_get_a_figure(tmp_path):
    scores = [replace(BASE, depth=depth) for depth in (0, 2)]
    paths = write_classification(tmp_path, scores, {"data": "miniworld"})
    assert {path.name for path in paths.values()} == {"probe.csv", "layerwise.csv", "layerwise.png", "report.md"}
    text = paths["report"].read_text()
    assert "| mini | linear | 50.0 | 50.0 |" in text
    assert "layerwise.png" in text
    assert "## Published" in text
    assert "| InternViT-6B-448px-V2.5 | attention | 88.3 |" in text
    assert "ema_accuracy" in text
    assert "- data: `miniworld`" in text


def test_a_single_depth_gets_none(tmp_path):
    paths = write_classification(tmp_path, [replace(BASE, ema_accuracy=None)], {})
    assert "figure" not in paths
    assert "ema_accuracy" not in paths["report"].read_text()


def test_segmentation_gets_its_table_figure_and_the_pictures_beside(tmp_path):
    scores = [replace(BASE, head=head, target="mIoU", ema_accuracy=None) for head in ("linear", "upernet", "full")]
    (tmp_path / "pictures_mini_full.png").write_bytes(b"")
    paths = write_segmentation(tmp_path, scores, {"data": "miniworld"})
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths.values()}
    assert {"probe.csv", "segmentation.csv", "segmentation.png", "report.md"} <= {path.name for path in paths.values()}
    text = paths["report"].read_text()
    assert "| mini | full | 50.0 | 50.0 | +0.0 |" in text
    assert "![picture, truth, prediction](pictures_mini_full.png)" in text
    assert "| InternViT-6B-448px-V2.5 | full | 58.6 | 51.8 | 55.2 | +17.7 |" in text
