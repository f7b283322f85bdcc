"""Frames of folders, GIFs and films."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.readers.frames import read_video, spread_frames


@pytest.mark.parametrize(
    ("count", "wanted", "fps", "bound", "chosen"),
    [
        (10, 1, 1.0, None, [4]),
        (100, 4, 1.0, None, [12, 37, 62, 86]),
        (3, 8, 1.0, None, [0, 1, 2]),
        (1, 4, 1.0, None, [0]),
        (100, 2, 10.0, (2.0, 4.0), [25, 35]),
        (100, 2, 10.0, (50.0, 60.0), [99]),  # behind the end
    ],
)
def test_spread(count: int, wanted: int, fps: float, bound: tuple[float, float] | None, chosen: list[int]) -> None:
    assert spread_frames(count, wanted, fps, bound) == chosen


def test_impossible_numbers() -> None:
    with pytest.raises(ValueError, match="num_frames=0"):
        spread_frames(0, 1, 1.0)


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (value, value, value))


def levels(frames: list[Image.Image]) -> list[int]:
    return [round(float(np.asarray(frame).mean())) for frame in frames]


def test_folder(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        grey(20 * i).save(tmp_path / f"frame_{i}.png")
    assert levels(read_video(tmp_path, "k", 3)) == [20, 40, 200]
    (tmp_path / "none").mkdir()
    with pytest.raises(SampleError, match="empty"):
        read_video(tmp_path / "none", "k", 3)


def test_gif(tmp_path: Path) -> None:
    first, *rest = [grey(50 * i) for i in range(5)]
    first.save(tmp_path / "v.gif", save_all=True, append_images=rest)
    assert levels(read_video(tmp_path / "v.gif", "k", 2)) == [50, 150]


def test_film(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(20):
            film.mux(stream.encode(av.VideoFrame.from_image(grey(10 * i))))
        film.mux(stream.encode())
    whole = levels(read_video(tmp_path / "v.mp4", "k", 2))
    assert whole == pytest.approx([40, 140], abs=8)  # lossy; the middle frames of two halves
    assert levels(read_video(tmp_path / "v.mp4", "k", 1, (1.0, 1.8))) == pytest.approx([140], abs=8)


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SampleError, match="missing_file"):
        read_video(tmp_path / "v.mp4", "k", 2)
    (tmp_path / "v.mp4").write_bytes(b"no film")
    (tmp_path / "v.gif").write_bytes(b"no gif")
    for name in ("v.gif", "v.mp4"):
        with pytest.raises(SampleError, match="corrupt_video"):
            read_video(tmp_path / name, "k", 2)
    with wave.open(str(tmp_path / "v.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    with pytest.raises(SampleError, match="corrupt_video"):
        read_video(tmp_path / "v.wav", "k", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"internvl-lab\[video\]"):
        read_video(tmp_path / "v.mp4", "k", 2)
