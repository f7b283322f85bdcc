"""`inspect`: show what a stage will read: shares, fill, what is skipped and why, histograms, encoded samples.

overrides ── compose ──> RunConfig ── MultimodalDataModule (as in training) ──> Inspection ──> files in out=DIR
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_lab.config import RunConfig
    from internvl_lab.data.inspection import Inspection, Share
    from internvl_lab.text import ChatTemplate

log = logging.getLogger(__name__)

Row = tuple[str, ...]
SOURCE_HEAD = (
    "source",
    "samples",
    "repeat",
    "an epoch",
    "tokens",
    "tiles",
    "samples %",
    "tokens %",
    "tiles %",
    "left out",
)
"""`samples` counts each once; from `an epoch` on repeat factors are applied."""
MIN_WIDTH = 112
"""Characters that the table of sources needs; a file or a pipe would get 80, with numbers cut off."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "overrides",
        nargs="*",
        help="overrides as for train.py (default: experiment=quickstart) and out=DIR; stage=NAME chooses the stage "
        "(default: the last of the recipe)",
    )
    parser.add_argument("--samples", type=int, default=12, help="samples on the contact sheet (%(default)s)")


def execute(args: argparse.Namespace) -> None:
    """Inspect, write the files, show the tables.

    Raises:
        ConfigError: `out=DIR` is missing or the configuration has no stage.
    """
    from internvl_lab.config.compose import compose
    from internvl_lab.errors import ConfigError
    from internvl_lab.prepare import build_template, with_shards

    folders = [override.removeprefix("out=") for override in args.overrides if override.startswith("out=")]
    if len(folders) != 1 or not folders[0]:
        raise ConfigError("inspect needs one out=DIR, the folder for its report and pictures")
    if args.samples < 0:
        raise ConfigError("--samples must be at least 0")
    config = compose([override for override in args.overrides if not override.startswith("out=")])
    if not config.stages:
        raise ConfigError("nothing to inspect: choose a recipe or a stage")
    template = build_template(config)
    inspection = _inspect(with_shards(config), template, Path(folders[0]), args.samples)
    _write(inspection, template, Path(folders[0]))
    _show(inspection, list(config.stages))
    log.info("report and pictures: %s", Path(folders[0]) / "inspect.md")


def _inspect(config: RunConfig, template: ChatTemplate, out: Path, num_shown: int) -> Inspection:
    """Build the last stage's data as training does, and measure it; `skipped.jsonl` lands in `out`."""
    from internvl_lab.data import Cost
    from internvl_lab.data.datamodule import MultimodalDataModule
    from internvl_lab.data.inspection import inspect_stage
    from internvl_lab.models import pack_cost

    stage = list(config.stages.values())[-1]
    cost = Cost(*pack_cost(config.model, stage.trainable, stage.lora.parts))
    out.mkdir(parents=True, exist_ok=True)
    datamodule = MultimodalDataModule(config, stage, template, cost, out)
    loader = datamodule.train_dataloader()
    return inspect_stage(loader.dataset, stage.name, stage.mixture, len(loader), num_shown)


def _write(inspection: Inspection, template: ChatTemplate, out: Path) -> None:
    """Write pictures, numbers and report; `inspect.json` last, so that its presence means all of it."""
    import io
    import json

    from internvl_lab.atomic import write_atomic
    from internvl_lab.data.inspection_plots import draw_histograms
    from internvl_lab.data.inspection_sheet import draw_sheet

    pictures = draw_histograms(inspection)
    if inspection.shown:
        buffer = io.BytesIO()
        draw_sheet(inspection.shown, template).save(buffer, "PNG")
        pictures["contact_sheet"] = buffer.getvalue()
    for name, data in pictures.items():
        write_atomic(out / f"{name}.png", data)
    write_atomic(out / "inspect.md", _render(inspection, list(pictures)))
    write_atomic(out / "inspect.json", json.dumps(inspection.to_json(), indent=1) + "\n")


def _render(inspection: Inspection, pictures: Sequence[str]) -> str:
    """Return the report as markdown; pictures are embedded by their names beside it."""
    from internvl_lab.evaluation.report import markdown_table

    parts = [f"# Data of {inspection.stage}: mixture {inspection.mixture}"]
    parts.append(markdown_table(SOURCE_HEAD, _source_rows(inspection)))
    parts.append("`samples` counts each once; from `an epoch` on, repeat factors are applied.")
    parts.append("## Kinds\n\n" + markdown_table(("kind", *SOURCE_HEAD[3:9]), _kind_rows(inspection)))
    parts.append("## Packs\n\n" + markdown_table(("what", "value"), _fill_rows(inspection)))
    if reasons := _skip_rows(inspection):
        table = markdown_table(("source", "reason", "samples"), reasons)
        parts.append(f"## Left out\n\nEach sample is named in `skipped.jsonl`.\n\n{table}")
    if inspection.failed:
        table = markdown_table(("sample", "reason", "detail"), inspection.failed)
        parts.append(f"## Could not be encoded\n\nFound while looking for samples to show.\n\n{table}")
    notes = {"contact_sheet": "Tiles are numbered in order, thumbnails framed; text on green carries loss.\n\n"}
    parts += [f"## {_words(name)}\n\n{notes.get(name, '')}![{_words(name)}]({name}.png)" for name in pictures]
    return "\n\n".join(parts) + "\n"


def _show(inspection: Inspection, stages: Sequence[str]) -> None:
    """Print the tables."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, MIN_WIDTH))
    others = f" (of {', '.join(stages)}; stage=NAME shows another)" if len(stages) > 1 else ""
    tables: Mapping[str, tuple[Row, list[Row]]] = {
        f"{inspection.stage}{others}: mixture {inspection.mixture}": (SOURCE_HEAD, _source_rows(inspection)),
        "kinds": (("kind", *SOURCE_HEAD[3:9]), _kind_rows(inspection)),
        "packs": (("what", "value"), _fill_rows(inspection)),
        "left out": (("source", "reason", "samples"), _skip_rows(inspection)),
    }
    for title, (head, rows) in tables.items():
        if not rows:
            continue
        table = Table(head[0], title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
        for name in head[1:]:
            table.add_column(name, justify="left" if name == "reason" else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _source_rows(inspection: Inspection) -> list[Row]:
    """Return a row a source, and the sum where there are several."""
    rows = [
        (name, f"{s.used:,}", f"{s.repeat:g}", *_share_cells(s.share), f"{sum(s.skipped.values()):,}")
        for name, s in inspection.sources.items()
    ]
    if len(rows) > 1:
        used = sum(source.used for source in inspection.sources.values())
        totals = [f"{value:,.0f}" for value in inspection.totals().values()]
        left_out = sum(sum(source.skipped.values()) for source in inspection.sources.values())
        rows.append(("all", f"{used:,}", "", *totals, "100.0", "100.0", "100.0", f"{left_out:,}"))
    return rows


def _kind_rows(inspection: Inspection) -> list[Row]:
    """Return a row a kind of sample that occurs."""
    return [(name, *_share_cells(share)) for name, share in inspection.kinds.items() if share.samples]


def _share_cells(share: Share) -> Row:
    """Write samples, tokens, tiles and their shares in percent."""
    counts = (f"{share.samples:,.0f}", f"{share.tokens:,.0f}", f"{share.tiles:,.0f}")
    return (*counts, *(f"{100 * s:.1f}" for s in (share.sample_share, share.token_share, share.tile_share)))


def _fill_rows(inspection: Inspection) -> list[Row]:
    """Return what is known of the packs."""
    fill, limits = inspection.fill.summary, inspection.fill
    return [
        ("packs measured, from the first on", f"{fill['packs']:,.0f}"),
        ("samples a pack", f"{fill['samples_per_pack']:.1f}"),
        (f"token fill of {limits.max_tokens:,}", f"{fill['token_fill']:.1%}"),
        (f"tile fill of {limits.max_tiles:,}", f"{fill['tile_fill']:.1%}"),
        ("efficiency: lower bound / packs", f"{fill['efficiency']:.3f}"),
    ]


def _skip_rows(inspection: Inspection) -> list[Row]:
    """Return a row for each source and reason."""
    return [
        (name, reason, f"{count:,}")
        for name, source in inspection.sources.items()
        for reason, count in source.skipped.items()
    ]


def _words(name: str) -> str:
    """Turn a file's name into a heading."""
    return name.replace("_", " ").capitalize()
