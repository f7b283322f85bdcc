from __future__ import annotations

import json

from internvl_lab.curation.pipeline import curate


def test_markdown_tells_counts_and_thresholds(data, tmp_path):
    summary = curate(data, tmp_path, progress=False)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "2 of 9 records kept, 7 rejected (77.78%)." in text
    assert "| zero_run | zeros | 40 | 1 | 1 |" in text
    assert "| mine | 9 | 2 | 7 | 77.78% |" in text
    assert json.loads((tmp_path / "summary.json").read_bytes()) == summary
    assert (summary["records"], summary["kept"]) == (9, 2)
