"""Frames of folders and GIFs."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from internvl_lab.data.video import read_frames, sample_frames
from internvl_lab.errors import SampleError


@given(st.integers(1, 200), st.integers(1, 10), st.integers(0, 30), st.integers(0, 99))
def test_one_frame_from_each_equal_part(num_frames: int, low: int, more: int, seed: int) -> None:
    frames = sample_frames(num_frames, low, low + more, np.random.default_rng(seed))
    assert min(num_frames, low) <= len(frames) <= min(num_frames, low + more)
    edges = np.linspace(0, num_frames, len(frames) + 1).astype(int)
    for frame, begin, end in zip(frames, edges[:-1], edges[1:], strict=True):
        assert begin <= frame < end


def test_number_of_frames_varies_over_the_whole_range() -> None:
    counts = {len(sample_frames(100, 8, 12, np.random.default_rng(s))) for s in range(60)}
    assert counts == {8, 9, 10, 11, 12}


def test_impossible_limits() -> None:
    for arguments in ((0, 1, 2), (5, 0, 2), (5, 3, 2)):
        with pytest.raises(ValueError, match="num_frames"):
            sample_frames(*arguments, np.random.default_rng(0))


def read(path: Path, low: int = 1, high: int = 1) -> list[tuple[str, bytes]]:
    return read_frames(path, "k", low, high, np.random.default_rng(0))


def test_gif_frames_are_lossless_and_in_order(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (8, 6), colour) for colour in colours]
    images[0].save(tmp_path / "v.gif", save_all=True, append_images=images[1:])
    frames = read(tmp_path / "v.gif", 3, 3)
    assert [ext for ext, _ in frames] == ["png"] * 3
    assert [Image.open(io.BytesIO(data)).getpixel((2, 2)) for _, data in frames] == colours


def test_folder_is_sorted_by_the_last_number(tmp_path: Path, kit: SimpleNamespace) -> None:
    for name in ("cam2_10.png", "cam2_9.png", "note.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert [data for _, data in read(tmp_path, 2, 2)] == [b"cam2_9.png", b"cam2_10.png"]


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"x")
    (tmp_path / "broken.gif").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    cases = {"film.mp4": "video_format", "broken.gif": "corrupt_image", "empty": "empty", "none": "missing_file"}
    for name, reason in cases.items():
        with pytest.raises(SampleError) as caught:
            read(tmp_path / name)
        assert caught.value.reason == reason
