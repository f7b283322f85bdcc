"""Studies: rows from a sweep, one process a row, one table, one comparison."""

from internvl_lab.scaling.budgets import run_flops, stage_flops, with_budgets
from internvl_lab.scaling.compare import comparison_table, write_comparison
from internvl_lab.scaling.rows import Row, describe, expand
from internvl_lab.scaling.study import all_done, run_study
from internvl_lab.scaling.table import RowResult, read_table, write_table

__all__ = [
    "Row",
    "RowResult",
    "all_done",
    "comparison_table",
    "describe",
    "expand",
    "read_table",
    "run_flops",
    "run_study",
    "stage_flops",
    "with_budgets",
    "write_comparison",
    "write_table",
]
