"""Draw the report as one HTML file: no script, no other file, nothing from the network.

For each rule: the histogram of its scores with the threshold, and its worst examples with thumbnails. All texts of the
data are escaped; they come from the web.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

from internvl_lab.curation.items import Item, loose_turns, read_images
from internvl_lab.curation.rules import UNITS
from internvl_lab.curation.tally import COUNT_BINS, SHARE_BINS, SHARES, Example, RuleTally, Tally, bin_of, lower_edge
from internvl_lab.data.transforms import decode_image
from internvl_lab.errors import SampleError

THUMBNAIL = 160
"""Longest edge of a thumbnail in pixels."""
MAX_THUMBNAILS = 4
"""Pictures shown of one record."""
MAX_CHARACTERS = 600
"""Characters shown of a turn: its beginning and its end."""
WIDTH, HEIGHT = 600, 120
"""Size of a histogram in pixels."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;border-bottom:1px solid #e2e5e9;text-align:right}
td:first-child,th:first-child{text-align:left}h2{margin-top:2.5rem;border-top:2px solid #e2e5e9;padding-top:1rem}
.example{border:1px solid #e2e5e9;border-radius:6px;padding:.6rem .9rem;margin:.8rem 0}.note{color:#6e6e6e}
.turn{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0;font-size:13px}.role{color:#6e6e6e}
img{max-height:160px;margin:.2rem .4rem .2rem 0;border:1px solid #e2e5e9}.kept{color:#107c34}.rejected{color:#c01c1c}
rect.pass{fill:#8fa8c8}rect.fail{fill:#c01c1c}text{font-size:11px;fill:#6e6e6e}line{stroke:#1c1c1c;stroke-dasharray:4 3}
"""


def render_html(tally: Tally, summary: Mapping[str, Any]) -> str:
    """Write the whole page."""
    sections = [
        _rule_section(name, rule, summary["rules"].get(name, {}))
        for name in summary["rules"]
        if (rule := tally.rules.get(name)) is not None
    ]
    kept, records = summary["kept"], summary["records"]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Curation</title>"
        f"<style>{_STYLE}</style><h1>Curation</h1><p>{kept:,} of {records:,} records kept, "
        f"{records - kept:,} rejected.</p>{_sources(summary)}{_rules(summary)}{''.join(sections)}</html>\n"
    )


def histogram(name: str, rule: RuleTally, threshold: float | None) -> str:
    """Draw the scores above 0 as an SVG; bars above the threshold are red."""
    bins = SHARE_BINS if UNITS.get(name) in SHARES else COUNT_BINS
    highest = max(rule.histogram.values(), default=1)
    width = WIDTH / bins
    parts = []
    for number in range(bins):
        count = rule.histogram[number]
        if count:
            height = max(2.0, HEIGHT * count / highest)
            kind = "fail" if threshold is not None and lower_edge(name, number) >= threshold else "pass"
            box = f'x="{number * width:.1f}" y="{HEIGHT - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}"'
            title = f"from {lower_edge(name, number):.3g}: {count:,} records"
            parts.append(f'<rect class="{kind}" {box}><title>{title}</title></rect>')
    if threshold is not None:
        x = (bin_of(name, threshold) + (threshold > 0)) * width
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}"/>')
    for number in range(0, bins, 4):
        parts.append(f'<text x="{number * width:.1f}" y="{HEIGHT + 14}">{round(lower_edge(name, number), 2):,g}</text>')
    return f'<svg width="{WIDTH}" height="{HEIGHT + 18}" role="img" overflow="visible">{"".join(parts)}</svg>'


def share(part: int, whole: int) -> str:
    """Write a share in percent."""
    return f"{part / whole:.2%}" if whole else "0.00%"


def most_frequent(rules: Mapping[str, int], number: int = 3) -> str:
    """Name the rules that fired most, with their counts."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(rules.items(), key=lambda r: (-r[1], r[0]))[:number])


def limit_of(rule: Mapping[str, Any]) -> str:
    """Write a rule's threshold, `off`, or nothing where a scorer has its own."""
    if not rule["enabled"]:
        return "off"
    return "" if rule["threshold"] is None else f"{rule['threshold']:g}"


def thumbnails(item: Item) -> str:
    """Draw a record's first pictures, as data URLs; what cannot be read is named."""
    parts = []
    for data in read_images(item)[:MAX_THUMBNAILS]:
        try:
            if not isinstance(data, bytes):
                raise data
            image = decode_image(data, item.key)
        except SampleError as error:
            parts.append(f'<p class="note">no picture: {escape(error.reason)}</p>')
            continue
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        parts.append(f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">')
    return "".join(parts)


def _sources(summary: Mapping[str, Any]) -> str:
    """Draw the table of sources."""
    rows = [
        f"<tr><td>{escape(name)}<td>{source['records']:,}<td>{source['kept']:,}"
        f"<td>{1 - source['kept'] / max(1, source['records']):.2%}<td>{most_frequent(source['rules'])}"
        for name, source in summary["sources"].items()
    ]
    return f"<table><tr><th>source<th>records<th>kept<th>rejected<th>most frequent rules{''.join(rows)}</table>"


def _rules(summary: Mapping[str, Any]) -> str:
    """Draw the table of rules, each with a link to its section where it has one."""
    rows = [
        f'<tr><td><a href="#{escape(name)}">{escape(name)}</a><td>{limit_of(rule)}<td>{rule["unit"]}'
        f"<td>{rule['fired']:,}<td>{rule['alone']:,}"
        for name, rule in summary["rules"].items()
    ]
    return f"<table><tr><th>rule<th>threshold<th>unit<th>fired<th>alone{''.join(rows)}</table>"


def _rule_section(name: str, rule: RuleTally, settings: Mapping[str, Any]) -> str:
    """Draw one rule."""
    threshold = settings.get("threshold")
    limit = "" if threshold is None else f", threshold {threshold:g} {settings['unit']}"
    examples = "".join(_example(example) for example in sorted(rule.worst, reverse=True))
    return (
        f'<h2 id="{escape(name)}">{escape(name)}</h2>'
        f"<p>{rule.fired:,} records{limit}; {rule.alone:,} of them by this rule alone.</p>"
        f"{histogram(name, rule, threshold)}{examples}"
    )


def _example(example: Example) -> str:
    """Draw one record."""
    state = '<span class="kept">kept</span>' if example.keep else '<span class="rejected">rejected</span>'
    turns = "".join(
        f'<div class="turn"><span class="role">{escape(role)}:</span> {escape(_shortened(text))}</div>'
        for role, text in loose_turns(example.item)
    )
    turns = turns or f'<div class="turn">{escape(_shortened(example.item.payload.decode("utf-8", "replace")))}</div>'
    return (
        f'<div class="example"><b>{escape(example.item.key)}</b> {state}, score {example.score:g}'
        f'<div class="note">{escape(example.detail)}</div>{thumbnails(example.item)}{turns}</div>'
    )


def _shortened(text: str) -> str:
    """Keep the beginning and the end of a long text."""
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters …] {text[-half:]}"
