"""Offer the data path to Lightning: one stage's loaders, and the state that makes resuming exact.

The only Lightning importer in `data`. The state is what has been CONSUMED (`commit`), not what has been prefetched.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from internvl_lab.atomic import write_atomic
from internvl_lab.config import RunConfig, SourceConfig, StageConfig
from internvl_lab.config.data import COMMAND, VAL_MIXTURE, check_mixture, is_streamed
from internvl_lab.data.data_state import describe_changes, encoding_settings, hash_parts
from internvl_lab.data.encoding import SampleEncoder
from internvl_lab.data.index import ShardIndex, load_or_build_index
from internvl_lab.data.loader import PackDataset, PackLoader
from internvl_lab.data.locations import locate_streams
from internvl_lab.data.mixture import Mixture, hash16
from internvl_lab.data.plan import Anchor, Cost, Plan
from internvl_lab.data.quarantine import QuarantineLog, read_entries, to_lines, too_many
from internvl_lab.data.remote import ShardCache
from internvl_lab.data.stream import StreamSource
from internvl_lab.data.stream_loader import StreamDataset, StreamLoader
from internvl_lab.errors import ConfigError, ResumeError, ShardError
from internvl_lab.text.template import ChatTemplate

logger = logging.getLogger(__name__)

STATE_VERSION = 1
STREAMED = "streamed"
"""Stands in the state for the fingerprint of the content, which nobody knows of a stream."""
_RANK_FILE = re.compile(r"quarantine\.rank(\d+)\.jsonl")


class MultimodalDataModule(L.LightningDataModule):
    """Build mixture, plan and loaders of one stage.

    Args:
        cfg: the whole run's configuration.
        stage: names the mixture and the number of steps.
        template: encodes conversations; its fingerprint keys the index.
        cost: cost model of a pack, from `models.flops`.
        run_dir: gets `quarantine.jsonl` (failures while training) and `skipped.jsonl` (samples never used).
    Raises:
        ConfigError: this stage or another of the run names a mixture that the configuration lacks, or one with a source
            that has no shards: said before the first step, not when its turn comes.
    """

    def __init__(self, cfg: RunConfig, stage: StageConfig, template: ChatTemplate, cost: Cost, run_dir: Path) -> None:
        super().__init__()
        for each in (stage, *cfg.stages.values()):
            check_mixture(each.name, each.mixture, cfg.data.mixtures)
            _check_shards(each, cfg.data.mixtures[each.mixture])
        self.cfg, self.stage, self.template, self.cost, self.run_dir = cfg, stage, template, cost, Path(run_dir)
        self.packs_per_step = cfg.packs_per_step(stage)
        self.is_streamed = is_streamed(cfg.data.mixtures[stage.mixture])
        self._plan: Plan | None = None
        self._next_step = 0
        self._last_epoch = -1
        """Of a stream: the latest epoch that was begun before this process resumed it."""
        self._stream: StreamLoader | None = None

    @property
    def plan(self) -> Plan:
        """Return the stage's plan, building indexes where they are missing.

        Raises:
            ConfigError: the mixture is streamed.
        """
        if self.is_streamed:
            raise ConfigError(f"data.mixtures.{self.stage.mixture} is streamed: it has neither index nor plan")
        if self._plan is None:
            self._plan = Plan(
                self._mixture(self.stage.mixture), self.cfg.packing, self.plan_seed, self.cost, self.packs_per_step
            )
        return self._plan

    @property
    def plan_seed(self) -> int:
        """Derive the seed of plan and augmentation, so that two stages over one mixture do not repeat an order."""
        sequence = np.random.SeedSequence([self.cfg.seed, zlib.crc32(self.stage.name.encode())])
        return int(sequence.generate_state(1)[0])

    def prepare_data(self) -> None:
        """Build the indexes in one process of each machine, before the others read them."""
        for name in {self.stage.mixture, VAL_MIXTURE} & set(self.cfg.data.mixtures):
            for source in self.cfg.data.mixtures[name].values():
                if not source.is_streamed:
                    self._index(source)

    def setup(self, stage: str | None = None) -> None:
        """Build the plan and write down the samples that are never used; a stream has neither."""
        if not self.is_streamed and self._rank == 0:
            self._write_skipped(self.plan.mixture)

    def train_dataloader(self) -> PackLoader | StreamLoader:
        """Return this rank's packs of the stage, from the committed position on."""
        self.setup()
        self._cut_back_quarantine()
        settings: dict[str, Any] = {
            "num_steps": self.stage.max_steps,
            "packs_per_step": self.packs_per_step,
            "num_workers": self.cfg.data.num_workers,
            "quarantine": self._quarantine(self._rank),
            **self._loader_settings(),
        }
        loader: PackLoader | StreamLoader
        if self.is_streamed:
            loader = self._stream = StreamLoader(self._stream_dataset(), **settings)
        else:
            loader = PackLoader(PackDataset(self.plan, self._encoder(), self.plan_seed), **settings)
        loader.set_position(self._next_step)
        return loader

    def val_dataloader(self) -> PackLoader | list[Any]:
        """Return one round of mixture `val`, without augmentation; nothing where there is no such mixture.

        Packs that do not fill a step of all ranks are left out. `trainer.limit_val_batches` shortens it further.
        """
        if VAL_MIXTURE not in self.cfg.data.mixtures:
            return []
        plan = Plan(self._mixture(VAL_MIXTURE), self.cfg.packing, 0, self.cost, self._world_size)
        return PackLoader(
            PackDataset(plan, self._encoder(), seed=0, augment=False),
            num_steps=max(1, plan.packs_in_epoch(0) // self._world_size),
            packs_per_step=self._world_size,
            num_workers=min(1, self.cfg.data.num_workers),
            **self._loader_settings(),
        )

    def commit(self, step: int) -> None:
        """Note that `step` optimizer steps have been done since the stage began: the next one reads step `step`."""
        self._next_step = step

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs (JSON-able, under 1 KB): fingerprints, seed and the next pack.

        `anchor` only saves time: it says where planning may begin. `parts` only names what has changed. A stream has
        `stream` instead of an anchor: the latest epoch of rank 0, and that what comes next is not exact.
        """
        next_pack = self._next_step * self.packs_per_step
        if self.is_streamed:
            epoch = self._last_epoch if self._stream is None else self._stream.epoch
            place: dict[str, Any] = {"stream": {"epoch": epoch, "exact": False}}
        else:
            place = {"anchor": list(self.plan.anchor(next_pack))}
        return {
            "version": STATE_VERSION,
            **self._fingerprint(),
            "seed": self.cfg.seed,
            "next_pack": next_pack,
            **place,
            "parts": self._parts(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue behind the committed position of another process.

        Raises:
            ResumeError: the state belongs to other data, settings or another seed, and `data.allow_changed_data` is not
                set; says what changed.
        """
        if state_dict.get("version") != STATE_VERSION:
            raise ResumeError(
                f"the data state has version {state_dict.get('version')}, this program writes {STATE_VERSION}"
            )
        self._next_step = int(state_dict["next_pack"]) // self.packs_per_step
        changed = self._changes(state_dict)
        if self.is_streamed and "stream" in state_dict:
            self._last_epoch = int(state_dict["stream"]["epoch"])
            logger.warning(
                "stage %s: a stream does not resume exactly: step %d goes on with the beginning of epoch %d, and what "
                "epoch %d had not reached is passed over",
                self.stage.name, self._next_step, self._last_epoch + 1, self._last_epoch,
            )  # fmt: skip
        if not changed:
            if "anchor" in state_dict:
                self.plan.seek(Anchor(*(int(value) for value in state_dict["anchor"])))
            return
        if not self.cfg.data.allow_changed_data:
            raise ResumeError(
                f"cannot resume the data of stage {self.stage.name}: {changed} changed since the checkpoint was "
                "written; undo that, start anew with fresh=true, or go on with data.allow_changed_data=true"
            )
        logger.warning(  # without the anchor, which names a place in the other plan
            "stage %s: %s changed since the checkpoint was written; data.allow_changed_data=true goes on at step %d of "
            "the new order, in which samples may come again or not at all",
            self.stage.name, changed, self._next_step,
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Summarise the data for logs: samples, tokens and tiles by source, what is skipped, how full packs are."""
        mixture = self.plan.mixture
        sources = mixture.describe()
        totals = {name: sum(source[name] for source in sources.values()) for name in ("samples", "tokens", "tiles")}
        return {**totals, "sources": sources, "skipped": dict(mixture.skipped), "fill": self.plan.fill_stats}

    @property
    def _rank(self) -> int:
        """Return the rank of this process, 0 without a trainer."""
        return 0 if self.trainer is None else int(self.trainer.global_rank)

    @property
    def _world_size(self) -> int:
        """Return the number of ranks, 1 without a trainer."""
        return 1 if self.trainer is None else int(self.trainer.world_size)

    def _loader_settings(self) -> dict[str, Any]:
        """Return what both loaders have in common."""
        return {
            "rank": self._rank,
            "world_size": self._world_size,
            "prefetch_factor": self.cfg.data.prefetch_factor,
            "pin_memory": torch.cuda.is_available(),
        }

    def _encoder(self) -> SampleEncoder:
        """Build the encoder of the stage."""
        data = self.cfg.data
        return SampleEncoder(
            self.template, self.cfg.tiling, data.jpeg, data.loss_averaging, data.weight_unit, data.region_targets
        )

    def _stream_dataset(self) -> StreamDataset:
        """Name the tars of a streamed mixture, and say what to expect of it."""
        cache = ShardCache.from_settings(self.cfg.data)
        sources = [
            StreamSource(name, source, locate_streams(source.shards, cache))
            for name, source in self.cfg.data.mixtures[self.stage.mixture].items()
        ]
        readers = self._world_size * max(1, self.cfg.data.num_workers)
        if self._rank == 0:
            logger.info(
                "stage %s: %s is streamed, %d tars by %d readers (ranks x workers); order follows from seed and "
                "readers, and a resumed run begins with the next epoch",
                self.stage.name, self.stage.mixture, sum(len(source.tars) for source in sources), readers,
            )  # fmt: skip
        return StreamDataset(
            sources,
            self._encoder(),
            self.cfg.packing,
            self.cost,
            self.plan_seed,
            long_samples=self.cfg.data.long_samples,
            rank=self._rank,
            world_size=self._world_size,
            first_epoch=self._last_epoch + 1,
        )

    def _mixture(self, name: str) -> Mixture:
        """Load the indexes of a mixture; stop if too many of its samples are faulty."""
        sources = {source: (config, self._index(config)) for source, config in self.cfg.data.mixtures[name].items()}
        for source, (_, index) in sources.items():
            if too_many(len(index.problems), len(index) + len(index.problems), self.cfg.data.max_bad_share):
                shard, key, reason, detail = index.problems[0]
                raise ShardError(
                    f"source {source}: {len(index.problems)} of {len(index) + len(index.problems)} samples are faulty "
                    f"(data.max_bad_share={self.cfg.data.max_bad_share}); the first is {key} in {shard}: "
                    f"{reason} ({detail})"
                )
        return Mixture(sources, self.cfg.tiling, self.cfg.packing, self.cfg.data.long_samples)

    def _index(self, source: SourceConfig) -> ShardIndex:
        """Load or build the index of one source."""
        cache = ShardCache.from_settings(self.cfg.data)
        return load_or_build_index(source.shards, self.template, self.cfg.data.num_workers, cache)

    def _quarantine(self, rank: int) -> QuarantineLog:
        """Open a rank's log: one file a rank, because ranks cut theirs back at different times."""
        name = "quarantine.jsonl" if rank == 0 else f"quarantine.rank{rank}.jsonl"
        data = self.cfg.data
        return QuarantineLog(self.run_dir / name, self.stage.name, data.max_bad_share, data.max_bad_in_row)

    def _cut_back_quarantine(self) -> None:
        """Forget what is read again; rank 0 also in the files of ranks that only an earlier start had."""
        ranks = {self._rank}
        if self._rank == 0:
            found = (_RANK_FILE.fullmatch(path.name) for path in self.run_dir.glob("quarantine.rank*.jsonl"))
            ranks |= {int(match[1]) for match in found if match and int(match[1]) >= self._world_size}
        for rank in ranks:
            self._quarantine(rank).cut_back(self._next_step, self._later_stages)

    @property
    def _later_stages(self) -> list[str]:
        """Name the run's stages behind this one."""
        names = [stage.name for stage in self.cfg.stages.values()]
        return names[names.index(self.stage.name) + 1 :] if self.stage.name in names else []

    def _write_skipped(self, mixture: Mixture) -> None:
        """Name every sample that the stage never uses, one JSON line each, beside the other stages' lines."""
        columns = ("stage", "source", "shard", "key", "reason", "detail")
        path = self.run_dir / "skipped.jsonl"
        others = [entry for entry in read_entries(path) if entry["stage"] != self.stage.name]
        own = [dict(zip(columns, (self.stage.name, *row), strict=True)) for row in mixture.skipped_samples]
        if others or own:
            write_atomic(path, to_lines(others + own))
        else:
            path.unlink(missing_ok=True)

    def _fingerprint(self) -> dict[str, str]:
        """Hash content and settings: the plan's fingerprint, its `config` extended by what the encoder depends on."""
        encoding = encoding_settings(self.cfg, self.stage, self.template)
        if self.is_streamed:
            return {"index": STREAMED, "config": hash16([self._parts(), encoding])}
        plan = self.plan.fingerprint
        return {"index": plan["index"], "config": hash16([plan["config"], encoding])}

    def _parts(self) -> dict[str, str]:
        """Hash each thing that the fingerprint covers."""
        contents = [] if self.is_streamed else [index.fingerprint for index in self.plan.mixture.indexes]
        return hash_parts(self.cfg, self.stage, self.template, self.cost, contents)

    def _changes(self, state: dict[str, Any]) -> str:
        """Say what differs from a saved state; "" if nothing does."""
        expected = {**self._fingerprint(), "seed": self.cfg.seed}
        return describe_changes(state, expected, self._parts(), tuple(self.cfg.data.mixtures[self.stage.mixture]))


def _check_shards(stage: StageConfig, sources: Mapping[str, SourceConfig]) -> None:
    """Refuse a stage whose mixture has a source without shards."""
    absent = [name for name, source in sources.items() if not _may_hold_shards(source.shards)]
    if absent:
        key = f"data.mixtures.{stage.mixture}.{absent[0]}"
        others = f"; the same for {', '.join(absent[1:])}" if absent[1:] else ""
        raise ConfigError(
            f"stage {stage.name}: {len(absent)} of {len(sources)} sources have no shards: set {key}.shards=DIR "
            f"(now {sources[absent[0]].shards!r}, which is no folder) or drop the source with ~{key}{others}"
        )


def _may_hold_shards(shards: str) -> bool:
    """Tell whether a source names shards: what is not a folder is looked at later, "" would be this folder."""
    named = "://" in shards or shards.startswith(COMMAND) or shards.endswith(".tar")
    return named or bool(shards and Path(shards).is_dir())
