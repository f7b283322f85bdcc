"""Frames of folders, GIFs and video files, as they are stored."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from internvl_lab.data.video import parse_clip, read_frames
from internvl_lab.errors import ConfigError, SampleError

av = pytest.importorskip("av")

FRAMES, RATE = 60, 20


def film(path: Path, codec: str = "mpeg4") -> Path:
    """Write 3 seconds that brighten by 4 levels a frame, with a key frame every 12."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 32, 16, "yuv420p", 12
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 4 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(frames: list[tuple[str, bytes]]) -> list[int]:
    """Tell which frames of `film` these are."""
    return [round(float(np.asarray(Image.open(io.BytesIO(data))).mean()) / 4) for _, data in frames]


def reason(path: Path, **options: object) -> str:
    with pytest.raises(SampleError) as caught:
        read_frames(path, "k", **options)  # type: ignore[arg-type]
    return caught.value.reason


@pytest.mark.parametrize("name", ["film.mp4", "film.avi", "film.mkv"])
def test_stored_frames_of_a_file_are_spread_evenly(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name)
    every = numbers(read_frames(path, "k", FRAMES))
    assert len(every) == FRAMES and np.abs(np.array(every) - np.arange(FRAMES)).max() <= 1
    few = read_frames(path, "k", 5)
    assert np.abs(np.array(numbers(few)) - np.array([6, 18, 30, 42, 54])).max() <= 1
    assert [extension for extension, _ in few] == ["jpg"] * 5
    assert read_frames(path, "k", 5) == few


def test_clip_is_in_seconds(tmp_path: Path) -> None:
    found = numbers(read_frames(film(tmp_path / "film.mp4"), "k", 100, (1.0, 1.5)))
    assert len(found) == 11 and abs(found[0] - 20) <= 1 and abs(found[-1] - 30) <= 1
    assert reason(tmp_path / "film.mp4", clip=(7.0, 9.0)) == "video_clip"


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), ([1, 2.5], (1.0, 2.5)), ([2, 1], "bad"), ("1-2", "bad"), ([-1, 2], "bad")]
)
def test_parse_clip(value: object, expected: object) -> None:
    if expected == "bad":
        with pytest.raises(SampleError, match="video_clip"):
            parse_clip(value, "k")
    else:
        assert parse_clip(value, "k") == expected


@pytest.mark.parametrize("name", ["film.mp4", "film.avi", "film.mkv"])
def test_cut_and_broken_files(tmp_path: Path, name: str) -> None:
    data = film(tmp_path / name).read_bytes()
    for content in (data[: len(data) // 2], data[:100], b"noise" * 500, b""):
        (tmp_path / name).write_bytes(content)
        assert reason(tmp_path / name) == "corrupt_video"


def test_without_pyav_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "film.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"film\.mp4 needs PyAV: pip install 'internvl-lab\[video\]'"):
        read_frames(tmp_path / "film.mp4", "k")


def test_gif_frames_are_lossless_and_in_order(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (8, 6), colour) for colour in colours]
    images[0].save(tmp_path / "v.gif", save_all=True, append_images=images[1:])
    frames = read_frames(tmp_path / "v.gif", "k", 3)
    assert [ext for ext, _ in frames] == ["png"] * 3
    assert [Image.open(io.BytesIO(data)).getpixel((2, 2)) for _, data in frames] == colours
    assert len(read_frames(tmp_path / "v.gif", "k", 2)) == 2
    assert reason(tmp_path / "v.gif", clip=(0.0, 1.0)) == "video_clip"


def test_folder_is_sorted_by_the_last_number(tmp_path: Path, kit: SimpleNamespace) -> None:
    for name in ("cam2_10.png", "cam2_9.png", "note.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert [data for _, data in read_frames(tmp_path, "k")] == [b"cam2_9.png", b"cam2_10.png"]
    assert reason(tmp_path, clip=(0.0, 1.0)) == "video_clip"


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "broken.gif").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    cases = {"broken.gif": "corrupt_image", "empty": "empty", "none": "missing_file", "none.mp4": "missing_file"}
    assert {name: reason(tmp_path / name) for name in cases} == cases
