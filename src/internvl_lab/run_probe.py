"""Run a probe instead of stages: what encoders have learned, as a table.

RunConfig.probe ─ encoders found? data there? ─> for each encoder: load ─ encode ─ for each seed: train heads, score
               ─> scores/<encoder>-<seed>.json (what is there is not done again) ─> report.md *.csv *.png finished.json
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Column, Table

from internvl_lab.atomic import write_atomic
from internvl_lab.config import ProbeConfig, RunConfig
from internvl_lab.errors import ConfigError
from internvl_lab.prepare import build_trainer, check_trainer, rank_of_process, world_size_of
from internvl_lab.probing.classify import Classifier, open_data
from internvl_lab.probing.encoder import EncoderSource, list_encoders, load_encoder
from internvl_lab.probing.grids import draw_grid
from internvl_lab.probing.masks import open_masks
from internvl_lab.probing.report import write_classification, write_segmentation
from internvl_lab.probing.score import Score
from internvl_lab.probing.segment import Segmenter, heads_of
from internvl_lab.probing.table import headline, score_rows, summarise
from internvl_lab.run_folder import RunFolder
from internvl_lab.tracking import build_wandb, config_hash, git_revision, write_identity

log = logging.getLogger(__name__)

CACHE_FOLDER = "probe_features"
"""Inside `paths.data_dir`."""
Prober = Callable[[EncoderSource], Callable[[int], list[Score]]]
"""Prepares an encoder, and then gives its scores for a seed."""


def print_probe_plan(probe: ProbeConfig, console: Console | None = None) -> None:
    """Print what a probe would do; needs no weights."""
    console = console or Console()
    heads = (probe.classification if probe.task == "classification" else probe.segmentation).heads
    encoders = probe.run or ", ".join(probe.runs or probe.encoders) or probe.encoder or "none named"
    tests = ", ".join(probe.data.tests) or probe.data.name
    console.print(f"probe {probe.task}: heads {', '.join(heads)}; {probe.num_seeds} seeds; scored on {tests}")
    console.print(f"encoders: {encoders}", soft_wrap=True, markup=False)


def run_probe(config: RunConfig, settings: Mapping[str, Any], overrides: Sequence[str]) -> float | None:
    """Probe the encoders a configuration names and return the best average of the last of them.

    Args:
        config: with `probe`.
        settings: the resolved configuration as plain containers.
        overrides: the command line.
    Raises:
        InternVLLabError: one of its subclasses, with one clear sentence.
    """
    assert config.probe is not None
    check_trainer(config.trainer)
    if world_size_of(config.trainer) > 1 or rank_of_process() != 0:
        raise ConfigError("a probe runs on one device: set trainer.devices=1")
    sources = list_encoders(config.probe)
    folder = RunFolder(Path(config.paths.output_dir) / config.experiment / _name(config, settings, sources))
    if folder.finished and not config.fresh:
        log.info("this probe is finished: %s (fresh=true runs it again)", folder.path)
        folder.link_latest()
        return _score(folder.result)
    with folder.locked():
        if folder.open(config.fresh, [source.folder for source in sources]):
            log.info("resuming the unfinished probe in %s", folder.path)
        write_identity(folder.path, settings, overrides)
        with folder.clock():
            return _work(config, config.probe, settings, sources, folder)


def _name(config: RunConfig, settings: Mapping[str, Any], sources: Sequence[EncoderSource]) -> str:
    """Name a probe by what decides its result, the content of the weights included."""
    named = {source.name: source.fingerprint for source in sources}
    probe = {key: value for key, value in settings["probe"].items() if key != "runs"}
    probe |= {"encoder": None, "encoders": named, "run": None}
    rest = {"seed": config.seed, "dtype": config.model.dtype, "max_steps": config.max_steps_per_stage}
    return config_hash({"probe": probe, **rest})


def _work(
    config: RunConfig,
    probe: ProbeConfig,
    settings: Mapping[str, Any],
    sources: Sequence[EncoderSource],
    folder: RunFolder,
) -> float | None:
    """Score every encoder and seed that is not scored yet, and report."""
    if threads := config.trainer.get("num_threads"):
        torch.set_num_threads(int(threads))
    classifies = probe.task == "classification"
    prober = _classifiers(config, probe) if classifies else _segmenters(config, probe, folder)
    scores = _collect(config, probe, sources, folder, prober)
    facts = {
        "data": probe.data.name,
        "encoders": {source.name: str(source.folder) for source in sources},
        "seeds": list(range(config.seed, config.seed + probe.num_seeds)),
        probe.task: asdict(probe.classification if classifies else probe.segmentation),
        "revision": git_revision(),
        "seconds": round(folder.elapsed_s(), 1),
    }
    paths = (write_classification if classifies else write_segmentation)(folder.path, scores, facts)
    head, rows = score_rows(headline(summarise(scores)) if classifies else summarise(scores))
    _show(head, rows, paths)
    _log_to_wandb(config, folder, settings, head, rows, paths)
    result = {"rows": [dict(zip(head, row, strict=True)) for row in rows], "score": _best_average(rows)}
    write_atomic(folder.path / "metrics.json", json.dumps(result, indent=1) + "\n")
    folder.finish({**result, "train_s": round(folder.elapsed_s(), 1)})
    log.info("run folder: %s (also %s)", folder.path, folder.path.parent.parent / "latest")
    return _score(result)


def _best_average(rows: Sequence[Sequence[str]]) -> float:
    """Return the best average among the last encoder's rows, as a share."""
    return max(float(row[-2]) for row in rows if row[0] == rows[-1][0]) / 100


def _collect(
    config: RunConfig, probe: ProbeConfig, sources: Sequence[EncoderSource], folder: RunFolder, prober: Prober
) -> list[Score]:
    """Probe every encoder from every seed; scores of an earlier start are read."""
    scores: list[Score] = []
    for number, source in enumerate(sources):
        run: Callable[[int], list[Score]] | None = None
        for seed in range(config.seed, config.seed + probe.num_seeds):
            place = folder.path / "scores" / f"{number}-{source.label}-{seed}.json"
            if not place.is_file():
                run = run or prober(source)
                found = [asdict(replace(score, run=source.run)) for score in run(seed)]
                write_atomic(place, json.dumps(found, indent=1))
                log.info("%s, seed %d: scored", source.name, seed)
            scores += [Score(**entry) for entry in json.loads(place.read_text(encoding="utf-8"))]
    return scores


def _classifiers(config: RunConfig, probe: ProbeConfig) -> Prober:
    """Open the pictures; return what encodes them with an encoder and trains heads from a seed."""
    limit = config.max_steps_per_stage
    data = open_data(probe.data, None if limit is None else limit * probe.classification.batch_size)

    def prepare(source: EncoderSource) -> Callable[[int], list[Score]]:
        """Load an encoder and encode the data."""
        classifier = Classifier(
            load_encoder(source, config.model.dtype, config.model.vision_attention),
            data,
            probe,
            Path(config.paths.data_dir) / CACHE_FOLDER,
            _trainers(config),
            _device(config),
            num_workers=config.data.num_workers,
            max_steps=limit,
            max_bad_share=config.data.max_bad_share,
        )
        # what needs no training has no seed: it goes with the first
        return lambda seed: classifier.run(seed) + (classifier.without_training() if seed == config.seed else [])

    return prepare


def _segmenters(config: RunConfig, probe: ProbeConfig, folder: RunFolder) -> Prober:
    """Open the masks; return what trains every head of an encoder from a seed and draws pictures."""
    limit = config.max_steps_per_stage
    train, tests = open_masks(probe.data, None if limit is None else limit * probe.segmentation.batch_size)

    def prepare(source: EncoderSource) -> Callable[[int], list[Score]]:
        """Load an encoder."""
        encoder = load_encoder(source, config.model.dtype, config.model.vision_attention)
        options = (_trainers(config), _device(config), config.data.num_workers, limit, config.data.max_bad_share)
        segmenter = Segmenter(encoder, train, tests, probe.segmentation, *options)

        def run(seed: int) -> list[Score]:
            """Train and score every head."""
            scores = []
            for head in heads_of(probe.segmentation):
                found, examples = segmenter.run(head, seed)
                scores += found
                if examples and seed == config.seed:
                    picture = io.BytesIO()
                    draw_grid(examples, train.num_classes).save(picture, format="PNG")
                    write_atomic(
                        folder.path / f"pictures_{source.name}_{head}.png".replace(" ", "_"), picture.getvalue()
                    )
            return scores

        return run

    return prepare


def _device(config: RunConfig) -> torch.device:
    on_gpu = config.trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def _trainers(config: RunConfig) -> Callable[..., L.Trainer]:
    """Give Trainers for the many short trainings of a probe: no checkpoints, no loggers."""

    def build(**fixed: Any) -> L.Trainer:
        """Build one."""
        options = {key: value for key, value in config.trainer.items() if key != "limit_val_batches"}
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        return build_trainer(options, **quiet, enable_progress_bar=config.callbacks.progress_bar, **fixed)

    return build


def _show(head: Sequence[str], rows: Sequence[Sequence[str]], paths: Mapping[str, Path]) -> None:
    """Write the table and the paths to the terminal."""
    console, table = Console(), Table(*(Column(name, overflow="fold") for name in head))
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for name, path in paths.items():
        console.print(f"{name:<10}  {path}", soft_wrap=True, markup=False, highlight=False)


def _log_to_wandb(
    config: RunConfig,
    folder: RunFolder,
    settings: Mapping[str, Any],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    paths: Mapping[str, Path],
) -> None:
    """Show table and figure in W&B."""
    wandb = build_wandb(folder.path, config.logger.get("wandb"), dict(settings))
    if wandb is None:
        return
    wandb.log_rows("probe", list(head), [list(row) for row in rows])
    if "figure" in paths:
        wandb.log_images(f"probe/{paths['figure'].stem}", [paths["figure"]])
    wandb.finish()


def _score(result: Mapping[str, Any]) -> float | None:
    return float(result["score"]) if result.get("score") is not None else None
