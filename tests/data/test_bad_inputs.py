"""Every bad input, from the shard to the pack: what is good is emitted in order, what is bad is named, nothing hangs.

Three shards of seven good samples; the fault sits in the middle of the second one. For faults of a sample:
emitted + quarantined + skipped = all there are, and the good ones come in the order in which they come without the
faulty one (found by the index), or with a healthy one in its place (found while training).
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_lab.config import PackingConfig, SourceConfig
from internvl_lab.data.convert import convert
from internvl_lab.data.index import load_or_build_index
from internvl_lab.data.loader import EMPTY_KEY, PackDataset, PackLoader
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Plan
from internvl_lab.data.quarantine import QuarantineLog
from internvl_lab.errors import ShardError
from internvl_lab.text import ChatTemplate

Members = list[tuple[str, bytes]]
PACKING = PackingConfig(max_tokens=140, max_tiles=16, block_size=100, group_window=1)
GOOD, BAD = 21, "bad"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """End a test that waits."""

    def stop(*_: object) -> None:
        raise TimeoutError("this test hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@dataclass
class Outcome:
    """What one epoch over a folder gave."""

    emitted: list[str]
    quarantined: list[tuple[str, str, str]]
    """(shard, key, reason) of samples that failed while training."""
    skipped: list[tuple[str, str, str]]
    """The same of samples that were left out before."""
    indexed: int
    """Usable samples of the index and its problems."""


@pytest.fixture(scope="module")
def run(kit: SimpleNamespace, template: ChatTemplate) -> Callable[..., Outcome]:
    """Train one epoch on a folder of shards, as `train.py` would."""

    def once(folder: Path, num_workers: int = 0) -> Outcome:
        index = load_or_build_index(folder, template)
        mixture = Mixture({"all": (SourceConfig(), index)}, kit.tiling, PACKING)
        plan = Plan(mixture, PACKING, 3, kit.cost, 1)
        log = QuarantineLog(folder / "quarantine.jsonl", "stage1", max_bad_share=1.0, max_bad_in_row=100)
        loader = PackLoader(
            PackDataset(plan, kit.encoder, 3),
            num_steps=plan.packs_in_epoch(0),
            packs_per_step=1,
            num_workers=num_workers,
            quarantine=log,
        )
        emitted = [key for batch in loader for key in batch.sample_keys if key != EMPTY_KEY]
        lines = log.path.read_text().splitlines() if log.path.exists() else []
        return Outcome(
            emitted,
            [(Path(entry["shard"]).name, entry["key"], entry["reason"]) for entry in map(json.loads, lines)],
            [(shard, key, reason) for _, shard, key, reason, detail in mixture.skipped_samples if detail],
            len(index) + len(index.problems),
        )

    return once


@pytest.fixture(scope="module")
def clean(run: Callable[..., Outcome], kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the good samples alone give."""
    outcome = run(write(kit, tmp_path_factory.mktemp("clean"), []))
    assert len(set(outcome.emitted)) == GOOD == outcome.indexed
    return outcome


def good(kit: SimpleNamespace, number: int) -> Members:
    key = f"good{number:02d}"
    return [(f"{key}.0.jpg", kit.picture(40, 40, number, "JPEG")), (f"{key}.json", kit.record_bytes(image="x"))]


def write(kit: SimpleNamespace, folder: Path, bad: Members) -> Path:
    """Write the shards, with some members in the middle."""
    for shard in range(3):
        members = [member for i in range(7) for member in good(kit, 7 * shard + i)]
        kit.write_tar(folder / f"s{shard}.tar", members[:6] + (bad if shard == 1 else []) + members[6:])
    return folder


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def one_image(kit: SimpleNamespace, data: bytes, extension: str = "jpg") -> Members:
    return [(f"{BAD}.0.{extension}", data), (f"{BAD}.json", kit.record_bytes(image="x"))]


def png_bomb() -> bytes:
    """57 bytes that claim 3.6 thousand million pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", 13) + head, struct.pack(">I", 0) + b"IDAT"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk + struct.pack(">I", zlib.crc32(chunk[4:])) for chunk in chunks)


def corrupt_jpeg(kit: SimpleNamespace) -> bytes:
    """A sound header, and tables that no decoder can use."""
    data = bytearray(kit.picture(40, 40, 0, "JPEG"))
    table = data.index(b"\xff\xc4") + 4
    data[table + 1 : table + 17] = b"\xff" * 16
    return bytes(data)


FOUND_BY_THE_INDEX: dict[str, tuple[Callable[[SimpleNamespace], Members], str, str]] = {
    "no image at all": (lambda kit: one_image(kit, b"noise" * 99), BAD, "corrupt_image"),
    "PNG bomb": (lambda kit: one_image(kit, png_bomb(), "png"), BAD, "decompression_bomb"),
    "bad JSON": (lambda kit: [(f"{BAD}.json", b'{"conversations": [')], BAD, "bad_json"),
    "JSON of another shape": (lambda kit: [(f"{BAD}.json", b'{"text": "x"}')], BAD, "bad_json"),
    "missing image": (lambda kit: [(f"{BAD}.json", kit.record_bytes(image="x.jpg"))], BAD, "missing_member"),
    "missing record": (lambda kit: one_image(kit, kit.picture())[:1], BAD, "missing_member"),
    "zero bytes of image": (lambda kit: one_image(kit, b""), BAD, "corrupt_image"),
    "zero bytes of record": (lambda kit: [(f"{BAD}.json", b"")], BAD, "bad_json"),
    "duplicate key in a shard": (lambda kit: good(kit, 7), "good07", "duplicate_key"),
    "duplicate key in another shard": (lambda kit: good(kit, 2), "good02", "duplicate_key"),
    "over-long sample": (
        lambda kit: [(f"{BAD}.json", kit.record_bytes(conversations=kit.talk(answer="a red square " * 200)))],
        BAD,
        "over_max_tokens",
    ),
    "too many tiles": (
        lambda kit: [
            *((f"{BAD}.{n}.png", kit.picture(8, 8)) for n in range(17)),
            (f"{BAD}.json", kit.record_bytes(conversations=kit.talk("<image>" * 17))),
        ],
        BAD,
        "over_max_tiles",
    ),
    "fewer <image> than images": (
        lambda kit: [*one_image(kit, kit.picture(), "png")[:1], (f"{BAD}.1.png", kit.picture()),
                     (f"{BAD}.json", kit.record_bytes(conversations=kit.talk("<image>")))],
        BAD,
        "image_count",
    ),
    "more <image> than images": (
        lambda kit: [*one_image(kit, kit.picture(), "png")[:1],
                     (f"{BAD}.json", kit.record_bytes(conversations=kit.talk("<image><image>")))],
        BAD,
        "image_count",
    ),
    "literal <IMG_CONTEXT>": (
        lambda kit: [(f"{BAD}.json", kit.record_bytes(conversations=kit.talk("see <IMG_CONTEXT>")))],
        BAD,
        "special_token_in_text",
    ),
    "literal <IMG_CONTEXT> in the answer": (
        lambda kit: [(f"{BAD}.json", kit.record_bytes(conversations=kit.talk(answer="<IMG_CONTEXT>")))],
        BAD,
        "special_token_in_text",
    ),
    "path traversal in a tar": (
        lambda kit: [("../../evil.json", kit.record_bytes())], "../../evil", "path_traversal",
    ),
    "broken frame of a video": (
        lambda kit: [(f"{BAD}.0.png", kit.picture()), (f"{BAD}.1.png", b"x"),
                     (f"{BAD}.json", kit.record_bytes(video="film.mp4"))],
        BAD,
        "corrupt_image",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND_BY_THE_INDEX)
def test_found_before_training(
    case: str, tmp_path: Path, kit: SimpleNamespace, run: Callable[..., Outcome], clean: Outcome
) -> None:
    members, key, reason = FOUND_BY_THE_INDEX[case]
    found = run(write(kit, tmp_path, members(kit)))
    assert found.indexed == GOOD + 1 == len(found.emitted) + len(found.quarantined) + len(found.skipped)
    assert found.skipped == [("s1.tar", key, reason)] and found.quarantined == []
    assert found.emitted == clean.emitted


FOUND_WHILE_TRAINING: dict[str, Callable[[SimpleNamespace], bytes]] = {
    "corrupt JPEG": corrupt_jpeg,
    "cut JPEG": lambda kit: kit.picture(40, 40, 0, "JPEG")[:-400],
    "cut PNG": lambda kit: kit.picture(40, 40, 0, "PNG")[:-400],
}


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("case", FOUND_WHILE_TRAINING)
def test_found_while_training(
    case: str, num_workers: int, tmp_path: Path, kit: SimpleNamespace, run: Callable[..., Outcome]
) -> None:
    extension = "png" if "PNG" in case else "jpg"
    clean = run(write(kit, tmp_path / "clean", one_image(kit, kit.picture(40, 40), extension)))
    found = run(write(kit, tmp_path / "bad", one_image(kit, FOUND_WHILE_TRAINING[case](kit), extension)), num_workers)
    assert found.indexed == GOOD + 1 == len(found.emitted) + len(found.quarantined) + len(found.skipped)
    assert found.quarantined == [("s1.tar", BAD, "corrupt_image")] and found.skipped == []
    assert found.emitted == [key for key in clean.emitted if key != BAD] and len(clean.emitted) == GOOD + 1


def gradient(mode: str, size: tuple[int, int] = (40, 40)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(gradient("RGB", (90, 30)), "JPEG", exif=exif)


UNUSUAL: dict[str, tuple[Callable[[], bytes], str]] = {
    "1 x N": (lambda: saved(gradient("RGB", (1, 300)), "PNG"), "png"),
    "N x 1": (lambda: saved(gradient("RGB", (300, 1)), "PNG"), "png"),
    "1 x 1": (lambda: saved(gradient("RGB", (1, 1)), "PNG"), "png"),
    "CMYK": (lambda: saved(gradient("CMYK"), "JPEG"), "jpg"),
    "16 bit": (lambda: saved(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40), "PNG"), "png"),
    "palette with transparency": (lambda: saved(gradient("P"), "PNG", transparency=3), "png"),
    "grey with alpha": (lambda: saved(gradient("LA"), "PNG"), "png"),
    "EXIF rotation": (rotated, "jpg"),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_pictures_are_good(
    case: str, tmp_path: Path, kit: SimpleNamespace, run: Callable[..., Outcome], clean: Outcome
) -> None:
    make, extension = UNUSUAL[case]
    found = run(write(kit, tmp_path, one_image(kit, make(), extension)))
    assert found.quarantined == found.skipped == [] and found.indexed == GOOD + 1 == len(set(found.emitted))
    assert sorted(set(found.emitted) - {BAD}) == sorted(clean.emitted)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 15000)


def flip_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    header = data.index(b"good09.json")
    data[header + 100] ^= 0xFF
    path.write_bytes(data)


DAMAGED_SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut tar": (cut, "truncated"),
    "corrupt tar header": (flip_header, "corrupt header"),
    "empty shard": (lambda path: path.write_bytes(b""), "empty"),
    "shard without samples": (lambda path: path.write_bytes(bytes(10240)), "holds no sample"),
    "garbage shard": (lambda path: path.write_bytes(b"garbage" * 999), "corrupt header"),
    "missing shard": (lambda path: path.unlink(), "lacks 1 of its shards"),
}


@pytest.mark.parametrize("case", DAMAGED_SHARDS)
def test_damaged_shards_stop_before_training(
    case: str, tmp_path: Path, kit: SimpleNamespace, run: Callable[..., Outcome], clean: Outcome
) -> None:
    """A shard cannot be trusted in part: the index names it, and after the repair all is as it was."""
    damage, message = DAMAGED_SHARDS[case]
    folder = write(kit, tmp_path, [])
    (folder / "shards.json").write_text('{"shards": {"s0.tar": 7, "s1.tar": 7, "s2.tar": 7}}')
    whole = (folder / "s1.tar").read_bytes()
    damage(folder / "s1.tar")
    with pytest.raises(ShardError, match=rf"(?s)s1\.tar.*{message}|{message}.*s1\.tar"):
        run(folder)
    (folder / "s1.tar").write_bytes(whole)
    assert run(folder).emitted == clean.emitted


def test_all_damaged_shards_are_named_at_once(
    tmp_path: Path, kit: SimpleNamespace, run: Callable[..., Outcome]
) -> None:
    folder = write(kit, tmp_path, [])
    for name in ("s0.tar", "s2.tar"):
        cut(folder / name)
    with pytest.raises(ShardError, match=r"2 shards are damaged: .*s0\.tar.*s2\.tar"):
        run(folder)


REJECTED: dict[str, tuple[object, str]] = {
    "path traversal in JSONL": ({"image": "../secret.jpg"}, "path_outside_root"),
    "absolute path in JSONL": ({"image": "/etc/passwd"}, "path_outside_root"),
    "path traversal of a video": ({"video": "../../film.mp4"}, "path_outside_root"),
    "broken video": ({"video": "broken.mp4"}, "corrupt_video"),
    "broken GIF": ({"video": "broken.gif"}, "corrupt_image"),
    "empty folder of frames": ({"video": "nothing"}, "empty"),
    "missing file": ({"image": "lost.jpg"}, "missing_file"),
    "broken image": ({"image": "broken.mp4"}, "corrupt_image"),
    "bad JSON": ("{", "bad_json"),
    "bad UTF-8": (b"\xff\xfe", "bad_json"),
    "nested too deeply": ("[" * 100_000, "bad_json"),
    "no answer": ({"conversations": [{"from": "human", "value": "x"}]}, "empty"),
    "image count": ({"image": ["ok.png", "ok.png"]}, "image_count"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rejected_by_the_conversion(
    case: str, tmp_path: Path, kit: SimpleNamespace, run: Callable[..., Outcome]
) -> None:
    pytest.importorskip("av")
    root, (line, reason) = tmp_path / "files", REJECTED[case]
    (root / "nothing").mkdir(parents=True)
    (root / "ok.png").write_bytes(kit.picture())
    (tmp_path / "secret.jpg").write_bytes(kit.picture(kind="JPEG"))
    for name in ("broken.mp4", "broken.gif"):
        (root / name).write_bytes(b"broken" * 99)
    fine = json.dumps({"image": "ok.png", "conversations": kit.talk()}).encode()
    text = json.dumps({"conversations": kit.talk(), **line}) if isinstance(line, dict) else line
    raw = text if isinstance(text, bytes) else str(text).encode()
    (root / "a.jsonl").write_bytes(b"\n".join([fine, fine, raw, fine]))
    meta = {"mine": {"root": str(root), "annotation": str(root / "a.jsonl")}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    report = convert(tmp_path / "meta.json", tmp_path / "out", progress=False)
    (rejected,) = [json.loads(entry) for entry in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert (rejected["source"], rejected["key"], rejected["reason"]) == ("mine", "mine-00000003", reason)
    assert rejected["detail"] and report.num_written == 3 and report.sources["mine"].rejected == {reason: 1}
    assert sorted(run(tmp_path / "out" / "mine").emitted) == [f"mine-0000000{n}" for n in (1, 2, 4)]
