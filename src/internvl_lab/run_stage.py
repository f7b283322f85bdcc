"""Run one stage: parts in, weights out.

weights of the stage before (or `init_from`) ─ initialise ─> InternVL ─ Trainer.fit ─> stages/<stage>/weights
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import RichModelSummary

from internvl_lab.checkpoints import export_adapter, initialise, stage_dir, stage_provenance, stage_weights, write_stage
from internvl_lab.config import InitConfig, RunConfig, StageConfig
from internvl_lab.config.data import VAL_MIXTURE
from internvl_lab.data import Batch, Cost
from internvl_lab.data.datamodule import MultimodalDataModule
from internvl_lab.errors import ResumeError
from internvl_lab.evaluation.validation import build_validation
from internvl_lab.models import InternVL, build_on_meta, gather_weights, pack_cost, step_flops
from internvl_lab.prepare import build_trainer, device_of, world_size_of
from internvl_lab.run_folder import RunFolder
from internvl_lab.text import ChatTemplate
from internvl_lab.tracking import CUMULATIVE, CsvLog, WandbLog, last_values
from internvl_lab.training import (
    FSDP2,
    InternVLModule,
    StopSignals,
    add_monitors,
    build_callbacks,
    find_resume,
    loop_settings,
    position_of,
)
from internvl_lab.training.materialise import materialise
from internvl_lab.training.throughput import device_peak

log = logging.getLogger(__name__)


@dataclass
class StageRunner:
    """Hold what the stages of one run share."""

    config: RunConfig
    template: ChatTemplate
    folder: RunFolder
    csv: CsvLog
    wandb: WandbLog | None
    identity: Mapping[str, Any]
    """What a stage's provenance records of the run: hash, revision, versions."""
    signals: StopSignals | None = None
    """Signals that stop a stage between two steps."""

    def run(self, stage: StageConfig, init: InitConfig, step_offset: int) -> Path:
        """Train one stage from `init`, or from its newest checkpoint, and return its weights folder.

        Args:
            stage: what trains.
            init: where the parts' weights come from.
            step_offset: optimizer steps of the stages before.
        Raises:
            CheckpointError, ConfigError, MissingWeightsError, ResumeError, ShardError: as their names say.
            RunStopped: a signal asked for it.
        """
        config, run_dir = self.config, self.folder.path
        checkpoints = stage_dir(run_dir, stage.name) / "checkpoints"
        resume = choose_checkpoint(stage.name, config.ckpt_path, find_resume(checkpoints))
        check_sharding(resume, config.trainer)
        if resume is None:
            self.csv.cut_back(stage.name, 0)  # rows of a start that was killed before its first checkpoint
        L.seed_everything(config.seed, verbose=False)
        sharded = config.trainer.get("strategy") == FSDP2
        model = (build_on_meta if sharded else InternVL)(config.model, self.template.context_id)
        sources = {} if sharded else initialise(model, init)

        def fill(device: torch.device) -> None:
            """Load a model that was sharded empty."""
            sources.update(materialise(model, device, init, config.seed))

        cost = Cost(*pack_cost(config.model, stage.trainable, stage.lora.parts))
        datamodule = MultimodalDataModule(config, stage, self.template, cost, run_dir)
        module = InternVLModule(
            model,
            stage,
            config.optimizer,
            config.scheduler,
            config.seed,
            source_names=tuple(config.data.mixtures[stage.mixture]),
            flops_fn=count_flops(config, stage),
            compile_backend=config.trainer.get("compile_backend"),
            fill=fill if sharded else None,
        )
        trainer = self._trainer(stage, checkpoints, step_offset)
        self._announce(stage, resume)
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
        weights = gather_weights(model, keep=trainer.is_global_zero)  # all ranks, for their shards
        if trainer.is_global_zero:
            record = stage_provenance(stage.name, trainer.global_step, sources, str(self.identity["config"]))
            record |= self.identity
            if stage.lora.parts and (last := find_resume(checkpoints)):
                export_adapter(last, stage_dir(run_dir, stage.name) / "adapter")
            write_stage(run_dir, stage.name, model, record, None, self.template, config.tiling, weights)
        trainer.strategy.barrier()
        return stage_weights(run_dir, stage.name)

    def _trainer(self, stage: StageConfig, checkpoints: Path, step_offset: int) -> L.Trainer:
        config = self.config
        packs_per_step = config.packs_per_step(stage)
        options = config.trainer
        totals = last_values(self.folder.path, CUMULATIVE)
        held_out = next((source.shards for source in config.data.mixtures.get(VAL_MIXTURE, {}).values()), None)
        callbacks = build_callbacks(
            stage,
            config.packing,
            self.folder.path,
            checkpoints,
            step_offset=step_offset,
            totals=totals,
            settings=config.callbacks,
            signals=self.signals,
            journal=config.data.journal,
            peak_flops=device_peak(*device_of(config.model, options)),
        )
        callbacks = add_monitors(callbacks, build_validation(config, self.template, held_out, self.folder.path))
        if config.callbacks.model_summary and step_offset == 0:
            callbacks.append(RichModelSummary(max_depth=2))
        loggers = [self.csv] if self.wandb is None else [self.csv, self.wandb]
        world_size = world_size_of(options)
        return build_trainer(
            options,
            **loop_settings(stage, packs_per_step, world_size),
            callbacks=callbacks,
            logger=loggers,
            enable_model_summary=False,
            enable_progress_bar=config.callbacks.progress_bar,
            default_root_dir=str(self.folder.path),
        )

    def _announce(self, stage: StageConfig, resume: Path | None) -> None:
        log.info("%s: trains %s for %d steps on %s", stage.name, stage.learns, stage.max_steps, stage.mixture)
        if resume is not None:
            log.info("%s: resumes from %s", stage.name, resume)


def check_sharding(resume: Path | None, options: Mapping[str, Any]) -> None:
    """Refuse to resume a sharded checkpoint without FSDP2, or another one with it.

    Raises:
        ResumeError: says which strategy to ask for.
    """
    if resume is None or resume.is_dir() == (options.get("strategy") == FSDP2):
        return
    wanted = f"trainer.strategy={FSDP2}" if resume.is_dir() else f"another trainer.strategy than {FSDP2}"
    raise ResumeError(f"{resume} needs {wanted} to resume (the number of devices may change); fresh=true starts anew")


def choose_checkpoint(stage: str, asked: str | None, newest: Path | None) -> Path | None:
    """Choose what a stage resumes: the checkpoint asked for, unless it is another stage's or this run went further.

    Args:
        stage: name of the stage.
        asked: `ckpt_path`.
        newest: newest checkpoint in the run folder.
    Raises:
        CheckpointError: `asked` is no checkpoint.
    """
    if asked is None:
        return newest
    asked_stage, asked_step = position_of(Path(asked))
    if asked_stage != stage or (newest is not None and position_of(newest)[1] > asked_step):
        return newest
    return Path(asked)


def count_flops(config: RunConfig, stage: StageConfig) -> Callable[[Batch], float]:
    """Return a function that counts the required FLOPs of training on a pack, head included."""

    def count(batch: Batch) -> float:
        """Count one pack."""
        lengths = batch.cu_seqlens.diff().to(torch.float64)
        return step_flops(
            config.model,
            tokens=batch.num_tokens,
            sum_sq=float((lengths * lengths).sum()),
            tiles=batch.num_tiles,
            supervised_rows=float((batch.loss_weights > 0).sum()),
            trainable=stage.trainable,
            adapted=stage.lora.parts,
        )

    return count
