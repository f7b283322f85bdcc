"""Weights & Biases: offline by default, one W&B run for a whole recipe, continued over restarts.

The only place (with the readers beside it) that knows wandb. Nothing here needs a network or an account unless
`mode: online`; `wandb sync` uploads an offline run later.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import ConfigError
from internvl_lab.tracking.read_back import CUMULATIVE
from internvl_lab.tracking.recorded import run_labels

MODES = ("offline", "online", "disabled")
ID_FILE = "wandb_id.txt"


class WandbLog(WandbLogger):
    """Log to one W&B run whose step axis (`trainer/global_step`) continues over the stages.

    Args:
        run_dir: folder of the run; `wandb/` and `wandb_id.txt` go into it.
        mode: `offline` or `online`.
        project, entity, name, group, job_type, tags: as W&B knows them; the default name is the run folder's.
        config: the resolved configuration, shown beside the run.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        mode: str = "offline",
        project: str = "internvl-lab",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        folder = Path(run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        _keep_to_itself(folder / "wandb")
        import wandb

        super().__init__(
            name=name or folder.resolve().name,
            save_dir=str(folder),
            id=run_id(folder),
            project=project,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=list(tags),
            config=dict(config or {}),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_code=True),
        )
        self._wandb_init.pop("anonymous", None)  # wandb warns about the mere presence of Lightning's default
        self.stage = ""
        self.step_offset = 0
        self._axes_defined = False
        self._totals: dict[str, Any] = {}

    def begin_stage(self, stage: str, step_offset: int = 0) -> None:
        """Log what follows as steps of `stage`.

        Args:
            stage: name, logged in the column `stage`.
            step_offset: optimizer steps of the stages before, added to every step.
        """
        self.stage, self.step_offset = stage, step_offset

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log `metrics` at `step` of the current stage, beside the newest counters.

        W&B draws a metric only over what stands in the same row, so a validation loss needs the tokens beside it.
        """
        if not self._axes_defined:
            self._define_axes()
        self._totals |= {axis: metrics[axis] for axis in CUMULATIVE if axis in metrics}
        position = {"trainer/global_step": self.step_offset + (step or 0), **self._totals}
        stage = {"stage": self.stage} if self.stage else {}
        self.experiment.log({**metrics, **stage, **position})

    @rank_zero_only
    def draw_over(self, keys: Sequence[str], axis: str) -> None:
        """Draw metrics over `axis` (one of CUMULATIVE) instead of W&B's own count of rows."""
        for key in keys:
            self.experiment.define_metric(key, step_metric=axis)

    @rank_zero_only
    def log_images(self, key: str, paths: Sequence[Path], captions: Sequence[str] | None = None) -> None:
        """Log picture files under `key`; captions, when given, are as many as paths."""
        import wandb

        texts = captions if captions is not None else [path.stem for path in paths]
        images = [wandb.Image(str(path), caption=text) for path, text in zip(paths, texts, strict=True)]
        self.experiment.log({key: images})

    @rank_zero_only
    def log_rows(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table; a cell that is a path to a picture is shown as the picture."""
        import wandb

        def cell(value: Any) -> Any:
            """Show a path as its picture."""
            return wandb.Image(str(value)) if isinstance(value, Path) else value

        data = [[cell(value) for value in row] for row in rows]
        self.experiment.log({key: wandb.Table(columns=list(columns), data=data)})

    @rank_zero_only
    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Set final values, for example scores, which W&B shows in its table of runs."""
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    def finish(self) -> None:
        """Close the W&B run, so that its file is complete."""
        if self._experiment is not None:
            self._experiment.finish()
            self._experiment = None
            self._axes_defined = False

    def _define_axes(self) -> None:
        for axis in CUMULATIVE:
            self.experiment.define_metric(axis)
        self._axes_defined = True


def _keep_to_itself(folder: Path) -> None:
    """Stop wandb from reporting its errors over the network, and from writing into the home directory.

    Must come before wandb's first import; what the user has set stays.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))


def build_wandb(run_dir: Path, options: Mapping[str, Any] | None, config: Mapping[str, Any]) -> WandbLog | None:
    """Build the W&B logger that `logger.wandb` describes.

    Args:
        run_dir: folder of the run.
        options: keys `mode`, `project`, `entity`, `name`, `group`, `job_type`, `tags`; None = no W&B.
        config: the resolved configuration; gives the group, job type and tags that `options` leave open.

    Returns:
        None when W&B is off.

    Raises:
        ConfigError: an unknown mode.
    """
    if options is None:
        return None
    chosen = dict(options)
    mode = chosen.pop("mode", "offline")
    if mode not in MODES:
        raise ConfigError(f"logger.wandb.mode={mode!r} must be one of {', '.join(MODES)}")
    if mode == "disabled":
        return None
    return WandbLog(run_dir, mode=mode, config=config, **(chosen | run_labels(run_dir, chosen, config)))


def run_id(run_dir: Path) -> str:
    """Return the W&B id of the run in `run_dir`, the same at every start; made at the first."""
    path = run_dir / ID_FILE
    if not path.is_file():
        write_atomic(path, uuid.uuid4().hex[:8] + "\n")
    return path.read_text(encoding="utf-8").strip()
