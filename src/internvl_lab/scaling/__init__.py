"""Studies: rows from a sweep, what they will cost, one process a row, one table; laws and comparisons of any runs."""

from internvl_lab.scaling.budgets import run_flops, stage_flops, with_budgets
from internvl_lab.scaling.compare import push, write_comparison, write_runs
from internvl_lab.scaling.compare_table import comparison_table
from internvl_lab.scaling.cost import Cost, plan_row
from internvl_lab.scaling.fit import Law, StudyFit, fit_study
from internvl_lab.scaling.fit_points import Points, collect
from internvl_lab.scaling.frontier import PartCost, frontier, measure_cost
from internvl_lab.scaling.rows import Row, expand, refuse_equal
from internvl_lab.scaling.runs import Run, read_runs, result_runs
from internvl_lab.scaling.study import all_done, run_study
from internvl_lab.scaling.table import RowResult, read_table, write_table

__all__ = [
    "Cost",
    "Law",
    "PartCost",
    "Points",
    "Row",
    "RowResult",
    "Run",
    "StudyFit",
    "all_done",
    "collect",
    "comparison_table",
    "expand",
    "fit_study",
    "frontier",
    "measure_cost",
    "plan_row",
    "push",
    "read_runs",
    "read_table",
    "refuse_equal",
    "result_runs",
    "run_flops",
    "run_study",
    "stage_flops",
    "with_budgets",
    "write_comparison",
    "write_runs",
    "write_table",
]
