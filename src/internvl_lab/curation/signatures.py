"""Sign records so that duplicates can be found without the records: 376 bytes each.

    exact    16 bytes   BLAKE2 of the conversation (white space evened out) and of every image file
    text      8 bytes   BLAKE2 of the letters alone and the number of images; 0 without images
    minhash 192 bytes   96 x 16 bits of a MinHash over 3-word shingles (datasketch)
    bands   128 bytes   16 keys of 6 hash values each, joined with the images' digest; 0 = text too short to compare
    picture  32 bytes   256 bits of perceptual hash (imagehash), shared out among the images

Near duplicates of texts meet in at least one band with probability 1 - (1 - s^6)^16 at Jaccard similarity s: .99 at .8.
Of 600 pictures of miniworld that were resized and saved again, 95 % kept all but 8 of the 256 bits, the worst all but
22; different pictures of one task differed in 36 or more. With 20 differences, one of 16 bands is nearly always equal.
Source: Broder 1997 (MinHash); Leskovec et al., "Mining of Massive Datasets", chapter 3 (bands).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.errors import ConfigError

if TYPE_CHECKING:
    from datasketch import MinHash  # type: ignore[import-untyped]

NUM_PERMUTATIONS, NUM_BANDS = 96, 16
ROWS = NUM_PERMUTATIONS // NUM_BANDS
PICTURE_BITS = 256
PICTURE_BANDS = 16
SHINGLE = 3
"""Words (Chinese: characters) of a shingle."""
MIN_WORDS = 20
"""Shorter texts have no near duplicates: in "Is it red? yes" every word matters."""
COLUMNS: dict[str, tuple[Any, int]] = {
    "exact": (np.uint64, 2),
    "text": (np.uint64, 1),
    "minhash": (np.uint16, NUM_PERMUTATIONS),
    "bands": (np.uint64, NUM_BANDS),
    "picture": (np.uint16, PICTURE_BANDS),
}
"""Column to (dtype, values a record)."""

Turns = Sequence[tuple[str, str]]
Row = dict[str, NDArray[Any]]

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]|[^\W_]+")
_SPACES = re.compile(r"\s+")


def require_extra() -> None:
    """Check that the libraries of the extra `curation` are installed.

    Raises:
        ConfigError: they are not; says what to do.
    """
    try:
        import datasketch  # noqa: F401
        import imagehash  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"near duplicates need {error.name}: pip install 'internvl-lab[curation]', or turn the rules off with "
            "curation.rules.near_duplicate.enabled=false curation.rules.near_duplicate_image.enabled=false"
        ) from error


def sign(turns: Turns, digests: Sequence[bytes], images: Sequence[Image.Image], near_text: bool) -> Row:
    """Sign one record.

    Args:
        turns: (role, text) of each turn.
        digests: of each image's file, or its name; tells media apart exactly.
        images: decoded, for the perceptual hash; empty = no near duplicates of images.
        near_text: whether to make the MinHash; without, the record has no near duplicates.
    Returns:
        Column to its values (k,), see `COLUMNS`.
    """
    row = {name: np.zeros(width, dtype) for name, (dtype, width) in COLUMNS.items()}
    media = _digest(digests, 8)
    conversation = [_SPACES.sub(" ", f"{role} {text.strip()}").encode("utf-8", "replace") for role, text in turns]
    row["exact"][:] = np.frombuffer(_digest([*conversation, media], 16), np.uint64)
    words = _WORD.findall(" ".join(text for _, text in turns).lower())
    if images:
        plain = "\0".join([str(len(images)), *words]).encode("utf-8", "replace")
        row["text"][:] = np.frombuffer(_digest([plain], 8), np.uint64) | np.uint64(1)
        row["picture"][:] = picture_hash(images)
    if near_text and len(words) >= MIN_WORDS:
        values = _min_hash(words)
        row["minhash"][:] = values & 0xFFFF
        row["bands"][:] = [_band_key(values[i * ROWS : (i + 1) * ROWS], media) for i in range(NUM_BANDS)]
    return row


def picture_hash(images: Sequence[Image.Image]) -> NDArray[np.uint16]:
    """Return (16,) uint16: the perceptual hash of one image (16 x 16 bits), or of four of several (8 x 8 bits each).

    Source: `imagehash.phash`: signs of the low frequencies of a cosine transform, which survive JPEG and resizing.
    """
    import imagehash

    if len(images) == 1:
        chosen, side = [images[0]], 16
    else:
        chosen, side = [images[i * len(images) // 4] for i in range(4)], 8
    bits = np.concatenate([imagehash.phash(image, hash_size=side).hash.ravel() for image in chosen])
    return np.packbits(bits).view(np.uint16)


def _digest(parts: Sequence[bytes], size: int) -> bytes:
    """Hash parts with their borders."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _band_key(values: NDArray[np.uint64], media: bytes) -> np.uint64:
    """Hash one band; never 0, which stands for "none"."""
    return np.uint64(int.from_bytes(_digest([values.tobytes(), media], 8), "little") | 1)


def _min_hash(words: list[str]) -> NDArray[np.uint64]:
    """Return (96,) the MinHash of the words' shingles."""
    shingles = {" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
    signature = _empty_min_hash().copy()
    signature.update_batch([shingle.encode("utf-8", "replace") for shingle in sorted(shingles)])
    return np.asarray(signature.hashvalues, dtype=np.uint64)


@cache
def _empty_min_hash() -> MinHash:
    """Make the permutations once: they cost more than a record."""
    from datasketch import MinHash

    return MinHash(NUM_PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
