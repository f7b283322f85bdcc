from __future__ import annotations

from random import Random

import numpy as np
import pytest

from internvl_lab.curation.duplicates import _pairs, build_index, find_duplicates
from internvl_lab.curation.planted_words import paragraph
from internvl_lab.curation.signatures import COLUMNS, sign


def save(path, rows):
    columns = {name: np.stack([row[name] for row in rows]) if rows else np.zeros((0, w), d)
               for name, (d, w) in COLUMNS.items()}  # fmt: skip
    np.savez(path, **columns)
    return path


def search(tmp_path, *chunks):
    paths = [save(tmp_path / f"{i}.npz", rows) for i, rows in enumerate(chunks)]
    build_index(paths, tmp_path / "index")
    return find_duplicates(tmp_path / "index")


def row(text):
    return sign([("human", "Tell me."), ("gpt", text)], (), (), True)


def edited(text, number):
    words = text.split()
    for i in range(number):
        words[i * 7] = "changed"
    return " ".join(words)


def test_copies_point_at_the_earlier_record_across_chunks(tmp_path):
    texts = [paragraph(Random(i), 10, 10) for i in range(6)]
    found = search(tmp_path, [row(t) for t in texts], [], [row(texts[4]), row(edited(texts[1], 2)), row(texts[4])])
    exact, near = found["exact_duplicate"], found["near_duplicate"]
    assert list(exact.within(0, 9)) == [(6, 4, 1.0), (8, 4, 1.0)]
    assert list(exact.within(7, 9)) == [(8, 4, 1.0)]
    assert near.record.tolist() == [6, 7, 8]
    assert near.of[1] == 1
    assert 0.7 < near.score[1] < 1
    assert len(found["near_duplicate_image"].record) == 0


def test_similarity_falls_with_the_changes(tmp_path):
    text = paragraph(Random(0), 14, 14)
    found = search(tmp_path, [row(text), row(edited(text, 1)), row(edited(text, 6))])["near_duplicate"]
    scores = dict(zip(found.record.tolist(), found.score.tolist(), strict=True))
    assert scores[1] > 0.9 > scores.get(2, 0)


def test_what_was_found_is_read_again(tmp_path, monkeypatch):
    text = paragraph(Random(0), 10, 10)
    first = search(tmp_path, [row(text), row(text)])
    monkeypatch.setattr("internvl_lab.curation.duplicates._pairs", None)
    again = find_duplicates(tmp_path / "index")
    assert again["exact_duplicate"].record.tolist() == first["exact_duplicate"].record.tolist() == [1]


@pytest.mark.parametrize("chunks", [(), ([],)])
def test_no_records(tmp_path, chunks):
    assert all(len(matches.record) == 0 for matches in search(tmp_path, *chunks).values())


def test_pairs_by_hand():
    keys = np.array([5, 0, 7, 5, 0, 7, 5, 9], np.uint64)
    pairs = [(int(a), int(b)) for earlier, later in _pairs(keys) for a, b in zip(earlier, later, strict=True)]
    assert sorted(pairs) == [(0, 3), (0, 6), (2, 5), (3, 6)]
