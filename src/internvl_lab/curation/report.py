"""Report a run: `summary.json` for programs, `report.md` for a terminal, `report.html` for eyes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.report_html import limit_of, most_frequent, render_html, share
from internvl_lab.curation.tally import Tally


def write_report(out: Path, tally: Tally, rules: RulesConfig) -> dict[str, Any]:
    """Write the three files into `out` and return the summary."""
    summary = tally.summary(rules)
    write_atomic(out / "report.md", render_markdown(summary))
    write_atomic(out / "report.html", render_html(tally, summary))
    write_atomic(out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return summary


def render_markdown(summary: Mapping[str, Any]) -> str:
    """Write the counts as two Markdown tables: rules, and sources."""
    lines = [
        "# Curation",
        "",
        f"{summary['kept']:,} of {summary['records']:,} records kept, {summary['rejected']:,} rejected "
        f"({share(summary['rejected'], summary['records'])}).",
        "",
        *(f"Decided by people: {count} {choice}." for choice, count in summary["reviewed"].items()),
        "",
        *_table(
            ("rule", "unit", "threshold", "fired", "alone"),
            (
                (name, rule["unit"], limit_of(rule), f"{rule['fired']:,}", f"{rule['alone']:,}")
                for name, rule in summary["rules"].items()
            ),
        ),
        "",
        *_table(
            ("source", "records", "kept", "rejected", "share", "most frequent rules"),
            (
                (
                    name.replace("|", "\\|"),
                    f"{source['records']:,}",
                    f"{source['kept']:,}",
                    f"{source['records'] - source['kept']:,}",
                    share(source["records"] - source["kept"], source["records"]),
                    most_frequent(source["rules"]),
                )
                for name, source in summary["sources"].items()
            ),
        ),
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
