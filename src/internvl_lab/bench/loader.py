"""What one loader worker costs: CPU time, memory and bytes of a pack, ours against others' pipelines.

```
for each repeat, for each variant:  fresh process (the trainer) ── fork ──> one DataLoader worker ──> packs
                                    its own CPU time, bytes of a pack       CPU time and peak memory (RUSAGE_CHILDREN)
```

All variants read the same samples, cut the same tiles and pass each through JPEG; a run in which they differ in tiles
or samples is refused. Ours hands out uint8 tiles, which the device normalises (0.3 ms of CPU a tile for the others).
The index that ours reads is made once and not part of it: `index_ms_per_sample`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from internvl_lab.bench.pages import write_pages
from internvl_lab.bench.pipelines import PIPELINES, Work
from internvl_lab.bench.timing import describe_device
from internvl_lab.config import JpegConfig, PackingConfig, SourceConfig, TilingConfig
from internvl_lab.data.batch import Batch
from internvl_lab.data.encoding import SampleEncoder
from internvl_lab.data.index import build_index, load_or_build_index
from internvl_lab.data.jpeg import jpeg_codec
from internvl_lab.data.loader import PackDataset, PackLoader
from internvl_lab.data.locations import find_shards
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Cost, Plan
from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.text import ChatTemplate, load_tokenizer

FIGURES = ("tiles_per_cpu_s", "worker_peak_mb", "bytes_per_pack", "trainer_cpu_s_per_pack", "packs", "samples", "tiles")
PREFETCH = 2
"""Packs that the worker keeps ready, in all variants."""
_OURS = {"ours": "auto", "base": "pillow"}
"""Variant to JPEG backend: as installed, and with the base dependencies."""
_PAGE = 4096
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_CHILD = """
import json, sys
from internvl_lab.bench.loader import LoaderSetting, run_variant
from internvl_lab.config.typed import from_mapping
figures = run_variant(sys.argv[1], from_mapping(LoaderSetting, json.loads(sys.argv[2])))
sys.stdout.write(json.dumps(figures))
"""


@dataclass(frozen=True)
class LoaderSetting:
    """Say what is loaded."""

    shards: str = ""
    """Folder of tars; "" = miniworld pages, made for the measurement."""
    tokenizer: str = "mini"
    """Folder with `tokenizer.json`, or `mini`."""
    samples: int = 160
    """Use the first so many; 0 = all."""
    seed: int = 0
    repeats: int = 3
    tiling: TilingConfig = field(default_factory=TilingConfig)
    packing: PackingConfig = field(default_factory=lambda: PackingConfig(packs_per_step=1, group_window=1))

    def template(self) -> ChatTemplate:
        """Load the tokenizer; the mini one was trained without a system turn."""
        mini = self.tokenizer == "mini"
        return ChatTemplate(load_tokenizer("asset:tokenizer" if mini else self.tokenizer), "" if mini else None)


class FirstSamples(Mixture):
    """Use only the first samples of a source's index."""

    num_rows = 0

    def epoch_samples(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Order the positions (m,) of the first `num_rows` rows."""
        order = super().epoch_samples(seed, epoch)
        return order[self.sample[order] < self.num_rows]


def bench_loader(setting: LoaderSetting) -> dict[str, Any]:
    """Measure a worker of each variant, `repeats` times, in turns.

    Returns:
        A JSON-able report; figures are medians over the repeats.
    Raises:
        ConfigError: fewer than 0 samples.
        InternVLLabError: the variants did not do the same work.
        ShardError: the shards are missing or damaged.
    """
    if setting.samples < 0:
        raise ConfigError("--samples must be at least 0")
    with _shards(setting) as folder:
        setting = replace(setting, shards=str(folder))
        start = time.process_time()
        index = build_index(folder, setting.template())
        index_ms = (time.process_time() - start) / max(1, len(index)) * 1e3
        setting = replace(setting, samples=min(setting.samples or len(index), len(index)))
        names = [*_OURS, *PIPELINES]
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for turn in range(setting.repeats):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                runs[name].append(_in_fresh_process(name, setting))
    results = {name: _summary(readings) for name, readings in runs.items()}
    _check_same_work(results)
    base, peers = results["base"], {name: results[name] for name in PIPELINES}
    return {
        "device": describe_device(),
        **results["ours"],
        "backend": jpeg_codec("auto").name,
        "base": base,
        "peers": peers,
        "ratios": {
            name: {f: _ratio(figures, peers["official"], f) for f in FIGURES[:4]}
            for name, figures in (("ours", results["ours"]), ("base", base))
        },
        "index_ms_per_sample": index_ms,
        "setting": {"repeats": setting.repeats, "seed": setting.seed, "tokenizer": setting.tokenizer}
        | {"max_tokens": setting.packing.max_tokens, "max_tiles": setting.packing.max_tiles},
    }


def loader_table(report: Mapping[str, Any]) -> Table:
    """Lay out the variants of a report, and ours over the authors' in each figure."""
    ratios = {
        name: ", ".join(f"{figure} {ratio:.2f}" for figure, ratio in figures.items())
        for name, figures in report["ratios"].items()
    }
    caption = f"ours ({report['backend']}) / official: {ratios['ours']}\nbase / official: {ratios['base']}"
    table = Table("variant", title=report["device"], caption=caption)
    for figure in FIGURES:
        table.add_column(figure.replace("_", " "), justify="right")
    for name, figures in {"ours": report, "base": report["base"], **report["peers"]}.items():
        table.add_row(name, *(f"{figures[figure]:.4g}" for figure in FIGURES))
    return table


def run_variant(name: str, setting: LoaderSetting) -> dict[str, float]:
    """Run one variant in this process, which must not have had children before, and read its figures."""
    torch.set_num_threads(1)
    loader = _our_loader(setting, _OURS[name]) if name in _OURS else _peer_loader(name, setting)
    started = time.process_time()
    packs = samples = tiles = size = 0
    for pack in loader:
        tensors, num_samples, num_tiles = _contents(pack)
        for tensor in tensors:
            tensor.view(-1).view(torch.uint8)[::_PAGE].sum()  # every page has to arrive
        packs, samples, tiles = packs + 1, samples + num_samples, tiles + num_tiles
        size += sum(tensor.nbytes for tensor in tensors)
    trainer = time.process_time() - started
    worker = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = worker.ru_utime + worker.ru_stime
    return {
        "tiles_per_cpu_s": tiles / cpu_s,
        "worker_peak_mb": worker.ru_maxrss / 1024,
        "bytes_per_pack": size / max(1, packs),
        "trainer_cpu_s_per_pack": trainer / max(1, packs),
        "packs": packs,
        "samples": samples,
        "tiles": tiles,
    }


def our_dataset(setting: LoaderSetting, backend: str) -> PackDataset:
    """Build the dataset that training would use, over the first samples of the shards."""
    template = setting.template()
    index = load_or_build_index(Path(setting.shards), template)
    mixture = FirstSamples({"shards": (SourceConfig(), index)}, setting.tiling, setting.packing)
    mixture.num_rows = setting.samples or len(index)
    encoder = SampleEncoder(template, setting.tiling, JpegConfig(backend=backend), "square", "sample")
    return PackDataset(Plan(mixture, setting.packing, setting.seed, Cost(1.0, 0.0, 0.0), 1), encoder, setting.seed)


def _our_loader(setting: LoaderSetting, backend: str) -> Iterable[Batch]:
    dataset = our_dataset(setting, backend)
    steps = dataset.plan.packs_in_epoch(0)
    return PackLoader(dataset, num_steps=steps, packs_per_step=1, num_workers=1, prefetch_factor=PREFETCH)


def _peer_loader(name: str, setting: LoaderSetting) -> Iterable[dict[str, Tensor]]:
    template = setting.template()
    shards = tuple(str(path) for path in find_shards(Path(setting.shards)))
    work = Work(shards, setting.samples, template.tokenizer, template.system_message, setting.tiling)
    dataset = PIPELINES[name](replace(work, packing=setting.packing))
    return DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=PREFETCH, worker_init_fn=_one_thread)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _contents(pack: Batch | dict[str, Tensor]) -> tuple[list[Tensor], int, int]:
    """Return (tensors, samples, tiles) of a pack; blank tiles of text-only samples do not count."""
    if isinstance(pack, Batch):
        tensors = [value for value in vars(pack).values() if isinstance(value, Tensor)]
        return tensors, len(pack.sample_keys), pack.num_tiles
    return list(pack.values()), int(pack["data_index"][-1]) + 1, int(pack["image_flags"].sum())


def _in_fresh_process(name: str, setting: LoaderSetting) -> dict[str, float]:
    """Run a variant in an interpreter of its own, with one thread in every library.

    Raises:
        InternVLLabError: it failed; with the last line that it wrote.
    """
    settings = json.dumps(asdict(setting))
    command = [sys.executable, "-c", _CHILD, name, settings]
    result = subprocess.run(command, env=os.environ | _ONE_THREAD, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1:] or [f"exit code {result.returncode}"]
        raise InternVLLabError(f"variant {name} failed: {reason[0]}")
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


@contextmanager
def _shards(setting: LoaderSetting) -> Iterator[Path]:
    """Give the folder of shards, made and removed where none is named."""
    if setting.shards:
        yield Path(setting.shards)
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-loader-"))
    try:
        write_pages(folder, setting.samples or LoaderSetting.samples, setting.seed)
        yield folder
    finally:
        shutil.rmtree(folder)


def _summary(readings: list[dict[str, float]]) -> dict[str, Any]:
    """Return the median of each figure, and the range of the one that varies most."""
    speeds = [reading["tiles_per_cpu_s"] for reading in readings]
    medians = {figure: statistics.median(reading[figure] for reading in readings) for figure in FIGURES}
    return {**medians, "tiles_per_cpu_s_range": [min(speeds), max(speeds)]}


def _check_same_work(results: Mapping[str, Mapping[str, Any]]) -> None:
    done = {name: (figures["samples"], figures["tiles"]) for name, figures in results.items()}
    if len(set(done.values())) > 1:
        raise InternVLLabError(f"the variants differ in (samples, tiles), nothing to compare: {done}")


def _ratio(ours: Mapping[str, Any], peer: Mapping[str, Any], figure: str) -> float:
    return float(ours[figure] / peer[figure])
