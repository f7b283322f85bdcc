from __future__ import annotations

import sys
from random import Random

import numpy as np
import pytest
from PIL import Image

from internvl_lab.curation.planted_words import paragraph
from internvl_lab.curation.signatures import NUM_BANDS, picture_hash, require_extra, sign
from internvl_lab.errors import ConfigError

TEXT = paragraph(Random(0), 12, 12)


def talk(answer: str) -> list[tuple[str, str]]:
    return [("human", "What is it?"), ("gpt", answer)]


def similarity(first: str, second: str) -> float:
    return float((sign(talk(first), (), (), True)["minhash"] == sign(talk(second), (), (), True)["minhash"]).mean())


def test_min_hash_estimates_the_jaccard_similarity():
    words = TEXT.split()
    half = " ".join(words[: len(words) // 2])
    assert similarity(TEXT, TEXT) == 1
    assert similarity(TEXT, f"{half} {paragraph(Random(1), 6, 6)}") == pytest.approx(1 / 3, abs=0.15)
    assert similarity(TEXT, paragraph(Random(2), 12, 12)) < 0.15
    assert similarity(TEXT, TEXT.upper().replace(" ", "\n")) == 1


def test_exact_evens_out_white_space_only():
    exact = sign(talk("a  b"), (), (), False)["exact"]
    assert np.array_equal(exact, sign(talk(" a\nb "), (), (), False)["exact"])
    assert not np.array_equal(exact, sign(talk("A b"), (), (), False)["exact"])
    assert not np.array_equal(exact, sign([("gpt", "What is it?"), ("human", "a b")], (), (), False)["exact"])


def test_images_tell_equal_texts_apart():
    first, second = (sign(talk(TEXT), (digest,), (), True) for digest in (b"1", b"2"))
    assert not np.array_equal(first["exact"], second["exact"])
    assert not set(first["bands"].tolist()) & set(second["bands"].tolist())
    assert np.array_equal(first["minhash"], second["minhash"])


def test_short_texts_have_no_near_duplicates():
    row = sign(talk("yes, it is"), (), (), True)
    assert row["bands"].tolist() == [0] * NUM_BANDS
    assert row["text"][0] == 0


def test_a_picture_saved_again_keeps_its_hash():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((200, 150), Image.Resampling.BICUBIC)
    other = Image.fromarray(255 - coarse[::-1]).resize((200, 150), Image.Resampling.BICUBIC)

    def differing(a: Image.Image, b: Image.Image) -> int:
        return int(np.bitwise_count(picture_hash([a]) ^ picture_hash([b])).sum())

    assert differing(image, image.resize((170, 130))) <= 20
    assert differing(image, other) > 64
    assert picture_hash([image, other]).shape == (16,)
    assert not np.array_equal(picture_hash([image, other]), picture_hash([other, image]))


def test_a_missing_extra_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ConfigError, match=r"internvl-lab\[curation\].*near_duplicate\.enabled=false"):
        require_extra()
