"""Studies: rows from a sweep, what they will cost, one process a row, one table, one comparison."""

from internvl_lab.scaling.compare import comparison_table, write_comparison
from internvl_lab.scaling.cost import Cost, plan_row
from internvl_lab.scaling.rows import Row, describe, expand
from internvl_lab.scaling.study import all_done, run_study
from internvl_lab.scaling.table import RowResult, read_table, write_table

__all__ = [
    "Cost",
    "Row",
    "RowResult",
    "all_done",
    "comparison_table",
    "describe",
    "expand",
    "plan_row",
    "read_table",
    "run_study",
    "write_comparison",
    "write_table",
]
