"""The page: everything in it, nothing from elsewhere."""

from __future__ import annotations

import base64
import re

from internvl_lab.scaling.page import heading, html_table, note, pictures, render_page


def test_the_page_is_self_contained_and_escaped() -> None:
    evil = "<script src='https://example.org/x.js'></script>"
    page = render_page(evil, [heading(evil), note(evil), html_table([evil], [[evil]]), *pictures({evil: b"\x89PNG"})])
    assert "<script" not in page and page.count("&lt;script") == 8
    assert base64.b64encode(b"\x89PNG").decode() in page
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []


def test_tables_have_a_head_and_rows() -> None:
    table = html_table(["row", "score"], [["a", "1"], ["b", "2"]])
    assert table.count("<th>") == 2 and table.count("<td>") == 4 and table.count("<tr>") == 3
