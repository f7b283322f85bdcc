"""The journal of consumed samples."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

from internvl_lab.training import Journal


def test_a_line_per_step_with_all_keys_in_order(tiny: ModuleType, run_dir: Path) -> None:
    tiny.fit(run_dir, tiny.tiny_stage(3), tiny.TinyData(3, 2))
    lines = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    expected = [tiny.tiny_batch(2 * s).sample_keys + tiny.tiny_batch(2 * s + 1).sample_keys for s in range(3)]
    assert lines == [{"stage": "stage2", "step": s + 1, "keys": keys} for s, keys in enumerate(expected)]


def test_cut_back_keeps_earlier_stages(run_dir: Path) -> None:
    journal = Journal(run_dir)
    entries = [("stage1", 1), ("stage1", 2), ("stage2", 1), ("stage2", 2), ("stage2", 3)]
    text = "".join(json.dumps({"stage": s, "step": n, "keys": ["ü"]}) + "\n" for s, n in entries)
    journal.path.write_text(text + '{"stage": "stage2", "st', encoding="utf-8")
    journal.cut_back("stage2", 1)
    kept = [json.loads(line) for line in journal.path.read_text(encoding="utf-8").splitlines()]
    assert [(entry["stage"], entry["step"]) for entry in kept] == entries[:3]


def test_every_rank_has_its_own_file(tiny: ModuleType, run_dir: Path) -> None:
    journal = Journal(run_dir)
    trainer = SimpleNamespace(world_size=2, global_rank=1, global_step=0)
    module = tiny.tiny_module(tiny.tiny_stage(1))
    journal.on_train_start(trainer, module)
    journal.teardown(trainer, module, "fit")
    assert (run_dir / "journal.rank1.jsonl").is_file()
