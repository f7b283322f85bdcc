from __future__ import annotations

import base64
import io
import json
import re

from PIL import Image

from internvl_lab.curation.pipeline import curate
from internvl_lab.curation.report_html import histogram
from internvl_lab.curation.tally import RuleTally


def page(data, out):
    curate(data, out, progress=False)
    return (out / "report.html").read_text(encoding="utf-8")


def test_one_file_with_histograms_examples_and_thumbnails(data, tmp_path):
    html = page(data, tmp_path)
    assert html.count("<svg") >= 6
    assert "mine:2" in html
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert sizes
    assert max(max(size) for size in sizes) <= 160
    assert "missing.jpg" in html
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)


def test_texts_of_the_data_are_escaped(tmp_path):
    evil = "<script>alert(1)</script> and so on " * 20
    turns = [{"from": "human", "value": "<b>a</b>"}, {"from": "gpt", "value": evil}]
    path = tmp_path / "evil<i>.jsonl"
    path.write_text(json.dumps({"conversations": turns}) + "\n")
    html = page(path, tmp_path / "out")
    assert "<script" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;" in html


def test_bars_above_the_threshold_are_marked():
    rule = RuleTally()
    rule.histogram.update({2: 5, 12: 1})
    drawn = histogram("longest_repeat", rule, 0.4)
    assert drawn.count('class="pass"') == drawn.count('class="fail"') == 1
    assert "from 0.1: 5 records" in drawn
    assert 'class="fail"' not in histogram("longest_repeat", rule, None)
