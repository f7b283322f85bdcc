"""The words of miniworld: everything a picture can hold and a question can name."""

from __future__ import annotations

TASKS: tuple[str, ...] = (
    "captioning",
    "counting",
    "attribute",
    "existence",
    "ocr",
    "document",
    "chart",
    "grounding",
    "multi_image",
    "video",
    "text_only",
)
"""One task per capability that the report evaluates; sample i belongs to task i modulo their number."""

OPTIONAL_TASKS: tuple[str, ...] = ("reasoning",)
"""Tasks that are made only where they are named."""

SPLITS: tuple[str, ...] = ("pretrain", "finetune", "val")

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (224, 36, 36),
    "green": (32, 160, 56),
    "blue": (52, 92, 248),
    "yellow": (248, 232, 48),
    "purple": (176, 56, 208),
    "orange": (248, 136, 16),
    "cyan": (24, 216, 224),
    "white": (238, 238, 238),
}
"""RGB of each colour word: far apart in hue or brightness, also after JPEG chroma subsampling."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross", "ring", "star")
"""Outlines that stay distinct when an object is 20 pixels wide."""

PLURALS: dict[str, str] = {shape: f"{shape}es" if shape == "cross" else f"{shape}s" for shape in SHAPES}

OCR_ALPHABET = "ACDEFGHJKLMNPQRTUVWXY23456789"
"""Characters of random strings; O, I, B, S, Z, 0 and 1 are left out because they resemble one another."""

NUMBER_KEYS: tuple[str, ...] = ("cost", "size", "page", "room", "age", "tax", "fee", "sum")
WORD_KEYS: tuple[str, ...] = ("name", "city", "item", "team", "bank", "farm")
"""Field names of documents; the first hold three digits, the second a word of three letters."""

WORD_CONSONANTS = "CDFGHJKLMNPQRTVWX"
WORD_VOWELS = "AEUY"

TITLES: tuple[str, ...] = ("INVOICE", "REPORT", "RECEIPT", "FORM", "TICKET", "ORDER")

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Unit steps (x, y) in image coordinates, y pointing down."""
