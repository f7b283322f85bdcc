"""Scanning a shard: grouping as webdataset's, order of images, and every fault of a single sample."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from webdataset.tariterators import base_plus_ext

from internvl_lab.data.scan import HEADER_BYTES, KINDS, ShardScan, group_members, read_extent, scan_shard
from internvl_lab.data.tar_walk import Member
from internvl_lab.errors import ShardError
from internvl_lab.text import ChatTemplate


def scan(kit: SimpleNamespace, template: ChatTemplate, folder: Path, members: list[tuple[str, bytes]]) -> ShardScan:
    return scan_shard(kit.write_tar(folder / "t.tar", members), template)


def png_header(width: int, height: int) -> bytes:
    """A PNG of 57 bytes that claims any size."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT"
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0) + idat + struct.pack(">I", zlib.crc32(idat))
    )  # fmt: skip


def test_kinds_tokens_and_sizes(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    members = []
    for i in range(4):
        raw = kit.sample(i)
        members += [(f"{raw.key}.{n}.{ext}", data) for n, (ext, data) in enumerate(raw.images)]
        members.append((f"{raw.key}.json", json.dumps(raw.record).encode()))
    found = scan(kit, template, tmp_path, members)
    assert [KINDS[kind] for kind in found.kinds] == ["text", "image", "multi_image", "video"]
    assert found.tasks == ["text_only", "one", "two", "video"]
    assert [len(images) for images in found.images] == [0, 1, 2, 3]
    assert found.images[1][0][2:] == (31, 40)
    assert found.problems == []
    assert found.text_tokens[0] == len(template._ids("<|im_start|>user\nwhat is it?<|im_end|>\n")) + len(
        template._ids("<|im_start|>assistant\na red square <|im_end|>\n")
    )


def test_grouping_equals_webdataset() -> None:
    names = ["a.json", "a.0.jpg", "d/b.c.json", "noext", "d.e/c.json", "a.1.jpg", ".hidden.json", "x.tar.gz"]
    groups = [
        (key, suffix)
        for key, parts in group_members([Member(n, 0, 0) for n in names], ShardScan("s"))
        for suffix in parts
    ]
    assert groups == [pair for pair in map(base_plus_ext, names) if pair[0] is not None]


def test_images_come_in_numeric_order(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    order = [10, 2, 0, 1, *range(3, 10), 11]
    members = [(f"k.{n}.png", kit.picture(20 + n, 20)) for n in order]
    question = "<image>" * 12
    members.append(("k.json", json.dumps({"conversations": kit.talk(question)}).encode()))
    found = scan(kit, template, tmp_path, members)
    assert [width for _, _, width, _ in found.images[0]] == list(range(20, 32))


def test_record_may_name_its_members(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    record = {"image": ["k.right.png", "k.left.png"], "conversations": kit.talk("<image><image>")}
    members = [
        ("k.left.png", kit.picture(21, 9)),
        ("k.right.png", kit.picture(22, 9)),
        ("k.json", json.dumps(record).encode()),
    ]
    found = scan(kit, template, tmp_path, members)
    assert [width for _, _, width, _ in found.images[0]] == [22, 21]


def test_single_image_without_number_and_foreign_members(
    kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path
) -> None:
    members = [("k.jpg", kit.picture(kind="JPEG")), ("k.txt", b"caption"), ("k.json", kit.record_bytes(image="x.jpg"))]
    found = scan(kit, template, tmp_path, members)
    assert len(found.images[0]) == 1 and found.problems == []


def test_header_beyond_the_first_read_is_found(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (33, 44)).save(buffer, "JPEG", icc_profile=bytes(2 * HEADER_BYTES))
    found = scan(kit, template, tmp_path, [("k.0.jpg", buffer.getvalue()), ("k.json", kit.record_bytes(image="x"))])
    assert found.images[0][0][2:] == (33, 44)


def test_exif_orientation_swaps_the_size(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (50, 20)).save(buffer, "JPEG", exif=exif)
    found = scan(kit, template, tmp_path, [("k.0.jpg", buffer.getvalue()), ("k.json", kit.record_bytes(image="x"))])
    assert found.images[0][0][2:] == (20, 50)


def test_every_fault_is_named_and_the_others_stay(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    one = kit.record_bytes(image="x")
    faults = {
        "bad": ([("bad.0.png", kit.picture()), ("bad.json", b"{")], "bad_json"),
        "list": ([("list.json", b"[]")], "bad_json"),
        "lost": ([("lost.json", one)], "missing_member"),
        "nojson": ([("nojson.0.png", kit.picture())], "missing_member"),
        "gap": ([("gap.1.png", kit.picture()), ("gap.json", one)], "missing_member"),
        "twin": ([("twin.png", kit.picture()), ("twin.0.png", kit.picture()), ("twin.json", one)], "duplicate_key"),
        "count": ([("count.json", kit.record_bytes(conversations=kit.talk("<image>")))], "image_count"),
        "noise": ([("noise.0.jpg", b"noise" * 50), ("noise.json", one)], "corrupt_image"),
        "zero": ([("zero.0.jpg", b""), ("zero.json", one)], "corrupt_image"),
        "bomb": ([("bomb.0.png", png_header(60000, 60000)), ("bomb.json", one)], "decompression_bomb"),
        "token": ([("token.json", kit.record_bytes(conversations=kit.talk("<img>")))], "special_token_in_text"),
        "good0": ([("good0.json", kit.record_bytes())], "duplicate_key"),
    }
    good = [(f"good{i}.json", kit.record_bytes()) for i in range(2)]
    members = [*good, ("../up.json", kit.record_bytes()), ("/abs.json", kit.record_bytes())]
    members += [member for parts, _ in faults.values() for member in parts] + [("last.json", kit.record_bytes())]
    found = scan(kit, template, tmp_path, members)
    assert found.keys == ["good0", "good1", "last"]
    expected = [("../up", "path_traversal"), ("/abs", "path_traversal"), *((k, r) for k, (_, r) in faults.items())]
    assert sorted((key, reason) for _, key, reason, _ in found.problems) == sorted(expected)
    assert all(shard == "t.tar" and detail for shard, _, _, detail in found.problems)


def test_member_that_comes_twice_keeps_the_first(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    members = [("k.json", kit.record_bytes(task="first")), ("k.json", kit.record_bytes(task="second"))]
    found = scan(kit, template, tmp_path, members)
    assert found.tasks == ["first"]
    assert [problem[2] for problem in found.problems] == ["duplicate_key"]


def test_shard_without_samples_is_refused(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"t\.tar holds no sample"):
        scan(kit, template, tmp_path, [])


def test_short_read_names_the_shard(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    with path.open("rb") as file:
        assert read_extent(file.fileno(), 1, 3, "x") == b"234"
        with pytest.raises(ShardError, match="shard x is shorter"):
            read_extent(file.fileno(), 3, 3, "x")
