"""Evaluate one checkpoint on chosen tasks, from names to report.

::

    tasks ─ build_suites ─> questions ─ Answerer ─> predictions/*.jsonl ─ score_suite ─> report, metrics, tables
                                                          └ judged sets ─> judge/*.jsonl
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from internvl_lab.checkpoints import load_model, load_processor
from internvl_lab.config.evaluate import EvaluateConfig
from internvl_lab.evaluation.answer_log import AnswerLog
from internvl_lab.evaluation.answering import Answerer
from internvl_lab.evaluation.benchmark_report import capability_tables, write_benchmark_report
from internvl_lab.evaluation.judges import read_judge_answers, write_judge_file
from internvl_lab.evaluation.runner import move_to_device, progress_bar, weights_fingerprint
from internvl_lab.evaluation.scoring import Score, score_suite, summarise
from internvl_lab.evaluation.suites import Suite, build_suites, expand_names
from internvl_lab.tracking import WandbLog, git_revision, package_versions

logger = logging.getLogger(__name__)


def evaluate_checkpoint(cfg: EvaluateConfig, weights: Path, progress: bool = False) -> dict[str, Path]:
    """Answer, score and report all chosen tasks; what an earlier, killed run has answered is not asked again.

    Args:
        cfg: what is evaluated.
        weights: folder that `cfg.checkpoint` names.
        progress: show a bar for each task.
    Returns:
        Name to path of everything written.
    Raises:
        ConfigError: an unknown task, a missing file, or a device that is not there.
        CheckpointError: weights that do not fit.
    """
    expand_names(cfg.tasks)  # a wrong name costs no loading
    judged = read_judge_answers(Path(cfg.judge_answers)) if cfg.judge_answers else {}
    template, tiling = load_processor(weights)
    suites = build_suites(cfg, template)
    model = move_to_device(load_model(weights, dtype=cfg.dtype), cfg.device)
    answerer = Answerer(model, template, tiling, cfg.batch_size, cfg.blind)
    common = {
        "checkpoint": cfg.checkpoint,
        "weights": weights_fingerprint(model),
        "dtype": cfg.dtype,
        "device": next(model.parameters()).device.type,
        "seed": cfg.seed,
        "versions": package_versions(),
        "revision": git_revision(),
    }
    out = Path(cfg.out)
    scores = _run_all(suites, answerer, common, out, judged, progress)
    # the revision of the answers, which may be older than this process
    common |= {name: scores[0].settings.get(name) for name in common}
    paths = write_benchmark_report(out, scores, common, cfg.checkpoint, cfg.seed)
    if cfg.wandb != "disabled":
        log_to_wandb(cfg, scores)
    return paths


def _run_all(
    suites: list[Suite],
    answerer: Answerer,
    common: dict[str, Any],
    out: Path,
    judged: dict[str, dict[str, float]],
    progress: bool,
) -> list[Score]:
    """Answer and score one task after the other."""
    scores = []
    with progress_bar(progress) as bar:
        for suite in suites:
            settings = {**common, **answerer.settings(suite)}
            log = AnswerLog(out / "predictions", suite.name, settings, answerer.chunk_size)
            row = bar.add_task(suite.name, total=len(suite.items))
            if log.lines:
                logger.info("%s: goes on behind %d answers", suite.name, len(log.lines))
            answerer.run(suite, log, lambda n, row=row: bar.advance(row, n))  # type: ignore[misc]
            score = score_suite(suite, log.lines, log.settings, judged.get(suite.name))
            if suite.judged:
                write_judge_file(out / "judge" / f"{suite.name}.jsonl", suite, log.lines)
            scores.append(score)
            shown = "no score" if score.shown is None else f"{score.shown:.1f}"
            logger.info("%s: %s, n %d, skipped %d", suite.name, shown, score.n, score.num_skipped)
    return scores


def log_to_wandb(cfg: EvaluateConfig, scores: list[Score]) -> None:
    """Log one table a capability and every score to W&B."""
    run = WandbLog(Path(cfg.out), mode=cfg.wandb, name=f"evaluate {cfg.checkpoint}")
    for table in capability_tables(scores, cfg.checkpoint):
        run.log_rows(f"evaluation/{table.name}", ["model", "source", *table.columns], table.rows)
    tasks = summarise(scores)["tasks"]
    run.log_summary({f"evaluation/{name}": values["score"] for name, values in tasks.items()})
    run.finish()
