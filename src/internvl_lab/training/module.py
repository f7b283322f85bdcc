"""The LightningModule: one pack in, one exact optimizer step out.

training_step          pack -> sum of w*CE, not normalised; sums collected in StepTotals
(Lightning)            backward of loss / accumulation; DDP takes the mean over ranks
on_before_optimizer_step
    totals summed over ranks (one collective) -> loss = sum w*CE / sum w, gradient norm
    bad step?  gradients dropped, counted, samples named     (same decision on all ranks)
    else       gradients * ranks * accumulation / sum w, clipped
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor

from internvl_lab.config import OptimizerConfig, SchedulerConfig, StageConfig
from internvl_lab.constants import LORA_KEY, STATE_KEY
from internvl_lab.data.batch import Batch
from internvl_lab.models import InternVL, compile_layers
from internvl_lab.training import gradients
from internvl_lab.training.guard import StepGuard
from internvl_lab.training.losses import StepResult, StepTotals
from internvl_lab.training.optim import build_optimizer, build_scheduler, group_rates
from internvl_lab.training.randomness import pack_number, reseed
from internvl_lab.training.resume import RunPosition, rewrite_loop_counters
from internvl_lab.training.sharding import shard


class InternVLModule(L.LightningModule):
    """Train an InternVL through one stage.

    Args:
        model: the model; `freezing.StageFreezing` decides what of it trains.
        stage, optimizer, scheduler: settings.
        seed: the run's seed, for drop path.
        source_names: names behind `Batch.source_ids`, for losses by source; empty = none.
        flops_fn: model FLOPs of training on a pack; None = not counted.
        compile_backend: compile each layer with this backend of torch.compile; None = off.
        fill: gives a model on the meta device its weights on a device, once it is sharded; None = it has them.
    """

    def __init__(
        self,
        model: InternVL,
        stage: StageConfig,
        optimizer: OptimizerConfig,
        scheduler: SchedulerConfig,
        seed: int,
        *,
        source_names: Sequence[str] = (),
        flops_fn: Callable[[Batch], float] | None = None,
        compile_backend: str | None = None,
        fill: Callable[[torch.device], None] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        self.optimizer_config = optimizer
        self.scheduler_config = scheduler
        self.seed = seed
        self.flops_fn = flops_fn
        self.compile_backend = compile_backend
        self.fill = fill
        self.totals = StepTotals(source_names)
        self.val_totals = StepTotals()
        self.guard = StepGuard(optimizer.max_bad_steps)
        self._flops = 0.0
        self.last_step: StepResult | None = None
        self.metrics: dict[str, float] = {}
        """Figures of the step that just ended; monitors add theirs, `MetricsWriter` writes them."""

    @property
    def accumulation(self) -> int:
        """Return the packs of one rank in an optimizer step."""
        return int(self.trainer.accumulate_grad_batches)

    def ends_step(self, batch_idx: int) -> bool:
        """Say whether the optimizer steps after this batch."""
        return (batch_idx + 1) % self.accumulation == 0

    def configure_model(self) -> None:
        """Compile and, where the strategy brings a device mesh (FSDP2), shard; the stage has been applied by now."""
        if self.compile_backend is not None:
            compile_layers(self.model, self.compile_backend)
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"], str(self.trainer.precision))
        if self.fill is not None:
            self.fill(self.trainer.strategy.root_device)
            self.fill = None  # Lightning calls this hook more than once

    def configure_optimizers(self) -> Any:
        """Build AdamW and the schedule, which advances once per optimizer step."""
        optimizer = build_optimizer(self.model, self.stage, self.optimizer_config)
        scheduler = build_scheduler(optimizer, self.stage, self.scheduler_config)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count the FLOPs of a pack while it lies in host memory, where that costs no device sync."""
        if self.flops_fn is not None and self.trainer.training:
            self._flops = self.flops_fn(batch)
        return batch

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a pack without Lightning's walk over its fields, which deep-copies the dataclass."""
        return batch if device.type == "cpu" else batch.to(device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed drop path for this pack."""
        micro_step = batch_idx % self.accumulation
        world_size = self.trainer.world_size
        pack = pack_number(self.global_step, micro_step, self.global_rank, self.accumulation, world_size)
        reseed(self.seed, self.stage.name, pack)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of w*CE over a pack: () float32, not normalised (DESIGN section 3.7)."""
        if batch_idx % self.accumulation == 0:
            self.totals.reset()
        return self._add(self.totals, batch, self._flops)

    def _add(self, totals: StepTotals, batch: Batch, flops: float = 0.0) -> Tensor:
        hidden = self.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
            pixel_values=batch.pixel_values,
            visual_positions=batch.visual_positions,
        )
        supervised = self.model.token_losses(hidden, batch.labels, batch.supervised_rows)
        return totals.add(batch, supervised.rows, supervised.losses, flops)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the accumulated gradient into that of the normalised loss, clipped, or drop it.

        Raises:
            NonFiniteError: too many bad steps in a row.
        """
        parameters = gradients.parameters_with_gradient(optimizer)
        sums = self.totals.reduce(self._sum_over_ranks)
        norm = gradients.global_norm(parameters).to(sums)
        *values, raw_norm = torch.cat((sums, norm.reshape(1))).tolist()  # the step's only device sync
        weight = values[1]
        undo_means = self.trainer.world_size * self.accumulation / weight if weight > 0 else 0.0
        result = self.totals.result(values, raw_norm * undo_means)
        skipped = self.guard.refuses(result, self.totals, self.global_step + 1)
        if skipped:
            gradients.drop(parameters)
        else:
            clip = gradients.clip_factor(result.grad_norm, self.optimizer_config.max_grad_norm)
            gradients.scale(parameters, undo_means * clip)
        self.last_step = replace(result, skipped=skipped)
        self.metrics.clear()
        self.metrics.update(self._step_metrics(result, optimizer))

    def _step_metrics(self, result: StepResult, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        rates = {f"optim/lr/{name}": rate for name, rate in group_rates(optimizer)}
        return {
            "train/loss": result.loss,
            "train/skipped_steps": self.guard.skipped_steps,
            "optim/grad_norm": result.grad_norm,
            **rates,
        }

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Tell the data module which step is consumed; runs after all callbacks."""
        commit = getattr(getattr(self.trainer, "datamodule", None), "commit", None)
        if commit is not None and self.ends_step(batch_idx):
            commit(self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Begin new validation sums."""
        self.val_totals.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one validation pack."""
        self._add(self.val_totals, batch)

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss` = sum of w*CE / sum of w over all validation packs and ranks."""
        values = self.val_totals.reduce(self._sum_over_ranks).tolist()
        loss = self.val_totals.result(values, 0.0).loss
        self.log("val/loss", loss, logger=False, batch_size=1, sync_dist=True)
        for logger in self.trainer.loggers:
            logger.log_metrics({"val/loss": loss}, step=self.global_step)

    def _sum_over_ranks(self, tensor: Tensor) -> Tensor:
        reduced: Tensor = self.trainer.strategy.reduce(tensor, reduce_op="sum")
        return reduced

    @property
    def _position(self) -> RunPosition:
        return RunPosition(self.stage.name, self.seed, self.accumulation * self.trainer.world_size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the checkpoint belongs to, the guard's counts, and how adapters count, for whoever merges them."""
        lora = {LORA_KEY: vars(self.stage.lora)} if self.stage.lora.parts else {}
        checkpoint[STATE_KEY] = {**vars(self._position), **self.guard.state_dict(), **lora}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs here, and make Lightning's counters fit this run's ranks.

        Raises:
            ResumeError: another stage, seed or number of packs a step.
        """
        saved = checkpoint.get(STATE_KEY, {})
        self._position.check(saved)
        self.guard.load_state_dict(saved)
        rewrite_loop_counters(checkpoint, self.accumulation)


def as_step_module(module: L.LightningModule) -> InternVLModule:
    """Return `module` as the type our callbacks need.

    Raises:
        TypeError: it is another LightningModule.
    """
    if not isinstance(module, InternVLModule):
        raise TypeError(f"this callback needs an InternVLModule, not {type(module).__name__}")
    return module
