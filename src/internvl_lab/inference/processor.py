"""Turn a question and its pictures into a `Prompt`: the same tiling and template as in training.

::

    turns, images ─ tile (budget shared by the images) ─ N_i tiles each ─ template.encode_prompt ─> ids (T,)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.config import TilingConfig
from internvl_lab.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_lab.data.tiling import tile_budget, tile_image
from internvl_lab.errors import SampleError
from internvl_lab.inference.generation import Prompt
from internvl_lab.text.template import ChatTemplate, Turn


class Processor:
    """Prepare prompts for one tokenizer, template and tiling.

    Args:
        template: encodes the conversation.
        tiling: tile size and limits; `num_visual_tokens` must be the model's.
    """

    def __init__(self, template: ChatTemplate, tiling: TilingConfig) -> None:
        self.template, self.tiling = template, tiling

    def __call__(
        self,
        conversation: str | Sequence[Turn],
        images: Sequence[Image.Image] = (),
        is_video: bool = False,
        key: str = "prompt",
    ) -> Prompt:
        """Encode a question, or a conversation that ends with one.

        Args:
            conversation: plain text (placeholders are added where it has none), or turns with `<image>` placeholders.
            images: RGB pictures in placeholder order; the frames in order if `is_video`.
            is_video: one tile a frame and no thumbnail. Source: InternVL 2.5, section 3.1.
            key: name for error messages.
        Returns:
            Prompt with ids (T,) int32 and tiles (N, 3, S, S) uint8.
        Raises:
            SampleError: the number of placeholders is not the number of images, or a text is no Unicode.
        """
        turns = conversation
        if isinstance(turns, str):
            turns = [Turn("human", place_images(turns, len(images), is_video))]
        for turn in turns:
            _check_text(turn.text, key)
        tiles = self.tile(images, is_video)
        counts = [len(t) * self.tiling.num_visual_tokens for t in tiles]
        ids = self.template.encode_prompt(turns, counts, key=key)
        size = self.tiling.tile_size
        stacked = np.concatenate(tiles) if tiles else np.zeros((0, size, size, 3), np.uint8)
        return Prompt(key, ids, np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))

    def tile(self, images: Sequence[Image.Image], is_video: bool = False) -> list[NDArray[np.uint8]]:
        """Cut each picture into tiles; one array (N_i, S, S, 3) uint8 a picture, thumbnail last."""
        budget = 1 if is_video else tile_budget(max(len(images), 1), self.tiling.max_tiles)
        thumbnail = self.tiling.use_thumbnail and not is_video
        return [tile_image(image.convert("RGB"), self.tiling, budget, thumbnail) for image in images]


def _check_text(text: str, key: str) -> None:
    """Refuse half a surrogate pair, which JSON can hold and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SampleError(key, "broken_text", f"{text[error.start : error.end]!r} is no character") from error


def place_images(text: str, num_images: int, is_video: bool = False) -> str:
    """Put `<image>` placeholders before a question that has none.

    One image: `<image>` on a line of its own; several: `Image-k: <image>` lines; video: `Frame-k: <image>` lines in
    place of `<video>`. A text that already holds `<image>` is returned unchanged.
    Source: authors' loaders and documentation; spec section 2.
    """
    if num_images == 0 or IMAGE_PLACEHOLDER in text:
        return text
    if is_video:
        frames = _label("Frame", num_images)
        if VIDEO_PLACEHOLDER not in text:
            return frames + text
        return text.replace(VIDEO_PLACEHOLDER + "\n", frames, 1).replace(VIDEO_PLACEHOLDER, frames, 1)
    if num_images == 1:
        return f"{IMAGE_PLACEHOLDER}\n{text}"
    return _label("Image", num_images) + text


def _label(name: str, count: int) -> str:
    """Number `count` placeholder lines from 1."""
    return "".join(f"{name}-{k}: {IMAGE_PLACEHOLDER}\n" for k in range(1, count + 1))
