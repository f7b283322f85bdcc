"""The strict tar walk: agrees with tarfile on good files, and raises on every kind of damage."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from internvl_lab.data.tar_walk import BLOCK, TarCheck, walk_tar
from internvl_lab.errors import ShardError


def make(path: Path, names: list[str], fmt: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=fmt) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * number
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return path


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_equals_tarfile(tmp_path: Path, fmt: int) -> None:
    names = ["a.json", "dir/b.jpg", "long" * 22 + "/" + "x" * 90 + ".png", "c.json"]
    if fmt != tarfile.USTAR_FORMAT:
        names += ["y" * 300 + ".txt", "ümlaut.txt"]
    path = make(tmp_path / "t.tar", names, fmt)
    members = walk_tar(path)
    with tarfile.open(path) as tar:
        assert [(m.name, m.offset, m.size) for m in members] == [(i.name, i.offset_data, i.size) for i in tar]


def test_pax_size_record_wins(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("big.bin")
        info.size, info.pax_headers = 700, {"size": "700"}
        tar.addfile(info, io.BytesIO(bytes(700)))
    assert walk_tar(path)[0].size == 700


def test_folders_and_links_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        folder, link = tarfile.TarInfo("d"), tarfile.TarInfo("l")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(folder)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("f.json"))
    assert [m.name for m in walk_tar(path)] == ["f.json"]


@pytest.mark.parametrize(
    ("keep", "message"), [(BLOCK // 2, "truncated"), (BLOCK * 3 + 10, "truncated"), (BLOCK * 6, "no end marker")]
)
def test_truncation(tmp_path: Path, keep: int, message: str) -> None:
    path = make(tmp_path / "cut.tar", ["a.json", "b.jpg", "c.jpg"])  # blocks: header, header + 1, header + 2
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ShardError, match=f"cut.tar.*{message}"):
        walk_tar(path)


def test_two_tars_in_one_file(tmp_path: Path) -> None:
    both = tmp_path / "both.tar"
    both.write_bytes(
        b"".join(make(tmp_path / f"{name}.tar", [f"{name}.json", f"{name}.jpg"]).read_bytes() for name in "ab")
    )
    with pytest.raises(ShardError, match="goes on behind its end marker"):
        walk_tar(both)


def test_half_an_end_marker(tmp_path: Path) -> None:
    path = make(tmp_path / "half.tar", ["a.json"])
    path.write_bytes(path.read_bytes()[: 2 * BLOCK])
    with pytest.raises(ShardError, match="half an end marker"):
        walk_tar(path)


def test_corrupt_header_and_garbage(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tar", ["a.json", "b.jpg", "c.jpg"])
    data = bytearray(path.read_bytes())
    data[BLOCK + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"t\.tar.*corrupt header at byte 512"):
        walk_tar(path)
    path.write_bytes(b"this is no tar" * 100)
    with pytest.raises(ShardError, match="corrupt header at byte 0"):
        walk_tar(path)


def test_empty_and_missing(tmp_path: Path) -> None:
    (tmp_path / "e.tar").touch()
    with pytest.raises(ShardError, match=r"e\.tar is empty"):
        walk_tar(tmp_path / "e.tar")
    with pytest.raises(ShardError, match=r"m\.tar cannot be read"):
        walk_tar(tmp_path / "m.tar")


def check(data: bytes, piece: int) -> TarCheck:
    passing = TarCheck("x.tar")
    for start in range(0, len(data), piece):
        passing.feed(data[start : start + piece])
    passing.close()
    return passing


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("piece", [1, 700, 10240, 1 << 20])
def test_a_stream_is_checked_in_pieces_of_any_size(tmp_path: Path, fmt: int, piece: int) -> None:
    names = ["a.json", "long" * 22 + "/" + "x" * 90 + ".png"] + ["y" * 300] * (fmt != tarfile.USTAR_FORMAT)
    data = make(tmp_path / "t.tar", names, fmt).read_bytes()
    assert check(data, piece).ended
    end = data.rstrip(b"\0").__len__()
    for keep in (0, 200, BLOCK, end // 2, end + BLOCK):
        with pytest.raises(ShardError, match=r"x\.tar (is empty|has no end marker|has half an end marker)"):
            check(data[:keep], piece)
    with pytest.raises(ShardError, match="corrupt header at byte 0"):
        check(b"x" + data[1:], piece)
    with pytest.raises(ShardError, match="goes on behind its end marker"):
        check(data + data, piece)
