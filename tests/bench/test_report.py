from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from internvl_lab.bench.report import Report, check_same_loss, ratio_line, summary_table, write_json
from internvl_lab.errors import InternVLLabError

REPORT = Report(
    device="cpu",
    ours={"speed": {"median": 1200.0, "min": 1140.0, "max": 1260.0}, "loss": 4.5, "extra_peak_mib": None},
    peers={"padded": {"speed": {"median": 300.0, "min": 300.0, "max": 300.0}, "loss": 4.5, "extra_peak_mib": 0.25}},
    ratios={"padded": 4.0},
    setting={"samples": 48},
)


def test_json_holds_the_agreed_keys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.json"
    write_json(REPORT, path)
    content = json.loads(path.read_text())
    assert list(content) == ["device", "ours", "peers", "ratios", "setting", "clock"]
    assert content["peers"]["padded"]["speed"]["median"] == 300
    assert content["ratios"] == {"padded": 4.0}
    assert content["ours"]["extra_peak_mib"] is None


def test_table_and_line_show_every_figure() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(summary_table(REPORT))
    text = console.export_text()
    for expected in ("ours", "padded", "1200 ±5%", "300 ±0%", "4.5", "0.25", "-", "extra peak mib", "samples 48"):
        assert expected in text
    assert "process CPU time" in text
    assert ratio_line(REPORT) == "ours / peer: padded 4.00"


def test_a_peer_that_failed_keeps_its_column() -> None:
    failed = replace(REPORT, peers=REPORT.peers | {"hf_packed": {"status": "out of memory"}})
    failed.ours["status"] = "ok"
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(summary_table(failed))
    assert "out of memory" in console.export_text()


def test_only_equal_losses_are_compared() -> None:
    check_same_loss({"ours": 1.0, "padded": 1.00009}, 1e-4)
    with pytest.raises(InternVLLabError, match=r"padded 1\.000200"):
        check_same_loss({"ours": 1.0, "padded": 1.0002}, 1e-4)


@pytest.mark.parametrize("losses", [(1.0, float("nan")), (float("nan"), 1.0), (1.0, 1.0, float("nan"))])
def test_a_loss_that_is_no_number_is_refused(losses: tuple[float, ...]) -> None:
    with pytest.raises(InternVLLabError):
        check_same_loss({str(number): loss for number, loss in enumerate(losses)}, 1e-4)
