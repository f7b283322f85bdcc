"""Find what the words of `tasks=` mean, and prepare its questions: benchmarks, capabilities, miniworld.

::

    tasks=[mmstar, all_ocr, miniworld] ─ expand_names ─> mmstar, ai2d, chartqa, ..., attribute, counting, ...
      ─ build_suite ─> Suite: items, metric, limits, settings
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from internvl_lab.config import MiniworldConfig, TilingConfig
from internvl_lab.config.evaluate import EvaluateConfig
from internvl_lab.data.miniworld import ensure_shards
from internvl_lab.data.miniworld.vocabulary import TASKS
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.benchmark import JUDGED, Benchmark, load_benchmarks
from internvl_lab.evaluation.items import Item, build_items
from internvl_lab.evaluation.tasks import Task, read_tasks
from internvl_lab.text.template import ChatTemplate

MINIWORLD = "miniworld"
MINIWORLD_METRICS = {"iou_at_50": "box_hit"}
"""Metric of a task of miniworld -> the same rule by its name among the benchmarks' metrics."""
GROUP_PREFIX = "all_"
"""Before the name of a capability, because miniworld has tasks called grounding and video."""
MINIWORLD_TOKENS = 48
TOTAL_TILES = 64
"""Tiles of all images of one question. Source: VLMEvalKit, `vlmeval/vlm/internvl/internvl_chat.py`; spec 11.1."""


@dataclass(frozen=True)
class Suite:
    """Hold one task, ready to be asked."""

    name: str
    title: str
    capability: str
    metric: str
    items: tuple[Item, ...]
    max_new_tokens: int
    max_tiles: int | None = None
    """None = the checkpoint's own limit, shared by the images as in training."""
    tiles: str = "shared"
    """`each` or `shared`, see `Benchmark.tiles`."""
    published: str = ""
    """Row of the published scores; empty = none."""
    note: str = ""
    submission: str = ""
    """How answers are written for whoever scores them, see `Benchmark.submission`."""
    settings: tuple[tuple[str, Any], ...] = ()
    """What is particular to this task, for the record."""

    @property
    def judged(self) -> bool:
        """Say whether a judge has to read the answers."""
        return self.metric == JUDGED

    def tiling(self, own: TilingConfig, num_images: int) -> TilingConfig:
        """Return the tiling of a question with so many images, `own` being the checkpoint's."""
        return own if self.max_tiles is None else limit_tiles(own, self.max_tiles, self.tiles, num_images)


def limit_tiles(own: TilingConfig, limit: int, tiles: str, num_images: int) -> TilingConfig:
    """Return a checkpoint's tiling with another limit for a question with so many images.

    Args:
        own: the checkpoint's tiling.
        limit: tile limit.
        tiles: `each` or `shared`, see `Benchmark.tiles`.
        num_images: of the question.
    """
    if tiles == "each":
        limit = max(1, min(limit, TOTAL_TILES // max(num_images, 1))) * max(num_images, 1)
    return replace(own, max_tiles=limit, min_tiles=min(own.min_tiles, limit))


def expand_names(words: Sequence[str]) -> list[str]:
    """Replace `miniworld` and `all_<capability>` by the tasks they stand for; each task once, in order.

    Raises:
        ConfigError: an unknown word; lists what there is.
    """
    benchmarks = load_benchmarks()
    names: list[str] = []
    for word in words:
        if word == MINIWORLD:
            names += TASKS
        elif word in benchmarks or word in TASKS:
            names.append(word)
        else:
            names += _capability(word)
    return list(dict.fromkeys(names))


def _capability(word: str) -> list[str]:
    """Return the benchmarks of `all_<capability>`."""
    benchmarks = load_benchmarks()
    group = [name for name, b in benchmarks.items() if f"{GROUP_PREFIX}{b.capability}" == word]
    if not group:
        groups = dict.fromkeys(f"{GROUP_PREFIX}{benchmark.capability}" for benchmark in benchmarks.values())
        known = ", ".join([MINIWORLD, *TASKS, *benchmarks, *groups])
        raise ConfigError(f"tasks: unknown task {word!r}; there are {known}")
    return group


def build_suites(cfg: EvaluateConfig, template: ChatTemplate) -> list[Suite]:
    """Read the questions of all tasks before any is asked, so that a missing file shows at once.

    Args:
        cfg: tasks, data folder and limits.
        template: indexes miniworld's shards.
    Raises:
        ConfigError: an unknown task, or a missing or broken file.
    """
    names = expand_names(cfg.tasks)
    data = Path(cfg.data)
    benchmarks = load_benchmarks()
    mini = [name for name in names if name not in benchmarks]
    suites = {name: _from_benchmark(benchmarks[name], data, cfg) for name in names if name in benchmarks}
    if mini:
        folder = ensure_shards(MiniworldConfig(num_pretrain=0, num_finetune=0), data / MINIWORLD)["val"]
        tasks, index = read_tasks(folder, template, mini, cfg.samples_per_task)
        suites |= {task.name: _from_miniworld(task, index.fingerprint, cfg) for task in tasks}
    return [suites[name] for name in names]


def _from_benchmark(benchmark: Benchmark, data: Path, cfg: EvaluateConfig) -> Suite:
    """Read one benchmark."""
    items = tuple(build_items(benchmark, data, cfg.samples_per_task))
    return Suite(
        benchmark.name,
        benchmark.title,
        benchmark.capability,
        benchmark.metric,
        items,
        cfg.max_new_tokens or benchmark.max_new_tokens,
        cfg.max_tiles or benchmark.max_tiles,
        benchmark.tiles,
        benchmark.published or benchmark.name,
        benchmark.note,
        benchmark.submission,
        tuple(asdict(benchmark).items()),
    )


def _from_miniworld(task: Task, fingerprint: str, cfg: EvaluateConfig) -> Suite:
    """Take over one task of miniworld."""
    items = tuple(
        Item(question.key, question.text, question.reference, question.load_images, question.is_video, question.turns)
        for question in task.questions
    )
    metric = MINIWORLD_METRICS.get(task.metric, task.metric)
    tokens = cfg.max_new_tokens or MINIWORLD_TOKENS
    settings = (("data", fingerprint),)
    return Suite(task.name, task.name, MINIWORLD, metric, items, tokens, cfg.max_tiles, settings=settings)
