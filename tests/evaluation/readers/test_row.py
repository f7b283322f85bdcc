"""Fields that hold lists as text, base64, and files that rows name."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from internvl_lab.errors import SampleError
from internvl_lab.evaluation.readers.row import as_list, decode_base64, no_images, read_file


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (None, []),
        ("a", ["a"]),
        ("['a', 'b']", ["a", "b"]),
        ('["a"]', ["a"]),
        ("[not a list]", ["[not a list]"]),
        (["a"], ["a"]),
        (3, [3]),
    ],
)
def test_as_list(value: Any, items: list[Any]) -> None:
    assert as_list(value) == items


def test_base64() -> None:
    text = base64.b64encode(b"pixels").decode()
    assert decode_base64(text, "k") == decode_base64("data:image/png;base64," + text, "k") == b"pixels"
    with pytest.raises(SampleError, match="k: corrupt_image"):
        decode_base64("no base64!", "k")


def test_files_are_found_with_and_without_the_authors_prefix(tmp_path: Path) -> None:
    (tmp_path / "chartqa").mkdir()
    (tmp_path / "chartqa" / "1.png").write_bytes(b"x")
    for name in ("chartqa/1.png", "data/chartqa/1.png", "./chartqa/1.png", str(tmp_path / "chartqa" / "1.png")):
        assert read_file(name, (tmp_path,), "k") == b"x"
    assert read_file("http://host/some/1.png", (tmp_path, tmp_path / "chartqa"), "k") == b"x"
    with pytest.raises(SampleError, match="missing_file"):
        read_file("2.png", (tmp_path,), "k")
    assert no_images() == []
