"""Evaluate one checkpoint on chosen tasks, from names to report.

::

    tasks ─ build_suites ─> questions ─ Answerer ─> predictions/*.jsonl ─ score_suite ─> report, metrics, tables
                                                          └ judged sets ─> judge/*.jsonl ─ a judge ─┘
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from internvl_lab.atomic import held
from internvl_lab.checkpoints import load_model, load_processor
from internvl_lab.config.evaluate import EvaluateConfig
from internvl_lab.errors import JudgeError
from internvl_lab.evaluation.answer_log import AnswerLog
from internvl_lab.evaluation.answering import Answerer
from internvl_lab.evaluation.benchmark_report import capability_tables, write_benchmark_report
from internvl_lab.evaluation.judges import read_judge_answers, write_judge_file
from internvl_lab.evaluation.judging.opinions import ask_judge
from internvl_lab.evaluation.judging.protocols import Opinions
from internvl_lab.evaluation.runner import move_to_device, progress_bar, weights_fingerprint
from internvl_lab.evaluation.scoring import Score, score_suite, summarise
from internvl_lab.evaluation.submissions import write_submission
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
        ConfigError: an unknown task, a missing file, a device that is not there, or another process writes to `out`.
        CheckpointError: weights that do not fit.
        JudgeError: the judge cannot be used; all answers, and the report without its scores, are written before.
    """
    expand_names(cfg.tasks)  # a wrong name costs no loading
    if cfg.judge_answers:
        read_judge_answers(Path(cfg.judge_answers))  # and so does a wrong file
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
    with held(out / "predictions", "out"):
        answered = _answer_all(suites, answerer, common, out, progress)
        opinions, failure = _judge_all(cfg, answered, out)
    scores = [score_suite(suite, log.lines, log.settings, opinions.get(suite.name)) for suite, log in answered]
    for score in scores:
        shown = "no score" if score.shown is None else f"{score.shown:.{score.decimals}f}"
        logger.info("%s: %s, n %d, skipped %d", score.suite.name, shown, score.n, score.num_skipped)
    # the revision of the answers, which may be older than this process
    common |= {name: scores[0].settings.get(name) for name in common}
    paths = write_benchmark_report(out, scores, common, cfg.checkpoint, cfg.seed)
    if cfg.wandb != "disabled":
        log_to_wandb(cfg, scores)
    if failure:
        raise failure
    return paths


def _answer_all(
    suites: list[Suite], answerer: Answerer, common: dict[str, Any], out: Path, progress: bool
) -> list[tuple[Suite, AnswerLog]]:
    """Answer one task after the other."""
    answered = []
    with progress_bar(progress) as bar:
        for suite in suites:
            settings = {**common, **answerer.settings(suite)}
            log = AnswerLog(out / "predictions", suite.name, settings, answerer.chunk_size)
            row = bar.add_task(suite.name, total=len(suite.items))
            if log.lines:
                logger.info("%s: goes on behind %d answers", suite.name, len(log.lines))
            answerer.run(suite, log, lambda n, row=row: bar.advance(row, n))  # type: ignore[misc]
            if suite.submission:
                path = write_submission(out / "submissions", suite.submission, suite.name, log.lines)
                logger.info("%s: for its own scorer, %s", suite.name, path)
            answered.append((suite, log))
    return answered


def _judge_all(
    cfg: EvaluateConfig, answered: list[tuple[Suite, AnswerLog]], out: Path
) -> tuple[dict[str, Opinions], JudgeError | None]:
    """Write what judges have to read, and read or fetch their scores.

    Returns:
        Task -> scores, and the error that ended the asking: the report is written all the same.
    """
    given = read_judge_answers(Path(cfg.judge_answers)) if cfg.judge_answers else {}
    opinions = {name: Opinions(scores, f"scores of {cfg.judge_answers}") for name, scores in given.items()}
    for suite, log in answered:
        if not suite.judged:
            continue
        write_judge_file(out / "judge" / f"{suite.name}.jsonl", suite, log.lines)
        if suite.name in opinions or cfg.judge.kind == "none":
            continue
        try:
            opinions[suite.name] = ask_judge(cfg.judge, suite, log.lines, out / "judge")
        except JudgeError as error:
            return opinions, error
    return opinions, None


def log_to_wandb(cfg: EvaluateConfig, scores: list[Score]) -> None:
    """Log one table a capability and every score to W&B."""
    run = WandbLog(Path(cfg.out), mode=cfg.wandb, name=f"evaluate {cfg.checkpoint}")
    for table in capability_tables(scores, cfg.checkpoint):
        run.log_rows(f"evaluation/{table.name}", ["model", "source", *table.columns], table.rows)
    tasks = summarise(scores)["tasks"]
    run.log_summary({f"evaluation/{name}": values["score"] for name, values in tasks.items()})
    run.finish()
