"""Constants that are part of the InternVL 2.5 format and therefore no settings."""

from __future__ import annotations

IGNORE_INDEX = -100
"""Label of a position without loss (torch's and transformers' convention)."""

IMAGE_START_TOKEN = "<img>"
IMAGE_END_TOKEN = "</img>"
IMAGE_CONTEXT_TOKEN = "<IMG_CONTEXT>"
SPECIAL_TOKENS = (
    IMAGE_START_TOKEN,
    IMAGE_END_TOKEN,
    IMAGE_CONTEXT_TOKEN,
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)
"""The nine tokens InternVL adds, in this order. Source: authors' `train/constants.py`."""

TURN_START_TOKEN = "<|im_start|>"
TURN_END_TOKEN = "<|im_end|>"
END_OF_TEXT_TOKEN = "<|endoftext|>"

IMAGE_PLACEHOLDER = "<image>"
VIDEO_PLACEHOLDER = "<video>"

DEFAULT_SYSTEM_MESSAGE = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
"""System turn of template `internvl2_5`; weights expect it. Source: authors' `conversation.py`."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Channel statistics of the tiles' normalisation. Source: authors' `build_transform`."""

PARTS = ("vision", "projector", "language")
"""The three parts of the model, as stages, weights and parameter tables name them."""

STATE_KEY = "internvl_lab"
"""Where our own state lies in a resumable checkpoint."""
LORA_KEY = "lora"
"""Where, in that state, the settings of adapters lie; absent without adapters."""

MIN_FRAMES = 8
MAX_FRAMES = 32
"""Frames that a video gives in training, drawn between these. Source: InternVL 2.5, section 4.1."""
STORED_FRAMES = 64
"""Most frames of a video that shards hold: twice `MAX_FRAMES`, so that each drawn one has a choice of two."""
