"""One test-time run, apart from the command (tests/cli/test_test_time.py runs it end to end)."""

from __future__ import annotations

from pathlib import Path

import pytest

from internvl_lab.config import TestTimeConfig
from internvl_lab.errors import MissingWeightsError
from internvl_lab.evaluation.test_time_session import checkpoint_folder, scale_test_time


def test_a_checkpoint_is_a_run_a_folder_or_an_asset(tmp_path: Path) -> None:
    assert checkpoint_folder("asset:quickstart").name == "quickstart"
    with pytest.raises(MissingWeightsError, match=r"no checkpoint in /nowhere: name a run, a weights folder or asset:"):
        checkpoint_folder("/nowhere")


@pytest.mark.slow
def test_a_run_ends_with_results_and_files(tmp_path: Path) -> None:
    config = TestTimeConfig(
        checkpoint=("asset:quickstart",),
        out=str(tmp_path / "out"),
        data_dir=str(tmp_path / "data"),
        tasks=("counting",),
        samples_per_task=2,
        samples=2,
        select="majority",
        max_new_tokens=4,
        bootstrap_draws=10,
    )
    results, paths = scale_test_time(config)
    assert {row.name for row in results[0].rows} >= {"direct", "sample"}
    assert all(path.is_file() for path in paths.values())
    assert (tmp_path / "out" / "curves.json") in paths.values()
