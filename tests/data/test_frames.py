"""Frames drawn from a video: one from each equal part, another draw in every epoch, and what they cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.config import PackingConfig, SourceConfig
from internvl_lab.data.frames import draw_count, draw_frames, frame_line_tokens, frame_rng, spread_frames
from internvl_lab.data.index import build_index
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Plan
from internvl_lab.text import ChatTemplate
from internvl_lab.text.template import Turn


@given(st.integers(1, 200), st.integers(1, 10), st.integers(0, 30), st.integers(0, 99))
def test_one_frame_from_each_equal_part(num_frames: int, low: int, more: int, seed: int) -> None:
    frames = draw_frames(num_frames, low, low + more, np.random.default_rng(seed))
    assert len(frames) == draw_count(num_frames, low, low + more, np.random.default_rng(seed))
    assert min(num_frames, low) <= len(frames) <= min(num_frames, low + more)
    edges = np.linspace(0, num_frames, len(frames) + 1).astype(int)
    for frame, begin, end in zip(frames, edges[:-1], edges[1:], strict=True):
        assert begin <= frame < end


def test_number_of_frames_varies_over_the_whole_range() -> None:
    assert {draw_count(100, 8, 12, frame_rng(0, epoch, "k")) for epoch in range(60)} == {8, 9, 10, 11, 12}
    first = draw_frames(100, 8, 12, frame_rng(0, 3, "k"))
    assert first == draw_frames(100, 8, 12, frame_rng(0, 3, "k"))
    assert first != draw_frames(100, 8, 12, frame_rng(1, 3, "k")) != draw_frames(100, 8, 12, frame_rng(1, 3, "l"))


def test_impossible_limits() -> None:
    for arguments in ((0, 1, 2), (5, 0, 2), (5, 3, 2)):
        with pytest.raises(ValueError, match="num_frames"):
            draw_frames(*arguments, np.random.default_rng(0))


def test_spread_frames() -> None:
    assert spread_frames(3, 5) == [0, 1, 2]
    assert spread_frames(100, 4) == [12, 37, 62, 87]


def test_frame_lines_cost_what_the_template_says(template: ChatTemplate) -> None:
    lines = frame_line_tokens(template, 120)

    def length(count: int) -> int:
        text = "see\n" + "\n".join(f"Frame-{k}: <image>" for k in range(1, count + 1)) + "\n\nwhat happens?"
        return len(template.encode([Turn("human", text)], [0] * count).input_ids)

    assert lines[:2].tolist() == [0, 0] and len(lines) == 121
    for count in (1, 2, 9, 10, 11, 99, 100, 120):
        assert length(count) == length(1) + lines[count]


@pytest.mark.parametrize("listed", [False, True])
def test_plan_knows_the_frames_of_every_epoch(
    tmp_path: Path, template: ChatTemplate, kit: SimpleNamespace, listed: bool
) -> None:
    """40 frames stored, 3 to 9 drawn: each epoch packs what it draws, and no sample differs from its plan."""
    members = []
    for i in range(12):
        members += [(f"v{i}.{n}.png", kit.picture(8 + n, 8, n)) for n in range(40)]
        video = [f"{n}.png" for n in range(40)] if listed else "film.mp4"
        members += [(f"v{i}.json", kit.record_bytes(video=video, conversations=kit.talk("look <video>\nwhat?")))]
    kit.write_tar(tmp_path / "v.tar", members)
    source = SourceConfig(min_frames=3, max_frames=9)
    mixture = Mixture({"v": (source, build_index(tmp_path, template))}, kit.tiling, kit.packing)
    packing = PackingConfig(max_tokens=300, max_tiles=20, block_size=12, group_window=1)
    dataset = PackDataset(Plan(mixture, packing, 5, kit.cost, 1), kit.encoder, 5)
    tiles, epochs = {}, set()
    for number in range(40):
        batch, pack = dataset[number], dataset.plan.pack(number)
        assert batch.bad_samples == [] and batch.num_tiles <= 20 and batch.num_tokens <= 300
        for key, count in zip(batch.sample_keys, batch.tiles_per_sample.tolist(), strict=True):
            tiles[pack.epoch, key] = count
        epochs.add(pack.epoch)
    assert len(epochs) >= 3 and set(tiles.values()) == set(range(3, 10))
    assert len({tiles[epoch, "v0"] for epoch in epochs if (epoch, "v0") in tiles}) > 1
    record, images = mixture.read(0, 0, 5, 1)
    assert record.is_video and len(images) == len(record.images) == record.turns[0].text.count("<image>")


def test_frames_are_as_many_as_fit(tmp_path: Path, template: ChatTemplate, kit: SimpleNamespace) -> None:
    members = [(f"v.{n}.png", kit.picture(8, 8, n)) for n in range(40)]
    kit.write_tar(tmp_path / "v.tar", [*members, ("v.json", kit.record_bytes(video="film.mp4"))])
    index = build_index(tmp_path, template)
    for limits, most in (((10**6, 7), 7), ((150, 100), None), ((10**6, 2), 0), ((60, 100), 0)):
        packing = PackingConfig(max_tokens=limits[0], max_tiles=limits[1])
        sources = {"v": (SourceConfig(min_frames=4), index), "b": (SourceConfig(min_frames=1, max_frames=1), index)}
        mixture = Mixture(sources, kit.tiling, packing)
        assert mixture.max_frames is not None
        if most == 0:
            assert mixture.skipped.total() == 1 and len(mixture) == 1
        else:
            drawn = [mixture.size_of(0, 0, 0, epoch) for epoch in range(50)]
            assert max(tokens for tokens, _ in drawn) <= limits[0] and min(count for _, count in drawn) == 4
            assert max(count for _, count in drawn) == (most or mixture.max_frames[0]) <= limits[1]
