"""Review in the terminal: one sample a screen, one key a decision."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from internvl_lab.curation.review.flagged import FlaggedFile, FlaggedSample
from internvl_lab.curation.review.highlight import marked_parts
from internvl_lab.curation.review.reviews import KEEP, REJECT, Decision, ReviewLog

KEYS = {"k": KEEP, "r": REJECT}
HELP = "[b]k[/b] keep   [b]r[/b] reject   [b]s[/b] skip   [b]b[/b] back   [b]q[/b] quit"
MAX_TURN_CHARS = 4000
PREVIEW_COLUMNS = 48
_STYLES = {"human": "cyan", "gpt": "green", "system": "magenta"}


def review_in_terminal(
    flagged: FlaggedFile,
    log: ReviewLog,
    by: str,
    console: Console,
    read: Callable[[], str],
    again: bool = False,
) -> int:
    """Show sample after sample and take decisions until the last one or `q`.

    Args:
        flagged: what to show.
        log: where decisions go.
        by: who decides.
        read: returns one key; `read_key` of a terminal, or a script.
        again: show samples that are decided already, too.
    Returns:
        Number of decisions taken.
    """
    order = [n for n, key in enumerate(flagged.keys) if again or key not in log.decisions]
    taken = place = 0
    while place < len(order):
        sample = flagged[order[place]]
        console.clear()
        console.print(_screen(flagged, sample, f"{place + 1} of {len(order)}", log.decisions.get(sample.key)))
        console.print(HELP)
        key = read()
        if key == "q":
            break
        if key in KEYS:
            log.add(sample.key, KEYS[key], by, sample.rules)
            taken += 1
        if key in KEYS or key == "s":
            place += 1
        elif key == "b":
            place = max(0, place - 1)
    return taken


def read_key() -> str:
    """Wait for one key and return it in lower case; `q` at the end of the input. Without a terminal, read a line."""
    if not sys.stdin.isatty():
        return (sys.stdin.readline()[:1] or "q").lower()
    import termios  # here, because other systems have none
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)  # keeps what was typed ahead
        return os.read(terminal, 1).decode("ascii", "replace").lower() or "q"
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _screen(flagged: FlaggedFile, sample: FlaggedSample, place: str, decision: Decision | None) -> RenderableType:
    """Compose what is shown of one sample."""
    parts: list[RenderableType] = [_preview(flagged, sample, number) for number in range(len(sample.images))]
    for role, text in sample.turns:
        style = _STYLES.get(role, "white")
        parts.append(Panel(_marked(text), title=role, title_align="left", border_style=style))
    parts.append(_verdict_table(sample))
    if decision is not None:
        parts.append(Text(f"decided before: {decision.decision} by {decision.by}, {decision.at}", "yellow"))
    return Panel(Group(*parts), title=f"{place}   {sample.key}", title_align="left")


def _marked(text: str) -> Text:
    """Return a turn's text with its repeated parts marked."""
    marked = Text()
    for part, repeated in marked_parts(text, MAX_TURN_CHARS):
        marked.append(part, "black on yellow" if repeated else "")
    return marked


def _verdict_table(sample: FlaggedSample) -> Table:
    table = Table("rule", "score", "threshold", "found", expand=True)
    for verdict in sample.verdicts:
        row = (verdict.rule, f"{verdict.score:.4g}", f"{verdict.threshold:.4g}", verdict.detail)
        table.add_row(*map(Text, row), style="bold red" if verdict.rejected else "dim")
    return table


def _preview(flagged: FlaggedFile, sample: FlaggedSample, number: int) -> RenderableType:
    """Draw an image with half blocks, two pixels a character; the name alone where it cannot be read."""
    from PIL import Image

    name = sample.images[number]
    data = flagged.image(sample, number, PREVIEW_COLUMNS)
    if data is None:
        return Text(f"{name} (not readable)", "red")
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    drawing = Text(name + "\n", "dim")
    for row in range(0, picture.height - 1, 2):
        for column in range(picture.width):
            upper, lower = (_hex(picture.getpixel((column, row + half))) for half in (0, 1))
            drawing.append("▀", f"{upper} on {lower}")
        drawing.append("\n")
    return drawing


def _hex(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    return "#{:02x}{:02x}{:02x}".format(*pixel)
