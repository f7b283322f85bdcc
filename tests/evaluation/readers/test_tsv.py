"""VLMEvalKit's TSV: quoted cells, base64 images, images shared by index, broken files."""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.readers import read_rows
from internvl_lab.evaluation.readers.tsv import read_tsv

PICTURES = [base64.b64encode(bytes([i]) * 99).decode() for i in range(3)]


def write(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write as pandas does: quotes only where they are needed."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(rows)
    return path


def test_rows_and_images(tmp_path: Path) -> None:
    rows = [
        ["index", "question", "A", "image"],
        ["1", 'What does "it" say?\nRead it.', "x\ty", PICTURES[0]],
        ["2", "是什么", "", "1"],
        ["3", "Both?", "z", str([PICTURES[1], PICTURES[2]])],
        ["4", "None?", "z", ""],
    ]
    first, second, third, fourth = read_tsv(write(tmp_path / "t.tsv", rows), tmp_path)
    assert dict(first.fields) == {"index": "1", "question": 'What does "it" say?\nRead it.', "A": "x\ty"}
    assert dict(second.fields) == {"index": "2", "question": "是什么"}
    assert first.load_images() == second.load_images() == [b"\0" * 99]
    assert third.load_images() == [b"\1" * 99, b"\2" * 99]
    assert fourth.load_images() == []


def test_image_paths(tmp_path: Path) -> None:
    (tmp_path / "images" / "t").mkdir(parents=True)
    (tmp_path / "images" / "t" / "a.png").write_bytes(b"a")
    path = write(
        tmp_path / "t.tsv", [["index", "question", "image_path"], ["1", "?", "['a.png']"], ["2", "?", "b.png"]]
    )
    first, second = read_rows(path, tmp_path)
    assert first.load_images() == [b"a"]
    with pytest.raises(SampleError, match="missing_file"):
        second.load_images()


def test_an_index_that_nobody_has_is_a_skip(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", [["index", "question", "image"], ["1", "?", "99"]])
    (row,) = read_tsv(path, tmp_path)
    with pytest.raises(SampleError, match="missing_image"):
        row.load_images()


def test_a_mark_inside_a_cell_quotes_nothing(tmp_path: Path) -> None:
    """As pandas reads it: otherwise two odd marks make one row of all rows between them."""
    rows = ['0\ta 5" disk\tA', "1\tplain\tB", '2\tan 8" one\tC', '3\t"say ""x""\nor ""y"""\t"D"', '4\t"""\tE', '"\tF']
    path = tmp_path / "t.tsv"
    path.write_text("\n".join(["index\tquestion\tanswer", *rows]))
    found = [dict(row.fields) for row in read_tsv(path, tmp_path)]
    assert [row["question"] for row in found] == ['a 5" disk', "plain", 'an 8" one', 'say "x"\nor "y"', '"\tE\n']
    assert [row["answer"] for row in found] == ["A", "B", "C", "D", "F"]


@pytest.mark.parametrize("content", [b'0\t"open\n1\tx\n', b"0\t\xff\xfe\n"])
def test_an_open_quotation_and_other_encodings_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.tsv").write_bytes(b"index\tquestion\n" + content)
    with pytest.raises(ConfigError, match=r"t\.tsv is no readable TSV file"):
        list(read_tsv(tmp_path / "t.tsv", tmp_path))


def test_a_byte_order_mark_before_a_quoted_header(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes('\ufeff"index"\tquestion\r\n0\tq\r\n1\tr'.encode())
    assert [dict(row.fields) for row in read_tsv(tmp_path / "t.tsv", tmp_path)] == [
        {"index": "0", "question": "q"},
        {"index": "1", "question": "r"},
    ]


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(ConfigError, match=r"empty\.tsv is empty"):
        list(read_tsv(tmp_path / "empty.tsv", tmp_path))
    path = write(tmp_path / "t.tsv", [["index"], ["1", "2"]])
    with pytest.raises(ConfigError, match="2 cells"):
        list(read_tsv(path, tmp_path))
    with pytest.raises(ConfigError, match=r"no reader for '\.csv'"):
        list(read_rows(tmp_path / "t.csv", tmp_path))
