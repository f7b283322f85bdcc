"""Score a checkpoint on held-out tasks, beside a blind run, and write the report."""

from internvl_lab.evaluation.contact_sheet import draw_contact_sheet
from internvl_lab.evaluation.curves import draw_loss_curves, read_curves
from internvl_lab.evaluation.metrics import exact_match, iou_at_50
from internvl_lab.evaluation.report import write_report
from internvl_lab.evaluation.results import EvaluationResult, Prediction, TaskResult
from internvl_lab.evaluation.runner import evaluate, weights_fingerprint
from internvl_lab.evaluation.table import score_table, show
from internvl_lab.evaluation.tasks import Question, Task, read_tasks

__all__ = [
    "EvaluationResult",
    "Prediction",
    "Question",
    "Task",
    "TaskResult",
    "draw_contact_sheet",
    "draw_loss_curves",
    "evaluate",
    "exact_match",
    "iou_at_50",
    "read_curves",
    "read_tasks",
    "score_table",
    "show",
    "weights_fingerprint",
    "write_report",
]
