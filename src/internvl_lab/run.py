"""Run an experiment: the only module that knows every room, and builds every part once.

RunConfig ─ plan? ─ launcher and weights fit? ─ sweep? ──> run_study (a process a row)
                                              ├ probe? ──> run_probe
                                              └ one run:
  with_shards ─> for each stage: model ─ initialise ─ module + datamodule ─ Trainer.fit ─ hand-over (run_stage)
              ─> evaluation on `val` ─> report.md metrics.json *.png ─> finished.json
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.logging import RichHandler

from internvl_lab.checkpoints import check_sources, load_model, stage_done, stage_weights
from internvl_lab.checkpoints.tensors import sha256_of
from internvl_lab.config import EvaluationConfig, InitConfig, RunConfig, TestTimeConfig
from internvl_lab.config.data import VAL_MIXTURE
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation import EvaluationResult, evaluate, show, write_report
from internvl_lab.evaluation.test_time_session import checkpoint_folder, scale_test_time
from internvl_lab.inference.test_time.report import headline, result_table
from internvl_lab.prepare import (
    build_template,
    check_attention,
    check_trainer,
    rank_of_process,
    refuse_multirun_launcher,
    run_hash,
    sources_of,
    with_shards,
)
from internvl_lab.run_folder import RunFolder
from internvl_lab.run_plan import show_plan
from internvl_lab.run_probe import print_probe_plan, run_probe
from internvl_lab.run_stage import StageRunner
from internvl_lab.run_study import run_sweep, study_hash
from internvl_lab.text import ChatTemplate
from internvl_lab.tracking import (
    CsvLog,
    WandbLog,
    build_wandb,
    config_hash,
    git_revision,
    package_versions,
    report_summary,
    write_identity,
)
from internvl_lab.training import RunStopped, StopSignals, position_of, requeue_job, silence_lightning

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Invocation:
    """Say how a run was asked for."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration as plain containers: hashed, and kept in the run folder."""
    overrides: tuple[str, ...] = ()
    multirun: bool = False
    launcher: str = "basic"
    """Hydra's launcher."""
    jobs: int = 1
    """Rows of a study that run side by side."""


def run(config: RunConfig, invocation: Invocation) -> float | None:
    """Run what `config` describes and return its score, if it has one.

    Raises:
        InternVLLabError: one of its subclasses, with one clear sentence.
        RunStopped: SIGTERM or SIGUSR1 came; the process should end with status 0.
    """
    _set_up_logging()
    signals = StopSignals()
    with signals.caught():
        try:
            return _dispatch(config, invocation, signals)
        except (RunStopped, SIGTERMException) as stop:
            _announce_stop(stop if isinstance(stop, RunStopped) else RunStopped(SIGTERM), config.callbacks.requeue)
            raise


def _announce_stop(stop: RunStopped, requeue: bool) -> None:
    """Say on rank 0 where the run stopped, and put its job back into the queue; this last, for it kills the job."""
    if rank_of_process() != 0:
        return
    log.info("%s", stop)
    if requeue:
        requeue_job(stop.signum)


def _dispatch(config: RunConfig, invocation: Invocation, signals: StopSignals) -> float | None:
    """Plan, check, and run the study or the single run."""
    if config.plan:
        if config.probe is not None:
            print_probe_plan(config.probe)
        elif config.test_time is not None:
            _announce_test_time(config.test_time)
        else:
            show_plan(config, invocation.settings, invocation.overrides, study=_is_study(config, invocation))
        return None
    refuse_multirun_launcher(config.trainer, invocation.multirun, invocation.launcher)
    check_trainer(config.trainer)
    if config.probe is not None:
        return run_probe(config, invocation.settings, invocation.overrides)
    if config.test_time is not None:
        return _run_test_time(config, config.test_time, invocation)
    check_attention(config.model, config.trainer)
    check_sources(config.init_from, config.model)
    if not config.stages and not config.sweep.axes:
        raise ConfigError("nothing to run: choose a recipe or a stage")
    if config.ckpt_path is not None and (stage := position_of(Path(config.ckpt_path))[0]) not in config.stages:
        raise ConfigError(f"ckpt_path={config.ckpt_path} belongs to stage {stage}, which this run does not have")
    if _is_study(config, invocation):
        return run_sweep(config, invocation.overrides, study_hash(config, invocation.settings), invocation.jobs)
    return _run_single(config, invocation, signals)


def _announce_test_time(asked: TestTimeConfig) -> None:
    """Say who answers what, and how often."""
    tasks, who = ", ".join(asked.tasks) or "all tasks", ", ".join(asked.checkpoint)
    log.info("test time: %s answers %d questions each of %s", who, asked.samples_per_task, tasks)
    log.info("greedily, and %d times at random (%s prompt); select=%s", asked.samples, asked.prompt, asked.select)


def _run_test_time(config: RunConfig, asked: TestTimeConfig, invocation: Invocation) -> float | None:
    """Let checkpoints answer many times, in a run folder, and return the score of what `select` names."""
    weights = {name: sha256_of(checkpoint_folder(name)) for name in asked.checkpoint}
    name = config_hash({"weights": weights, "test_time": {**asdict(asked), "out": None}})
    folder = RunFolder(Path(config.paths.output_dir) / config.experiment / name)
    with folder.locked():
        folder.open(config.fresh, [checkpoint_folder(name) for name in asked.checkpoint])
        write_identity(folder.path, invocation.settings, invocation.overrides)
        with folder.clock():
            results, paths = scale_test_time(replace(asked, out=str(folder.path)), Console().is_terminal)
            Console().print(result_table(results[0]))
            score = headline(asked, results[0]).score.mean
            folder.finish({"score": score, "seed": asked.seed, "train_s": round(folder.elapsed_s(), 1)})
    for label, path in paths.items():
        log.info("%-8s %s", label, path)
    _show_paths(folder)
    return score


def _is_study(config: RunConfig, invocation: Invocation) -> bool:
    """A sweep expands, unless Hydra sweeps itself or the swept axis was chosen by hand (DESIGN 3.10)."""
    chosen = {override.split("=")[0].lstrip("+~") for override in invocation.overrides}
    return bool(config.sweep.axes) and not invocation.multirun and not chosen & config.sweep.keys


def _run_single(config: RunConfig, invocation: Invocation, signals: StopSignals) -> float | None:
    """Run all stages, evaluate, report; continue where an earlier start was stopped."""
    name = run_hash(config, invocation.settings)
    folder = RunFolder(Path(config.paths.output_dir) / config.experiment / name)
    if folder.finished and not config.fresh:
        log.info("this run is finished: %s (fresh=true runs it again)", folder.path)
        folder.link_latest()
        _show_paths(folder)
        return _score(folder.result)
    if rank_of_process() != 0:
        return _work(config, invocation, folder, signals)
    with folder.locked():
        if folder.open(config.fresh, sources_of(config)):
            log.info("resuming the unfinished run in %s", folder.path)
        write_identity(folder.path, invocation.settings, invocation.overrides)
        with folder.clock():
            return _work(config, invocation, folder, signals)


def _work(config: RunConfig, invocation: Invocation, folder: RunFolder, signals: StopSignals) -> float | None:
    """Do what a rank does in an open run folder: prepare, train; rank 0 also evaluates and reports."""
    if threads := config.trainer.get("num_threads"):
        torch.set_num_threads(int(threads))
    config = with_shards(config)
    template = build_template(config)
    csv, wandb = CsvLog(folder.path), build_wandb(folder.path, config.logger.get("wandb"), invocation.settings)
    identity = {"config": folder.path.name, "revision": git_revision(), "versions": package_versions()}
    weights = _run_stages(config, StageRunner(config, template, folder, csv, wandb, identity, signals))
    if rank_of_process() != 0:
        return None
    result = _evaluate(config, template, weights, folder) if config.evaluation.enabled else None
    return _finish(config, folder, result, wandb, identity)


def _run_stages(config: RunConfig, runner: StageRunner) -> Path:
    """Run the stages in order, each from the weights of the one before; return the last weights."""
    init, offset, weights = config.init_from, 0, Path()
    for stage in config.stages.values():
        if stage_done(runner.folder.path, stage.name):
            log.info("%s: finished before", stage.name)
            weights = stage_weights(runner.folder.path, stage.name)
        else:
            weights = runner.run(stage, init, offset)
        init = InitConfig(**dict.fromkeys(PARTS, str(weights)))
        offset += stage.max_steps
    return weights


def _evaluate(config: RunConfig, template: ChatTemplate, weights: Path, folder: RunFolder) -> EvaluationResult | None:
    """Score the final weights on the first source of the held-out mixture, where there is one."""
    sources = list(config.data.mixtures.get(VAL_MIXTURE, {}).values())
    if not sources:
        return None
    on_gpu = config.trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
    model = load_model(weights, attention=config.model.attention).to("cuda" if on_gpu else "cpu")
    place, progress = folder.path / "predictions", Console().is_terminal

    def score(cfg: EvaluationConfig, predictions_dir: Path) -> EvaluationResult:
        """Score the model, as `cfg` says."""
        given = (model, template, config.tiling, sources[0].shards, cfg)
        return evaluate(*given, predictions_dir=predictions_dir, progress=progress)

    cfg = config.evaluation
    result = score(replace(cfg, jpeg_quality=None), place)
    if cfg.jpeg_quality is None:
        return result
    return replace(result, recompressed=score(replace(cfg, blind=False), place / "recompressed"))


def _finish(
    config: RunConfig,
    folder: RunFolder,
    result: EvaluationResult | None,
    wandb: WandbLog | None,
    identity: Mapping[str, Any],
) -> float | None:
    """Write the report, hand it to W&B, close the run, and show where everything is."""
    outcome: dict[str, Any] = {"seed": config.seed}
    if result is not None:
        paths = write_report(
            folder.path,
            result,
            train_s=folder.elapsed_s,
            seed=config.seed,
            title=f"{config.experiment}: {config.model.vision.name} + {config.model.language.name}",
            settings=dict(identity),
        )
        show(result, paths)
        outcome |= result.metrics()
        if wandb is not None:
            _log_report(wandb, result, paths)
    if wandb is not None:
        wandb.finish()
    folder.finish(outcome | {"train_s": round(folder.elapsed_s(), 1)})
    _show_paths(folder)
    return _score(outcome)


def _log_report(wandb: WandbLog, result: EvaluationResult, paths: Mapping[str, Path]) -> None:
    """Show the report's table and pictures in W&B."""
    metrics = result.metrics()
    rows = [[name, t["score"], t["blind"], t["n"]] for name, t in metrics["tasks"].items()]
    wandb.log_rows("val/tasks", ["task", "score", "blind", "n"], rows)
    wandb.log_summary(report_summary(json.loads(paths["metrics"].read_text(encoding="utf-8"))))
    for name in ("contact sheet", "loss curves"):  # one key each: W&B shows pictures of one key at one size
        if name in paths:
            wandb.log_images(f"val/{name.replace(' ', '_')}", [paths[name]])


def _score(outcome: Mapping[str, Any]) -> float | None:
    overall = outcome.get("overall")
    return float(overall["score"]) if overall else None


def _show_paths(folder: RunFolder) -> None:
    log.info("run folder: %s (also %s)", folder.path, folder.path.parent.parent / "latest")


def _set_up_logging() -> None:
    """Log plain lines: rich on a terminal, bare text elsewhere."""
    console = Console(file=sys.stdout)
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
    for noisy in ("httpx", "lightning.pytorch", "lightning.fabric", "filelock", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    silence_lightning()
