"""Write answers as an evaluation server, or a scorer that runs code, takes them; nothing is sent or executed here.

    predictions/<task>.jsonl ─ Benchmark.submission ─> submissions/<task>.json | .jsonl | .xlsx

Every question is in the file, one that could not be asked with an empty answer: servers refuse files with gaps.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from internvl_lab.atomic import write_atomic
from internvl_lab.evaluation.answer_log import Line
from internvl_lab.evaluation.metrics.choices import find_letter_as_run
from internvl_lab.evaluation.metrics.pairs import options_of

_CODE_BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_XML_HOSTILE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def write_submission(folder: Path, name: str, task: str, lines: Sequence[Line]) -> Path:
    """Write the answers to a task.

    Args:
        folder: `submissions/`.
        name: key of `SUBMISSIONS`.
        task: name of the file.
        lines: all answers.
    Returns:
        The file.
    """
    suffix, render = SUBMISSIONS[name]
    return write_atomic(folder / f"{task}{suffix}", render(lines))


def extract_code(answer: str) -> str:
    """Return the first fenced block of an answer, else the answer. Source: OpenCompass, `humaneval_postprocess_v2`."""
    blocks = _CODE_BLOCK.findall(answer)
    return str(blocks[0] if blocks else answer).lstrip("\n")


def _vqav2(lines: Sequence[Line]) -> str:
    """Render EvalAI's format of VQA v2: [{"question_id", "answer"}]."""
    return _json([{"question_id": _number(line["id"]), "answer": line["prediction"]} for line in lines])


def _docvqa(lines: Sequence[Line]) -> str:
    """Render the format of the Robust Reading Competition (DocVQA, InfoVQA): [{"questionId", "answer"}]."""
    return _json([{"questionId": _number(line["id"]), "answer": line["prediction"]} for line in lines])


def _vizwiz(lines: Sequence[Line]) -> str:
    """Render EvalAI's format of VizWiz: [{"image", "answer"}], the picture by its file name."""
    return _json([{"image": line["id"].rsplit("/", 1)[-1], "answer": line["prediction"]} for line in lines])


def _mmmu(lines: Sequence[Line]) -> str:
    """Render EvalAI's format of MMMU: {id: letter or open answer}. Source: authors' `evaluate_mmmu.py`."""
    return _json({line["id"]: _letter(line) for line in lines})


def _mmbench(lines: Sequence[Line]) -> bytes:
    """Render OpenCompass's format of MMBench: a sheet with question, options and `prediction`.

    Source: authors' `evaluate_mmbench.py`.
    """
    letters = sorted({letter for line in lines for letter in options_of(line["reference"])})
    rows = [["index", "question", *letters, "prediction"]]
    for line in lines:
        reference = line["reference"]
        options = options_of(reference)
        shown = [options.get(letter, "") for letter in letters]
        rows.append([_number(reference["index"]), reference.get("question", ""), *shown, _letter(line)])
    return write_sheet(rows)


def _humaneval(lines: Sequence[Line]) -> str:
    """Render the samples file of openai/human-eval: {"task_id", "completion"} a line."""
    return _jsonl({"task_id": line["id"], "completion": extract_code(line["prediction"])} for line in lines)


def _mbpp(lines: Sequence[Line]) -> str:
    """Render the samples file that EvalPlus reads: {"task_id": "Mbpp/N", "solution"} a line."""
    return _jsonl({"task_id": f"Mbpp/{line['id']}", "solution": extract_code(line["prediction"])} for line in lines)


SUBMISSIONS: dict[str, tuple[str, Callable[[Sequence[Line]], str | bytes]]] = {
    "docvqa": (".json", _docvqa),
    "humaneval": (".jsonl", _humaneval),
    "mbpp": (".jsonl", _mbpp),
    "mmbench": (".xlsx", _mmbench),
    "mmmu": (".json", _mmmu),
    "vizwiz": (".json", _vizwiz),
    "vqav2": (".json", _vqav2),
}
"""Format to the file's ending and what renders it."""


def _letter(line: Line) -> str:
    """Return the option that an answer names, as the authors read it; an open answer as it is."""
    options = options_of(line["reference"]) if isinstance(line["reference"], Mapping) else {}
    return find_letter_as_run(line["prediction"], options) if options else str(line["prediction"])


def _number(text: Any) -> Any:
    """Return a number where a question's name is one, as the servers want it."""
    return int(text) if str(text).isdecimal() else text


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _jsonl(rows: Iterator[dict[str, Any]]) -> str:
    return "".join(map(_json, rows))


_PARTS = {
    "[Content_Types].xml": (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.'
        'sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/'
        'vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>'
    ),
    "_rels/.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>'
    ),
    "xl/workbook.xml": (
        '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.'
        'openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Sheet1" sheetId="1" '
        'r:id="r1"/></sheets></workbook>'
    ),
    "xl/_rels/workbook.xml.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
        'Target="worksheets/sheet1.xml"/></Relationships>'
    ),
}
"""What a workbook of one sheet consists of, beside the sheet. Source: ECMA-376, part 1."""


def write_sheet(rows: Sequence[Sequence[Any]]) -> bytes:
    """Write a workbook of one sheet (.xlsx); the same rows give the same bytes.

    Args:
        rows: numbers stay numbers, everything else is text.
    """
    cells = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
    head = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    parts = {**_PARTS, "xl/worksheets/sheet1.xml": f"{head}{cells}</sheetData></worksheet>"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in parts.items():
            entry = zipfile.ZipInfo(name)  # its date is fixed
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    """Render one cell."""
    if isinstance(value, int):
        return f"<c><v>{value}</v></c>"
    text = escape(_XML_HOSTILE.sub("", str(value)))
    return f'<c t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'
