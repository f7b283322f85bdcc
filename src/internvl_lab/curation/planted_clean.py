"""Clean records of the labelled set that look repetitive and are legitimate: tables, code, songs, forms, lists.

Each function draws one (question, answer). A filter that drops these is worse than none: the answers of OCR, chart and
code sources look like this.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from random import Random

from internvl_lab.curation.planted_words import (
    ADJECTIVES,
    NAMES,
    NOUNS,
    VERBS,
    line,
    paragraph,
    phrase,
    sentence,
    zh_paragraph,
    zh_sentence,
)

Pair = tuple[str, str]


def prose(rng: Random) -> Pair:
    """Describe something."""
    return f"Tell me about the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}.", paragraph(rng, 3, 14)


def short(rng: Random) -> Pair:
    """Answer in a word or two."""
    question = f"Which is further away, the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} or the {rng.choice(NOUNS)}?"
    return question, rng.choice(NOUNS)


def reasoning(rng: Random) -> Pair:
    """Add numbers step by step, each step worded like the last."""
    numbers = [rng.randint(10, 999) for _ in range(rng.randint(4, 14))]
    total, steps = numbers[0], []
    for i, number in enumerate(numbers[1:], start=1):
        steps.append(f"Step {i}: Adding {number} to {total} gives {total + number}.")
        total += number
    return f"What is {' + '.join(map(str, numbers))}?", "\n".join([*steps, f"Therefore the answer is {total}."])


def series(rng: Random) -> Pair:
    """Read a chart: the same sentence for every bar."""
    years = range(1990 + rng.randint(0, 9), 2004 + rng.randint(0, 15))
    thing = rng.choice(NOUNS)
    lines = [f"In {year}, the number of {thing}s was {rng.randint(100, 9999)}." for year in years]
    return f"Describe the chart about the {thing}s.", " ".join(lines)


def table(rng: Random) -> Pair:
    """Write a Markdown table; some hold mostly zeros."""
    columns, zeros = rng.randint(3, 8), rng.random() < 0.4
    head = f"| {' | '.join(rng.sample(NOUNS, columns))} |\n|{' --- |' * columns}\n"
    rows = []
    for name in rng.sample(NOUNS, rng.randint(4, 16)):
        cells = ["0" if zeros and rng.random() < 0.85 else str(rng.randint(0, 999)) for _ in range(columns - 1)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "Convert the table to Markdown.", head + "\n".join(rows)


def html_table(rng: Random) -> Pair:
    """Write an HTML table: more tags than text."""
    width = rng.randint(2, 5)
    rows = [
        "<tr>"
        + "".join(f"<td>{rng.choice((rng.choice(NOUNS), rng.randint(1, 9999)))}</td>" for _ in range(width))
        + "</tr>"
        for _ in range(rng.randint(5, 14))
    ]
    return "Give the table as HTML.", "<table>\n" + "\n".join(rows) + "\n</table>"


def code(rng: Random) -> Pair:
    """Write Python functions that resemble each other."""
    parts = []
    for noun in rng.sample(NOUNS, rng.randint(2, 6)):
        verb, other = rng.choice(VERBS), rng.choice(NOUNS)
        parts.append(
            f"def {verb}_{noun}({other}):\n    if {other} is None:\n        return None\n"
            f"    result = []\n    for item in {other}:\n        if item.{noun} > {rng.randint(0, 99)}:\n"
            f"            result.append(item)\n    return result"
        )
    return f"Write helpers for the {rng.choice(NOUNS)}.", "```python\n" + "\n\n\n".join(parts) + "\n```"


def switch(rng: Random) -> Pair:
    """Write C code with one case like the other."""
    cases = [
        f"    case {i}:\n        set_{noun}({rng.randint(0, 255)});\n        break;"
        for i, noun in enumerate(rng.sample(NOUNS, rng.randint(5, 14)))
    ]
    return "Write the switch statement.", "switch (state) {\n" + "\n".join(cases) + "\n    default:\n        break;\n}"


def song(rng: Random) -> Pair:
    """Write a song: three or four verses, and after each the same chorus."""
    chorus = [line(rng) for _ in range(rng.randint(2, 4))]
    if rng.random() < 0.5:
        chorus.append(chorus[0])
    verses = [[line(rng) for _ in range(rng.randint(4, 6))] for _ in range(rng.randint(3, 4))]
    return "Write a song.", "\n\n".join("\n".join(verse) + "\n\n" + "\n".join(chorus) for verse in verses)


def anaphora(rng: Random) -> Pair:
    """Write a speech whose sentences begin alike."""
    start = f"I have a {rng.choice(NOUNS)} that one day"
    return "Write a short speech.", " ".join(f"{start} {sentence(rng).lower()}" for _ in range(rng.randint(5, 12)))


def form(rng: Random) -> Pair:
    """Read a form: labels, leaders, boxes to tick, and some lines that are all blank."""
    rows = []
    for noun in rng.sample(NOUNS, rng.randint(5, 12)):
        fill = rng.choice(
            ("_" * rng.randint(10, 60), "." * rng.randint(10, 90), "[ ] yes [ ] no", str(rng.randint(1, 999)))
        )
        rows.append(f"{noun.capitalize()}: {fill}")
    rows += ["Date: ________ Signature: ________________"] * rng.randint(1, 3)
    return "Read all text in the form.", "\n".join(rows)


def contents(rng: Random) -> Pair:
    """Read a table of contents with dot leaders."""
    rows, page = [], 1
    for i in range(1, rng.randint(6, 16)):
        title = f"{i}. The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} "
        page += rng.randint(1, 30)
        rows.append(title + "." * (60 - len(title)) + f" {page}")
    return "Transcribe the page.", "Contents\n" + "=" * 64 + "\n" + "\n".join(rows) + "\n" + "-" * 64


def listing(rng: Random) -> Pair:
    """Number things whose entries are alike."""
    kind = rng.choice(NOUNS)
    rows = [f"{i}. {rng.choice(ADJECTIVES)} {kind} ({phrase(rng)})" for i in range(1, rng.randint(8, 30))]
    return f"List the {kind}s.", "\n".join(rows)


def records_json(rng: Random) -> Pair:
    """Write JSON objects with the same keys."""
    rows = [
        {"name": rng.choice(NAMES), "item": rng.choice(NOUNS), "count": rng.randint(0, 99), "paid": rng.random() < 0.5}
        for _ in range(rng.randint(4, 12))
    ]
    return "Return the receipt as JSON.", json.dumps({"rows": rows}, indent=2)


def matrix(rng: Random) -> Pair:
    """Write a sparse matrix in LaTeX."""
    size = rng.randint(3, 6)
    rows = [" & ".join("1" if rng.random() < 0.25 else "0" for _ in range(size)) for _ in range(size)]
    body = " \\\\\n".join(rows)
    return "Write the matrix in LaTeX.", f"\\begin{{pmatrix}}\n{body}\n\\end{{pmatrix}}\n{sentence(rng)}"


def hexdump(rng: Random) -> Pair:
    """Show bytes, half of them zero."""
    rows = []
    for address in range(0, 16 * rng.randint(4, 12), 16):
        values = [0 if rng.random() < 0.6 else rng.randrange(256) for _ in range(16)]
        shown = "".join(chr(v) if 32 < v < 127 else "." for v in values)
        rows.append(f"{address:08x}  {' '.join(f'{v:02x}' for v in values)}  |{shown}|")
    return "Show the header of the file.", "\n".join(rows)


def multiplication(rng: Random) -> Pair:
    """Recite a multiplication table."""
    number, last = rng.randint(3, 999), rng.randint(10, 20)
    rows = [f"{number} x {i} = {number * i}" for i in range(1, last)]
    return f"Write the multiplication table of {number}.", "\n".join(rows)


def digits(rng: Random) -> Pair:
    """Write a long number, a power of ten among them."""
    if rng.random() < 0.3:
        zeros = rng.randint(9, 36)
        return f"Write ten to the power of {zeros} with a word.", f"1{'0' * zeros}, {sentence(rng)}"
    number = math.isqrt(rng.randint(2, 10**6) * 10 ** (2 * rng.randint(60, 300)))
    return "Give many digits of the square root.", str(number)


def sequence(rng: Random) -> Pair:
    """Write DNA."""
    return "Give the sequence.", "".join(rng.choice("ACGT") for _ in range(rng.randint(80, 900)))


def legal(rng: Random) -> Pair:
    """Write one long sentence."""
    clauses = [f"the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {phrase(rng)}" for _ in range(rng.randint(8, 16))]
    return "Quote the clause.", f"Whereas {', and whereas '.join(clauses)}, {sentence(rng).lower()}"


def dialogue(rng: Random) -> Pair:
    """Write a scene in which two speak in turns."""
    first, second = rng.sample(NAMES, 2)
    rows = [
        f"{(first, second)[i % 2]}: {rng.choice(('No.', 'Yes.', sentence(rng)))}" for i in range(rng.randint(8, 20))
    ]
    return f"Write a dialogue of {first} and {second}.", "\n".join(rows)


def laughter(rng: Random) -> Pair:
    """Exclaim."""
    return (
        "How did they react?",
        f"{'ha' * rng.randint(3, 12)}! {'No' + 'o' * rng.randint(2, 12)}! {paragraph(rng, 1, 3)}",
    )


def repeat_after_me(rng: Random) -> Pair:
    """Do what was asked: copy a part of the question."""
    text = paragraph(rng, 1, 4)
    return f"Correct the spelling, if it needs it: {text}", text


def detection(rng: Random) -> Pair:
    """Detect many objects of one kind."""
    noun = rng.choice(NOUNS)
    boxes = []
    for _ in range(rng.randint(3, 14)):
        x, y = rng.randint(0, 800), rng.randint(0, 800)
        boxes.append([x, y, x + rng.randint(5, 200), y + rng.randint(5, 200)])
    rows = [f"<ref>{noun}</ref><box>[{box}]</box>" for box in boxes]
    return f"Detect every {noun}.", "\n".join(rows) if rng.random() < 0.5 else f"<ref>{noun}</ref><box>{boxes}</box>"


def markup(rng: Random) -> Pair:
    """Write SVG with an <image href> tag, which is no placeholder."""
    shapes = "\n".join(f'  <rect x="{rng.randint(0, 99)}" y="{rng.randint(0, 99)}"/>' for _ in range(rng.randint(2, 8)))
    return "Write an SVG.", f'<svg>\n  <image href="{rng.choice(NOUNS)}.png"/>\n{shapes}\n</svg>'


def html_line(rng: Random) -> Pair:
    """Write a page of HTML on one line."""
    parts = [
        f'<div class="{rng.choice(ADJECTIVES)}"><h2>The {rng.choice(NOUNS)}</h2><p>{phrase(rng)}</p></div>'
        for _ in range(rng.randint(10, 40))
    ]
    return "Write the HTML of the page.", f"<html><body>{''.join(parts)}</body></html>"


def csv_rows(rng: Random) -> Pair:
    """Write CSV with many empty and zero cells."""
    width = rng.randint(4, 9)
    rows = [",".join(rng.choice(("", "0", "0.0", str(rng.randint(1, 99)))) for _ in range(width)) for _ in range(12)]
    return "Export the sheet as CSV.", ",".join(rng.sample(NOUNS, width)) + "\n" + "\n".join(rows)


def word_list(rng: Random) -> Pair:
    """List words without a sentence."""
    return "Which words are in the picture?", ", ".join(rng.choice(NOUNS) for _ in range(rng.randint(20, 120)))


def chinese(rng: Random) -> Pair:
    """Answer in Chinese."""
    return f"请描述一下。{zh_sentence(rng)}", zh_paragraph(rng, 2, 12)


def chinese_poem(rng: Random) -> Pair:
    """Write a Chinese poem with a refrain."""
    refrain = zh_sentence(rng)
    verses = ["\n".join(zh_sentence(rng) for _ in range(3)) + "\n" + refrain for _ in range(rng.randint(3, 5))]
    return "请写一首诗。", "\n\n".join(verses)


def chinese_list(rng: Random) -> Pair:
    """Number things in Chinese."""
    return "请列出来。", "\n".join(f"{i}、{zh_sentence(rng)}" for i in range(1, rng.randint(5, 15)))


ENGLISH: tuple[Callable[[Random], Pair], ...] = (
    prose,
    short,
    reasoning,
    series,
    table,
    html_table,
    code,
    switch,
    song,
    anaphora,
    form,
    contents,
    listing,
    records_json,
    matrix,
    hexdump,
    multiplication,
    digits,
    sequence,
    legal,
    dialogue,
    laughter,
    repeat_after_me,
    detection,
    markup,
    html_line,
    csv_rows,
    word_list,
)
CHINESE: tuple[Callable[[Random], Pair], ...] = (chinese, chinese_poem, chinese_list)
