"""Packs as tensors; the same stream for any workers and ranks; bad samples leave, the others do not move."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from internvl_lab.config import JpegConfig, PackingConfig, SourceConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.batch import Batch
from internvl_lab.data.encoding import SampleEncoder
from internvl_lab.data.index import build_index
from internvl_lab.data.loader import EMPTY_KEY, PackDataset, PackLoader
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Pack, Plan
from internvl_lab.data.quarantine import QuarantineLog
from internvl_lab.errors import ConfigError, ShardError
from internvl_lab.text import ChatTemplate


def loader(dataset: PackDataset, **options: Any) -> PackLoader:
    return PackLoader(dataset, **{"num_steps": 6, "packs_per_step": 4, **options})


def digest(batch: Batch) -> str:
    parts = [batch.input_ids, batch.labels, batch.loss_weights, batch.pixel_values, batch.cu_seqlens]
    joined = b"".join(part.numpy().tobytes() for part in parts)
    return f"{batch.pack_number} {hashlib.sha256(joined).hexdigest()}"


def digests(batches: Iterable[Batch]) -> list[str]:
    return [digest(batch) for batch in batches]


def test_batch_is_consistent(dataset: PackDataset) -> None:
    for k in range(6):
        batch, expected = dataset[k], dataset.plan.pack(k)
        tokens, num_samples = batch.num_tokens, len(expected.samples)
        assert batch.input_ids.dtype == batch.labels.dtype == batch.position_ids.dtype == torch.int64
        assert batch.cu_seqlens.dtype == batch.tiles_per_sample.dtype == batch.source_ids.dtype == torch.int32
        assert batch.loss_weights.dtype == torch.float32 and batch.pixel_values.dtype == torch.uint8
        assert batch.labels.shape == batch.position_ids.shape == batch.loss_weights.shape == (1, tokens)
        bounds = batch.cu_seqlens.tolist()
        assert bounds[0] == 0 and bounds[-1] == tokens and len(bounds) == num_samples + 1
        lengths = np.diff(bounds)
        assert batch.max_seqlen == lengths.max() and isinstance(batch.max_seqlen, int)
        assert batch.position_ids[0].tolist() == [i for length in lengths for i in range(length)]
        assert all(batch.labels[0, end - 1] == IGNORE_INDEX for end in bounds[1:])
        assert torch.equal(batch.loss_weights != 0, batch.labels != IGNORE_INDEX)
        assert batch.sample_keys == [key for key, _ in dataset.planned(k)]
        assert batch.num_tiles == int(batch.tiles_per_sample.sum())
        context = int((batch.input_ids == dataset.encoder.template.context_id).sum())
        assert context == batch.num_tiles * 4
        sizes = [dataset.plan.mixture.size_of(*sample) for sample in expected.samples]
        assert sizes == list(zip(lengths.tolist(), batch.tiles_per_sample.tolist(), strict=True))
        assert batch.pack_number == k and batch.bad_samples == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(dataset: PackDataset, num_workers: int) -> None:
    assert digests(loader(dataset, num_workers=num_workers)) == digests(loader(dataset))


def test_the_jpeg_backend_changes_no_bit(dataset: PackDataset, kit: SimpleNamespace, template: ChatTemplate) -> None:
    pytest.importorskip("simplejpeg")
    pytest.importorskip("cv2")
    streams = []
    for backend in ("pillow", "fast"):
        encoder = SampleEncoder(template, kit.tiling, JpegConfig(backend=backend), "square", "sample")
        streams.append(digests(loader(PackDataset(dataset.plan, encoder, 1), num_workers=1)))
    assert streams[0] == streams[1] == digests(loader(dataset))


def test_ranks_take_contiguous_slices_of_the_same_stream(dataset: PackDataset) -> None:
    whole = digests(loader(dataset))
    for world_size in (2, 4):
        ranks = [digests(loader(dataset, rank=r, world_size=world_size)) for r in range(world_size)]
        share = 4 // world_size
        joined = [d for s in range(6) for rank in ranks for d in rank[s * share : (s + 1) * share]]
        assert joined == whole
        assert {len(rank) for rank in ranks} == {len(loader(dataset, world_size=world_size))}


def test_position_and_length(dataset: PackDataset) -> None:
    whole = digests(loader(dataset))
    resumed = loader(dataset)
    resumed.set_position(4)
    assert digests(resumed) == whole[16:] and len(resumed) == 24
    resumed.set_position(6)
    assert digests(resumed) == []
    for step in (-1, 7):
        with pytest.raises(ConfigError, match="outside the run of 6 steps"):
            resumed.set_position(step)


def test_ranks_must_divide_the_step(dataset: PackDataset) -> None:
    with pytest.raises(ConfigError, match="packs_per_step=4 is not a multiple of 3"):
        loader(dataset, world_size=3)


def test_augmentation_follows_seed_and_epoch_only(make_plan: Callable[..., Plan], kit: SimpleNamespace) -> None:
    plan = make_plan()
    first, again = PackDataset(plan, kit.encoder, 1)[1], PackDataset(plan, kit.encoder, 1)[1]
    other, plain = PackDataset(plan, kit.encoder, 2)[1], PackDataset(plan, kit.encoder, 1, augment=False)[1]
    assert torch.equal(first.pixel_values, again.pixel_values)
    assert not torch.equal(first.pixel_values, other.pixel_values)
    assert not torch.equal(first.pixel_values, plain.pixel_values)
    assert torch.equal(first.input_ids, other.input_ids)


def test_copies_of_a_sample_look_different(dataset: PackDataset, kit: SimpleNamespace) -> None:
    index = dataset.plan.mixture.indexes[0]
    often = Mixture({"all": (SourceConfig(repeat=3), index)}, kit.tiling, kit.packing)
    copies = PackDataset(Plan(often, kit.packing, 1, kit.cost, 4), kit.encoder, 1)
    batches = [copies[0, Pack(0, ((0, 1),), (copy,) if copy else ())] for copy in (0, 1, 2, 0)]
    pixels = [batch.pixel_values for batch in batches]
    assert torch.equal(pixels[0], pixels[3]) and torch.equal(pixels[0], dataset[0, Pack(0, ((0, 1),))].pixel_values)
    assert not torch.equal(pixels[0], pixels[1]) and not torch.equal(pixels[1], pixels[2])
    assert all(not batch.bad_samples for batch in (copies[k] for k in range(30)))  # videos are as long as planned


def faulty_dataset(
    folder: Path, kit: SimpleNamespace, template: ChatTemplate, is_bad: Callable[[int], bool]
) -> PackDataset:
    """24 samples of one image; the bad ones have a sound header and half a picture."""
    members = []
    for i in range(24):
        data = kit.picture(40, 40, i, "JPEG")
        members += [(f"i{i}.0.jpg", data[: len(data) // 2] if is_bad(i) else data)]
        members += [(f"i{i}.json", kit.record_bytes(image="x.jpg"))]
    kit.write_tar(folder / "s.tar", members)
    mixture = Mixture({"a": (SourceConfig(), build_index(folder, template))}, kit.tiling, kit.packing)
    packing = PackingConfig(max_tokens=200, max_tiles=24, block_size=24, group_window=1)
    return PackDataset(Plan(mixture, packing, 0, kit.cost, 2), kit.encoder, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_samples_leave_and_the_others_do_not_move(
    tmp_path: Path, kit: SimpleNamespace, template: ChatTemplate, num_workers: int
) -> None:
    clean = faulty_dataset(tmp_path / "clean", kit, template, lambda i: False)
    faulty = faulty_dataset(tmp_path / "faulty", kit, template, lambda i: i in (3, 17))
    faulty.plan.mixture.fingerprint = clean.plan.mixture.fingerprint
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 1.0, 100)
    steps = clean.plan.packs_in_epoch(0) // 2
    pairs = zip(
        loader(clean, num_steps=steps, packs_per_step=2),
        loader(faulty, num_steps=steps, packs_per_step=2, num_workers=num_workers, quarantine=log),
        strict=True,
    )
    for good, rest in pairs:
        assert rest.sample_keys == [key for key in good.sample_keys if key not in ("i3", "i17")]
        assert rest.input_ids.shape[1] == good.input_ids.shape[1] - sum(
            good.cu_seqlens.diff()[good.sample_keys.index(key)].item() for key, _, _ in rest.bad_samples
        )
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert {(line["key"], line["reason"]) for line in lines} == {("i3", "corrupt_image"), ("i17", "corrupt_image")}
    assert all(line["shard"] == str(tmp_path / "faulty" / "s.tar") and line["step"] < steps for line in lines)


def test_wholly_bad_pack_is_one_token_without_weight(
    tmp_path: Path, kit: SimpleNamespace, template: ChatTemplate
) -> None:
    dataset = faulty_dataset(tmp_path, kit, template, lambda i: True)
    batch = dataset[0]
    assert batch.sample_keys == [EMPTY_KEY] and len(batch.bad_samples) == len(dataset.plan.pack(0).samples)
    assert batch.input_ids.tolist() == [[template.pad_id]] and batch.labels.tolist() == [[IGNORE_INDEX]]
    assert batch.loss_weights.sum() == 0 and batch.cu_seqlens.tolist() == [0, 1]
    assert batch.pixel_values.shape == (0, 3, 28, 28)
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 1.0, 10)
    with pytest.raises(ShardError, match="10 samples in a row"):
        digests(loader(dataset, num_workers=1, packs_per_step=2, quarantine=log))


def test_sample_that_is_larger_than_planned_is_left_out(dataset: PackDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataset.plan.pack(0).samples[0][1]
    index = dataset.plan.mixture.indexes[0]
    raw = json.loads(index.read_json(row))
    raw["conversations"][1]["value"] += " and more"
    original = type(index).read_json
    monkeypatch.setattr(
        type(index), "read_json", lambda self, r: json.dumps(raw).encode() if r == row else original(self, r)
    )
    assert [bad[:2] for bad in dataset[0].bad_samples] == [(str(index.key[row]), "index_mismatch")]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_lost_shard_is_fatal(tmp_path: Path, kit: SimpleNamespace, template: ChatTemplate, num_workers: int) -> None:
    dataset = faulty_dataset(tmp_path, kit, template, lambda i: False)
    (tmp_path / "s.tar").unlink()
    with pytest.raises(ShardError, match=r"s\.tar"):
        digests(loader(dataset, num_workers=num_workers, packs_per_step=2))


def test_a_cluster_s_signals_leave_the_workers_alone(dataset: PackDataset) -> None:
    """They reach every process of a job; the main one decides when its workers end."""
    others = set(multiprocessing.active_children())
    stream = iter(loader(dataset, num_workers=1))
    batches = [next(stream)]
    (worker,) = set(multiprocessing.active_children()) - others
    subprocess.run(["/bin/sh", "-c", f"kill -TERM {worker.pid}; kill -USR1 {worker.pid}"], check=True)
    assert digests([*batches, *stream]) == digests(loader(dataset))


RUN = """
import sys, pickle, time, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
dataset = pickle.load(open(sys.argv[2], "rb"))
from internvl_lab.data.loader import PackLoader
import hashlib
loader = PackLoader(dataset, num_steps=30, packs_per_step=4, num_workers=int(sys.argv[4]))
out = open(sys.argv[3], "a+")
out.seek(0)
lines = [line for line in out if line.endswith("\\n")]
loader.set_position(len(lines) // 4)
out.truncate(sum(map(len, lines[: len(lines) // 4 * 4])))
out.seek(0, 2)
for batch in loader:
    parts = [batch.input_ids, batch.labels, batch.loss_weights, batch.pixel_values, batch.cu_seqlens]
    joined = b"".join(part.numpy().tobytes() for part in parts)
    out.write(f"{batch.pack_number} {hashlib.sha256(joined).hexdigest()}\\n")
    out.flush()
    time.sleep(0.02)  # so that the killing finds it at work
"""


def children(pid: int) -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.add(int(entry))
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_kill_9_leaves_no_worker_and_the_stream_continues_exactly(dataset: PackDataset, tmp_path: Path) -> None:
    expected = digests(loader(dataset, num_steps=30))
    out, frozen = tmp_path / "out.txt", tmp_path / "dataset.pkl"
    frozen.write_bytes(pickle.dumps(dataset))
    out.touch()
    source = str(Path(__file__).resolve().parents[2] / "src")

    def start(num_workers: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", RUN, source, str(frozen), str(out), str(num_workers)])

    for num_workers, lines in ((2, 13), (1, 50)):
        run = start(num_workers)
        assert wait_until(lambda n=lines: out.read_text().count("\n") >= n)  # type: ignore[misc]
        workers = children(run.pid)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert 1 <= len(workers) <= num_workers
        assert wait_until(lambda w=workers: not any(Path(f"/proc/{p}").exists() for p in w), 20)  # type: ignore[misc]
    assert start(0).wait(120) == 0
    assert out.read_text().splitlines() == expected
