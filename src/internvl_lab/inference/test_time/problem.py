"""A question as test-time scaling sees it, whatever benchmark it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from internvl_lab.text.chain_of_thought import cot_prompt
from internvl_lab.text.template import Turn


@dataclass(frozen=True)
class Problem:
    """Hold one question, how to get its pictures, and how to judge a final answer."""

    task: str
    key: str
    turns: tuple[Turn, ...]
    """Conversation up to the question, with `<image>` placeholders."""
    reference: str
    judge: Callable[[str, str], bool]
    """(final answer, reference) -> right."""
    load_images: Callable[[], Sequence[Image.Image]]
    """Read the pictures (RGB), in placeholder order; raises SampleError."""
    is_video: bool = False

    @property
    def question(self) -> str:
        """Return the last turn's text."""
        return self.turns[-1].text

    def asked(self, prompt: str) -> tuple[Turn, ...]:
        """Return the turns to ask with: as they are (`direct`), or the last one asking for its steps (`cot`)."""
        if prompt == "direct":
            return self.turns
        return (*self.turns[:-1], Turn(self.turns[-1].role, cot_prompt(self.question)))
