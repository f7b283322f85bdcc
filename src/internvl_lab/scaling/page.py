"""Write a comparison as one HTML file: no script, no other file, nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
td,th{padding:.2rem .7rem;border-bottom:1px solid #e2e5e9;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}img{max-width:100%;height:auto}.note{color:#5e5e5e}
"""


def render_page(title: str, parts: Sequence[str]) -> str:
    """Put parts made by the functions below into one page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def heading(text: str) -> str:
    """Write a heading."""
    return f"<h2>{escape(text)}</h2>"


def note(text: str) -> str:
    """Write a paragraph."""
    return f'<p class="note">{escape(text)}</p>'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; all cells are text."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def pictures(images: Mapping[str, bytes]) -> list[str]:
    """Embed pictures, name to PNG bytes, each below its name."""
    return [
        f'{heading(name)}<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        for name, data in images.items()
    ]
