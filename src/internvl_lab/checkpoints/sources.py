"""One reader for every source of weights: names and shapes at once, data one tensor at a time.

    authors' format, transformers', ours      whole, or a part alone, in one file or in shards
    a checkpoint of a stage, plain or sharded    ──open_source──>   Source: native key -> shape, tensor (LoRA merged)
    a language model, an InternViT, a projector alone

Whoever takes weights in goes through here: `init_from`, `load_model` and `convert`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from internvl_lab.checkpoints.adapters import (
    LowRank,
    StoredTensor,
    checkpoint_lora,
    open_adapter,
    pair_up,
    without_base_mark,
)
from internvl_lab.checkpoints.base import base_of
from internvl_lab.checkpoints.names import OFFICIAL_ROOTS, root_of, to_native
from internvl_lab.checkpoints.official import IMAGE_TOKEN_FROM_END
from internvl_lab.checkpoints.settings import Settings, read_settings
from internvl_lab.checkpoints.storage import TensorFile, open_files
from internvl_lab.checkpoints.vocabulary import EMBEDDINGS, HEAD, Vocabulary, plan_vocabulary
from internvl_lab.config import LanguageConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError, ConfigError
from internvl_lab.models import is_adapter, part_of

_PART_OF_WORD = {root.rstrip("."): part for part, root in OFFICIAL_ROOTS.items()}


@dataclass(frozen=True)
class Entry:
    """Say where one native tensor comes from."""

    file: TensorFile
    stored_name: str
    index: int
    """Which of the tensors that the stored one becomes."""
    shape: Tensor
    """On the meta device: shape and dtype, no data."""


class Source:
    """Hold the native tensors of one source, read when asked for.

    Args:
        path: the folder or file.
        settings: what it says about its parts.
        entries: native key to where it comes from.
        root: what stored names lack in front.
        language: how many heads a fused `wqkv` has.
        vocabulary: what becomes of the tables of a language model published alone.
        adapters: native key of a weight to the adapter that is added when it is read.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        entries: Mapping[str, Entry],
        root: str,
        language: LanguageConfig | None,
        vocabulary: Vocabulary | None,
        adapters: Mapping[str, LowRank],
    ) -> None:
        self.path, self.settings = path, settings
        self.adapters = dict(adapters)
        self._entries, self._root, self._language, self._vocabulary = entries, root, language, vocabulary
        self._last_name, self._last = "", list[tuple[str, Tensor]]()

    @property
    def parts(self) -> tuple[str, ...]:
        """List the parts that this source describes, or holds a tensor of."""
        held = {_part_of(key) for key in self._entries}
        return tuple(part for part in PARTS if part in held or part in self.settings.parts)

    def shapes(self, parts: Collection[str]) -> dict[str, Tensor]:
        """Return native key to an empty tensor of any shape, for the parts asked for and names that belong to none."""
        wanted = {*parts, None}
        return {key: entry.shape for key, entry in self._entries.items() if _part_of(key) in wanted}

    def read(self, key: str) -> Tensor:
        """Read one native tensor, of any shape."""
        entry = self._entries[key]
        if entry.stored_name != self._last_name:  # q, k and v of a fused tensor follow each other
            self._last = []  # before the next is read: either may be large
            stored = entry.file.read(entry.stored_name)
            self._last = to_native(self._root + entry.stored_name, stored, self._language)
            self._last_name = entry.stored_name
        tensor = self._last[entry.index][1]
        if self._vocabulary is not None:
            tensor = self._vocabulary.fit(key, tensor)
        return self.adapters[key].add_to(tensor) if key in self.adapters else tensor

    def add(self, adapters: Mapping[str, LowRank]) -> list[str]:
        """Add those adapters whose weights this source holds; return their keys.

        Raises:
            CheckpointError: the weights have adapters of their own already.
        """
        mine = [key for key in adapters if key in self._entries]
        if mine and self.adapters:
            raise CheckpointError(f"{self.path} holds adapters already: merge those first")
        self.adapters |= {key: adapters[key] for key in mine}
        return mine

    def tensors(self, parts: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield (native key, tensor of any shape), one at a time."""
        for key in self.shapes(parts):
            yield key, self.read(key)


def open_source(path: Path, allow_pickle: bool = False, language: LanguageConfig | None = None) -> Source:
    """Open a source of weights; only names and shapes are read.

    Args:
        path: a folder or a file, see the module's first lines.
        allow_pickle: also read .bin, .pt and .pth.
        language: how many heads a fused `wqkv` has, where no config.json says so.
    Raises:
        CheckpointError: an unreadable file, a pickle file that is not allowed, or settings that are not supported.
        MissingWeightsError: no weights there.
    """
    if (base := base_of(path)) != path:
        return _open_adapted(path, open_source(base, allow_pickle, language))
    settings = read_settings(path)
    files = [(file, file.shapes()) for file in open_files(path, allow_pickle)]
    root = root_of([name for _, shapes in files for name in shapes])
    language = settings.language or language
    entries: dict[str, Entry] = {}
    for file, shapes in files:
        for name, shape in shapes.items():
            for index, (key, part) in enumerate(to_native(root + name, shape, language)):
                unique = key if key not in entries else f"{name} (a second {key})"
                entries[unique] = Entry(file, name, index, part)
    adapters: dict[str, LowRank] = {}
    if stored := {key: StoredTensor(e.file, e.stored_name) for key, e in entries.items() if is_adapter(key)}:
        adapters = pair_up(stored, checkpoint_lora(path).scaling, str(path))
        entries = {without_base_mark(key): entry for key, entry in entries.items() if key not in stored}
    if settings.is_tied and EMBEDDINGS in entries and HEAD not in entries:
        entries[HEAD] = entries[EMBEDDINGS]
    vocabulary = None
    if settings.is_plain_language and settings.language is not None:
        vocabulary = plan_vocabulary(path if path.is_dir() else path.parent, settings.language.vocab_size)
        for key in (EMBEDDINGS, HEAD):
            if key in entries and tuple(entries[key].shape.shape[:1]) == (settings.language.vocab_size,):
                entries[key] = replace(entries[key], shape=vocabulary.fit(key, entries[key].shape))
        settings = _extended(settings, settings.language, vocabulary)
    return Source(path, settings, entries, root, language, vocabulary, adapters)


def _open_adapted(adapter: Path, source: Source) -> Source:
    """Add an adapter to its base, all of it."""
    adapters = open_adapter(adapter)
    if lost := sorted(set(adapters) - set(source.add(adapters))):
        names = ", ".join(lost[:10])
        raise CheckpointError(f"{adapter}: {len(lost)} adapters belong to weights that {source.path} lacks: {names}")
    source.path = adapter
    return source


def _extended(settings: Settings, language: LanguageConfig, vocabulary: Vocabulary) -> Settings:
    """Describe a language model with its vocabulary extended; the nine tokens end it."""
    return replace(
        settings,
        language=replace(language, vocab_size=vocabulary.num_rows),
        image_token_id=vocabulary.num_rows - IMAGE_TOKEN_FROM_END,
    )


def _part_of(key: str) -> str | None:
    """Return the part of a native key, or of an unknown one in the authors' format; None where nobody knows."""
    try:
        return _PART_OF_WORD.get(key.partition(".")[0]) or part_of(key)
    except ConfigError:
        return None
