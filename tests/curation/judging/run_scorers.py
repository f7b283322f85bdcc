"""Score numbered records in chunks and write the verdicts, as a pipeline would; the kill test's victim.

`python run_scorers.py URL OUT_DIR NUM_RECORDS FAULTS CONCURRENCY`: the same command again goes on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from internvl_lab.atomic import write_atomic
from internvl_lab.config.curation_judge import JudgeConfig
from internvl_lab.curation.judging import open_scorers
from internvl_lab.curation.verdicts import CurationRecord

CHUNK = 16


def main(url: str, folder: str, num_records: str, faults: str, concurrency: str) -> None:
    """Score with both scorers."""
    kinds = faults.split(",")
    texts = [f"[{kinds[i % len(kinds)]}] text {i}, worth {i % 11}" for i in range(int(num_records))]
    records = [
        CurationRecord(f"s:{i}", "s", {}, (("human", "?"), ("gpt", text)), (), False) for i, text in enumerate(texts)
    ]
    judge = JudgeConfig("openai", "m", url, first_delay_s=0.0, timeout_s=1.0, concurrency=int(concurrency))
    lines = []
    with open_scorers(judge, Path(folder)) as scorers:
        for start in range(0, len(records), CHUNK):
            chunk = records[start : start + CHUNK]
            for parts in zip(*(scorer.score(chunk) for scorer in scorers), strict=True):
                lines.append(json.dumps([asdict(verdict) for part in parts for verdict in part]))
    write_atomic(Path(folder) / "verdicts.jsonl", "\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
