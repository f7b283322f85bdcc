"""metrics.csv: one row per logged step, appended over restarts and stages.

Lightning's own CSVLogger deletes the file of an earlier start; this one continues it. Floats are written
with `repr`, so reading them back gives the same bits.
"""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from internvl_lab.atomic import write_atomic
from internvl_lab.tracking.append_only import complete_lines, rows_until

FILE_NAME = "metrics.csv"
_FIXED = ("stage", "step")


class CsvLog(Logger):
    """Append metrics to `metrics.csv`: columns stage, step, then all keys in sorted order.

    Only rank 0 writes. Every row is flushed, so a kill loses at most the row being written.

    Args:
        run_dir: folder of the file; made when missing.
        stage: name in the stage column; `begin_stage` changes it.
    """

    def __init__(self, run_dir: Path, stage: str = "") -> None:
        super().__init__()
        self.path = Path(run_dir) / FILE_NAME
        self.stage = stage
        self._columns: tuple[str, ...] | None = None
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        """Name the logger, as Lightning asks."""
        return "csv"

    @property
    def version(self) -> str:
        """Return the one version there is: the file is continued, never numbered."""
        return ""

    @property
    def save_dir(self) -> str:
        """Return the folder of the file."""
        return str(self.path.parent)

    def begin_stage(self, stage: str, step_offset: int = 0) -> None:
        """Write the rows that follow under `stage`; steps count from 0 in each stage, so the offset is not used."""
        self.stage = stage

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run folder holds the whole configuration (`tracking.identity`)."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append one row; a key not seen before rewrites the file once with the new column."""
        row = {key: _to_text(value) for key, value in metrics.items()}
        row |= {"stage": self.stage, "step": str(int(step or 0))}
        columns = self._known_columns()
        if not row.keys() <= set(columns):
            columns = _order({*columns, *row})
            self._write_all(columns, self._rows())
        file = self._open()
        file.write(_format([row.get(column, "") for column in columns]))
        file.flush()

    @rank_zero_only
    def cut_back(self, stage: str, step: int) -> None:
        """Drop the rows after `step` of `stage`, half a last line, and columns that became empty."""
        self._close()
        rows = rows_until(self._rows(), lambda row: (row["stage"], int(row["step"])), stage, step)
        used = {key for row in rows for key, value in row.items() if value != ""}
        if rows:
            self._write_all(_order(used), rows)
        else:
            self.path.unlink(missing_ok=True)
            self._columns = None

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; logging again opens it again."""
        self._close()

    def _rows(self) -> list[dict[str, str]]:
        reader = csv.DictReader(io.StringIO("".join(complete_lines(self.path)), newline=""))
        return [dict(row) for row in reader]

    def _known_columns(self) -> tuple[str, ...]:
        if self._columns is None:
            lines = complete_lines(self.path)
            self._columns = tuple(next(csv.reader(lines[:1]))) if lines else ()
            if lines:  # a torn last line must not swallow the next row
                self._write_all(self._columns, self._rows())
        return self._columns

    def _write_all(self, columns: tuple[str, ...], rows: Sequence[Mapping[str, str]]) -> None:
        self._close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        body = (_format([row.get(column, "") for column in columns]) for row in rows)
        write_atomic(self.path, _format(columns) + "".join(body))
        self._columns = columns

    def _open(self) -> TextIO:
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _order(columns: set[str]) -> tuple[str, ...]:
    return (*_FIXED, *sorted(columns - set(_FIXED)))


def _format(cells: Sequence[str]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _to_text(value: Any) -> str:
    if hasattr(value, "item"):
        value = value.item()
    return repr(value) if isinstance(value, float) else str(value)
