"""Ask questions one by one, or in a conversation that remembers its turns and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from internvl_lab.config import SamplingConfig
from internvl_lab.data.transforms import decode_image
from internvl_lab.data.video import read_frames
from internvl_lab.errors import SampleError
from internvl_lab.inference.generation import GREEDY, Generator
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


def read_image(path: Path) -> Image.Image:
    """Read one picture (RGB, upright).

    Raises:
        SampleError: the file is missing or no picture; names it.
    """
    if not path.is_file():
        raise SampleError(str(path), "missing_file", "no such picture")
    return decode_image(path.read_bytes(), str(path))


def read_video(path: Path, num_frames: int) -> list[Image.Image]:
    """Read frames of a video, spread over it; the same ones every time.

    Raises:
        SampleError: the video is missing, broken or of an unknown format; names it.
    """
    frames = read_frames(path, str(path), num_frames)
    return [decode_image(data, f"{path}, frame {k}") for k, (_, data) in enumerate(frames, 1)]


@dataclass
class Assistant:
    """Hold a conversation; every question sees all earlier turns and pictures."""

    model: InternVL
    processor: Processor
    max_new_tokens: int = 64
    sampling: SamplingConfig = GREEDY
    turns: list[Turn] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    is_video: bool = False
    """Whether the pictures are the frames of a video: one tile each, `Frame-k` labels."""

    def ask(self, question: str, images: Sequence[Image.Image] = (), is_video: bool = False) -> str:
        """Answer the next question; `images` are new pictures, or the frames of a video, that it refers to.

        Raises:
            SampleError: the question's placeholders do not match its pictures, or the conversation would mix a video
                with other pictures; the history stays as it was.
        """
        return "".join(self.stream(question, images, is_video))

    def stream(self, question: str, images: Sequence[Image.Image] = (), is_video: bool = False) -> Iterator[str]:
        """Yield the answer piece by piece; it enters the history when it is complete.

        Raises:
            SampleError: as in `ask`.
        """
        if images and self.images and (is_video or self.is_video):
            raise SampleError("chat", "mixed_media", "a video stands alone in its conversation; begin a new one")
        is_video = is_video or self.is_video
        turns = [*self.turns, Turn("human", place_images(question, len(images), is_video))]
        pictures = [*self.images, *images]
        # the place in the conversation enters the draws, or the same question would always get the same answer
        prompt = self.processor(turns, pictures, is_video, key=f"turn {len(turns)}")
        generator = Generator(self.model, self.processor.template, self.max_new_tokens, batch_size=1)
        reply = ""
        for piece in generator.stream(prompt, self.sampling):
            reply += piece
            yield piece
        self.turns, self.images, self.is_video = [*turns, Turn("gpt", reply)], pictures, is_video

    def reset(self) -> None:
        """Forget all turns and pictures."""
        self.turns, self.images, self.is_video = [], [], False
