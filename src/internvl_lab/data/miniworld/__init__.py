"""The embedded dataset: pictures and questions drawn by ourselves, so that everything runs offline."""

from internvl_lab.data.miniworld.build import ensure_shards, miniworld_root
from internvl_lab.data.miniworld.corpus import tokenizer_corpus
from internvl_lab.data.miniworld.sample import generate
from internvl_lab.data.miniworld.text_twin import generate_text, text_twin
from internvl_lab.data.miniworld.vocabulary import TASKS

__all__ = ["TASKS", "ensure_shards", "generate", "generate_text", "miniworld_root", "text_twin", "tokenizer_corpus"]
