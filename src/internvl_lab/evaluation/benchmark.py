"""A benchmark: where its files are, how it is asked, how it is scored; one YAML file each in `evaluation/benchmarks`.

::

    evaluation/benchmarks/NAME.yaml ─> Benchmark ─ files in the data folder ─ readers ─> Row
      ─ items.build_items ─> Item: turns, images on demand, reference
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from internvl_lab.config.typed import from_mapping
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.metrics import METRICS
from internvl_lab.evaluation.submissions import SUBMISSIONS

CAPABILITIES = {
    "reasoning": "Multimodal reasoning and mathematics",
    "ocr": "OCR, chart and document understanding",
    "multi_image": "Multi-image understanding",
    "real_world": "Real-world comprehension",
    "comprehensive": "Comprehensive multimodal evaluation",
    "hallucination": "Hallucination",
    "grounding": "Visual grounding",
    "multilingual": "Multimodal multilingual understanding",
    "video": "Video understanding",
    "language": "Language",
    "miniworld": "Miniworld",
}
"""Names of the report's tables, in its order. Source: InternVL 2.5, tables 6 to 13."""
JUDGED = "judged"
"""Metric of a set whose answers a judge has to read."""
FOLDER = "evaluation/benchmarks"


@dataclass(frozen=True)
class Benchmark:
    """Describe one benchmark; see `evaluation/benchmarks`."""

    name: str
    title: str
    """As the report's tables name it."""
    capability: str
    metric: str
    """Key of `metrics.METRICS`, or `judged`."""
    files: tuple[str, ...]
    """Annotation files in the data folder; `*` stands for any part of a name."""
    download: str
    """What to download, in one sentence."""
    prompt: str = "{question}"
    """Question with its suffix: {question}, {hint}, {options}, {short}, {choose} and any field of the row."""
    open_prompt: str = ""
    """Prompt of rows without options, where a set has both kinds."""
    instructions: dict[str, str] = field(default_factory=dict)
    """Name of a file, without its ending -> {instruction}, where a set's files differ."""
    fields: dict[str, str] = field(default_factory=dict)
    """Our name -> the file's: id, question, answer, options, hint, video, start, end."""
    constants: dict[str, str] = field(default_factory=dict)
    """Fields that the file lacks and every row gets."""
    answers: str = ""
    """Annotation file in the data folder with the answers of each `question_id`, where they are apart."""
    answer_pattern: str = ""
    """The reference is the first group of this pattern in the answer."""
    first_index: int = 0
    """What number stands for the first option, where answers are numbers."""
    where: dict[str, str] = field(default_factory=dict)
    """Keep only rows whose field has this value."""
    max_tiles: int = 6
    """Tile limit. Source: spec section 11.1."""
    tiles: str = "each"
    """`each`: every image has the limit, 64 in all (VLMEvalKit); `shared`: the images share it (the authors)."""
    upscale_first: bool = False
    """Double the first image's edges (VLMEvalKit on MMMU)."""
    max_new_tokens: int = 4096
    num_frames: int = 0
    """Frames of a video; 0 = images."""
    videos: str = ""
    """Folder of the videos in the data folder."""
    published: str = ""
    """Row of `published.csv`; default: the name."""
    judge_metric: str = ""
    """What a judge's score is, for judged sets: for example `0..1, mean x 100`."""
    submission: str = ""
    """Key of `submissions.SUBMISSIONS`, for answers that are scored elsewhere."""
    note: str = ""
    """What a reader of the score has to know."""

    def __post_init__(self) -> None:
        """Refuse what no table, metric or reader knows."""
        if self.capability not in CAPABILITIES:
            raise ConfigError(f"{self.name}: capability={self.capability} must be one of {', '.join(CAPABILITIES)}")
        if self.metric != JUDGED and self.metric not in METRICS:
            raise ConfigError(f"{self.name}: metric={self.metric} must be {JUDGED} or one of {', '.join(METRICS)}")
        if self.submission and self.submission not in SUBMISSIONS:
            raise ConfigError(f"{self.name}: submission={self.submission} must be one of {', '.join(SUBMISSIONS)}")
        if self.tiles not in ("each", "shared"):
            raise ConfigError(f"{self.name}: tiles={self.tiles} must be each or shared")
        if self.max_tiles < 1 or self.max_new_tokens < 1 or self.num_frames < 0 or not self.files:
            raise ConfigError(f"{self.name}: max_tiles, max_new_tokens, num_frames or files is impossible")

    def find_files(self, data: Path) -> list[Path]:
        """Find the annotation files, in the order of `files`, after a look at whether the answers are there.

        Raises:
            ConfigError: one is missing; one line with what to download and where to put it.
        """
        found = []
        for pattern in self.files:
            matches = sorted(data.glob(pattern))
            if not matches:
                raise self._missing(data / pattern)
            found += matches
        if self.answers and not (data / self.answers).is_file():
            raise self._missing(data / self.answers)
        return found

    def _missing(self, path: Path) -> ConfigError:
        return ConfigError(f"{self.name}: {path} is missing: {self.download}, put it there")


@cache
def load_benchmarks() -> dict[str, Benchmark]:
    """Read all benchmarks, by name, in alphabetical order.

    Raises:
        ConfigError: a file has an unknown key or an impossible value.
    """
    folder = resources.files("internvl_lab").joinpath(*FOLDER.split("/"))
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    parsed = {}
    for file in files:
        name = file.name.removesuffix(".yaml")
        parsed[name] = parse_benchmark(name, yaml.safe_load(file.read_text(encoding="utf-8")))
    return parsed


def parse_benchmark(name: str, values: dict[str, Any]) -> Benchmark:
    """Build one benchmark from its YAML mapping; single strings stand for lists of one.

    Raises:
        ConfigError: an unknown key or an impossible value.
    """
    lists = {"files": [values["files"]]} if isinstance(values.get("files"), str) else {}
    return from_mapping(Benchmark, {"name": name, **values, **lists}, f"benchmark {name}")
