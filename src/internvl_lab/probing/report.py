"""Write what a classification probe leaves for its readers.

run_dir/probe.csv layerwise.csv     numbers, see `table`
        layerwise.png               accuracy at every depth, where there is more than one
        report.md                   the report's layout, the published rows beside ours
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from internvl_lab.atomic import write_atomic
from internvl_lab.probing.plot import draw_heads, draw_layerwise
from internvl_lab.probing.score import Score
from internvl_lab.probing.table import (
    headline,
    markdown,
    published_classification,
    published_segmentation,
    score_rows,
    summarise,
    write_scores,
    write_summaries,
)

NOTE = (
    "Top-1 accuracy in % of heads on the frozen encoder's last layer; with several seeds mean ± standard deviation, "
    "with several runs over the runs. `linear`: CLS and mean patch -> BN -> linear. `attention`: attention pooling -> "
    "BN -> linear. `knn` and `class_mean` need no training. Δ: gain in the average over the linear head, which the "
    "report reads as what is there but not linearly separable."
)
PUBLISHED = (
    "ImageNet-1K and variants, InternVL 2.5, table 14: not comparable with numbers on other data. "
    "The report's reading: with next-token training linear separability falls while attention-pooled quality holds."
)


def write_classification(run_dir: Path, scores: Sequence[Score], settings: Mapping[str, object]) -> dict[str, Path]:
    """Write tables, picture and report.

    Args:
        run_dir: created if missing.
        scores: of all encoders and seeds.
        settings: to list: data, encoders, seconds.
    Returns:
        Name to path of everything written.
    """
    summaries = summarise(scores)
    paths = {
        "scores": write_scores(run_dir / "probe.csv", scores),
        "layer-wise": write_summaries(run_dir / "layerwise.csv", summaries),
    }
    if len({s.depth for s in summaries}) > 1:
        paths["figure"] = write_atomic(run_dir / "layerwise.png", draw_layerwise(summaries))
    parts = ["# Probe: classification", markdown(*score_rows(headline(summaries))), NOTE]
    if "figure" in paths:
        parts.append(f"## Every depth\n\n![accuracy at every depth]({paths['figure'].name})")
    if any(score.ema_accuracy is not None for score in scores):
        parts.append("`probe.csv` also holds the accuracy of the heads' moving average (`ema_accuracy`).")
    parts += ["## Published", published_classification(), PUBLISHED, "## Settings"]
    parts.append("\n".join(f"- {name}: `{value}`" for name, value in settings.items()))
    paths["report"] = write_atomic(run_dir / "report.md", "\n\n".join(parts) + "\n")
    return paths


SEGMENTATION_NOTE = (
    "mIoU in % over the classes that occur, by sliding windows. `linear`: BN and 1x1 convolution on one frozen layer. "
    "`upernet`: UperNet on four frozen layers (head tuning). `full`: UperNet, the encoder trained as well."
)
SEGMENTATION_PUBLISHED = (
    "InternVL 2.5, table 15: ADE20K and COCO-Stuff-164K, not comparable with numbers on other data."
)


def write_segmentation(run_dir: Path, scores: Sequence[Score], settings: Mapping[str, object]) -> dict[str, Path]:
    """Write tables, figure and report; picture grids (`pictures_*.png`) that lie beside are shown in it.

    Args:
        run_dir: created if missing.
        scores: of all encoders, heads and seeds.
        settings: to list.
    Returns:
        Name to path of everything written.
    """
    summaries = summarise(scores)
    paths = {
        "scores": write_scores(run_dir / "probe.csv", scores),
        "summary": write_summaries(run_dir / "segmentation.csv", summaries),
        "figure": write_atomic(run_dir / "segmentation.png", draw_heads(summaries)),
    }
    parts = ["# Probe: segmentation", markdown(*score_rows(summaries)), SEGMENTATION_NOTE]
    parts.append(f"![mIoU of every head]({paths['figure'].name})")
    for picture in sorted(run_dir.glob("pictures_*.png")):
        paths[picture.stem] = picture
        parts.append(f"## {picture.stem.removeprefix('pictures_')}\n\n![picture, truth, prediction]({picture.name})")
    parts += ["## Published", published_segmentation(), SEGMENTATION_PUBLISHED, "## Settings"]
    parts.append("\n".join(f"- {name}: `{value}`" for name, value in settings.items()))
    paths["report"] = write_atomic(run_dir / "report.md", "\n\n".join(parts) + "\n")
    return paths
