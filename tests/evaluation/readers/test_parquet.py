"""Parquet as the hub distributes it: images as structs, several row groups."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.readers.parquet import read_parquet

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


def image(name: str | None) -> dict[str, Any] | None:
    return None if name is None else {"bytes": name.encode(), "path": f"{name}.png"}


def test_images_of_several_columns_and_row_groups(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["x", "y", "z"],
            "question": ["1?", "2?", "3?"],
            "image_1": [image("a"), image("b"), image(None)],
            "image_2": [image("c"), image(None), image(None)],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    rows = list(read_parquet(tmp_path / "t.parquet", tmp_path))
    assert [dict(row.fields) for row in rows][2] == {"index": "2", "id": "z", "question": "3?"}
    assert [row.load_images() for row in rows[:2]] == [[b"a", b"c"], [b"b"]]
    with pytest.raises(SampleError, match="z: missing_image"):
        rows[2].load_images()


def test_lists_of_images_and_paths(tmp_path: Path) -> None:
    (tmp_path / "d.png").write_bytes(b"d")
    images = [[image("a"), {"bytes": None, "path": "d.png"}]]
    pq.write_table(pa.table({"question": ["?"], "images": images}), tmp_path / "t.parquet")
    (row,) = read_parquet(tmp_path / "t.parquet", tmp_path)
    assert row.load_images() == [b"a", b"d"]


def test_text_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["?", "!"]}), tmp_path / "t.parquet")
    assert [row.load_images() for row in read_parquet(tmp_path / "t.parquet", tmp_path)] == [[], []]


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    """The footer opens such a file; texts refuse it, a picture condemns its question."""
    image = {"bytes": bytes(range(256)) * 8, "path": None}
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"question": ["?"], "image": [image]}), path)
    whole = path.read_bytes()
    pages = {n: pq.ParquetFile(path).metadata.row_group(0).column(n).data_page_offset for n in (0, 1)}
    (row,) = read_parquet(path, tmp_path)
    path.write_bytes(whole[: pages[1]] + bytes(60) + whole[pages[1] + 60 :])
    with pytest.raises(SampleError, match="corrupt_image"):
        row.load_images()
    path.write_bytes(whole[: pages[0]] + bytes(20) + whole[pages[0] + 20 :])
    with pytest.raises(ConfigError, match="damaged in row group 0"):
        list(read_parquet(path, tmp_path))


def test_broken_file_and_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="no readable parquet"):
        list(read_parquet(tmp_path / "t.parquet", tmp_path))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"internvl-lab\[evaluation\]"):
        list(read_parquet(tmp_path / "t.parquet", tmp_path))
