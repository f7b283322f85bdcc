"""Ask questions one by one, or in a conversation that remembers its turns and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from internvl_lab.inference.generation import Generator
from internvl_lab.inference.processor import Processor, place_images
from internvl_lab.models.internvl import InternVL
from internvl_lab.text.template import Turn


def answer(
    model: InternVL,
    processor: Processor,
    question: str,
    images: Sequence[Image.Image] = (),
    *,
    is_video: bool = False,
    max_new_tokens: int = 64,
) -> str:
    """Answer one question about any number of pictures, or about the frames of one video.

    Raises:
        SampleError: the question's placeholders do not match the pictures.
    """
    prompt = processor(question, images, is_video)
    return Generator(model, processor.template, max_new_tokens, batch_size=1).generate([prompt])[0]


@dataclass
class Assistant:
    """Hold a conversation; every question sees all earlier turns and pictures."""

    model: InternVL
    processor: Processor
    max_new_tokens: int = 64
    turns: list[Turn] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)

    def ask(self, question: str, images: Sequence[Image.Image] = ()) -> str:
        """Answer the next question; `images` are new pictures that it refers to.

        Raises:
            SampleError: the question's placeholders do not match its pictures; the history stays as it was.
        """
        turns = [*self.turns, Turn("human", place_images(question, len(images)))]
        pictures = [*self.images, *images]
        prompt = self.processor(turns, pictures)
        generator = Generator(self.model, self.processor.template, self.max_new_tokens, batch_size=1)
        reply = generator.generate([prompt])[0]
        self.turns, self.images = [*turns, Turn("gpt", reply)], pictures
        return reply

    def reset(self) -> None:
        """Forget all turns and pictures."""
        self.turns.clear()
        self.images.clear()
