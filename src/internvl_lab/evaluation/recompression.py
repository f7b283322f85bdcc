"""Score on pictures that were saved as JPEG once more, as the web does to them.

::

    Task ─ every question's pictures ─ JPEG at one quality, whole picture, before tiling ─> Task
"""

from __future__ import annotations

import io
from dataclasses import replace

from PIL import Image

from internvl_lab.evaluation.tasks import Question, Task


def recompressed(task: Task, quality: int) -> Task:
    """Return a task whose pictures are read through JPEG.

    Args:
        task: its questions stay the same.
        quality: 1..100, as Pillow counts it.
    """
    return replace(task, questions=tuple(_recompressed(question, quality) for question in task.questions))


def _recompressed(question: Question, quality: int) -> Question:
    return replace(question, load_images=lambda: [through_jpeg(image, quality) for image in question.load_images()])


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return an RGB picture as it looks after JPEG at `quality`, 4:2:0 chroma."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return Image.open(buffer, formats=("JPEG",)).convert("RGB")
