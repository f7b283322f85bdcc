"""Write the review page: one self-contained HTML document a sample. Whatever comes from the data is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from internvl_lab.curation.review.flagged import FlaggedFile, FlaggedSample
from internvl_lab.curation.review.highlight import marked_parts
from internvl_lab.curation.review.reviews import Decision, ReviewLog

MAX_TURN_CHARS = 50_000
NUM_NEIGHBOURS = 60
"""Samples in the list beside the one that is shown."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6475; --line: #d9dee7; --ground: #f4f6f9; --card: #fff;
  --human: #eef4ff; --gpt: #f2f8f2; --mark: #ffe28a; --keep: #18794e; --reject: #c0362c; --link: #2456a6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ef; --soft: #9aa4b5; --line: #343c4a; --ground: #14181f;
  --card: #1c222c; --human: #1d2a40; --gpt: #1c2f25; --mark: #7a5f00; --keep: #2f9e6a; --reject: #d9534a;
  --link: #86b1ff; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
header { display: flex; gap: 1rem; align-items: center; padding: .6rem 1.2rem; background: var(--card);
  border-bottom: 1px solid var(--line); }
header b { font-size: 1.05rem; }
progress { width: 14rem; accent-color: var(--keep); }
main { display: grid; grid-template-columns: 17rem minmax(0, 1fr); min-height: calc(100vh - 3.2rem); }
nav { border-right: 1px solid var(--line); padding: .6rem; height: calc(100vh - 3.2rem); overflow-y: auto;
  position: sticky; top: 0; }
nav a { display: flex; gap: .5rem; padding: .25rem .5rem; border-radius: .4rem; color: inherit; text-decoration: none;
  overflow: hidden; }
nav a span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
nav a.here { background: var(--card); font-weight: 600; box-shadow: 0 0 0 1px var(--line); }
i.dot { flex: none; width: .7rem; height: .7rem; margin-top: .4rem; border-radius: 50%; border: 2px solid var(--line); }
i.keep { background: var(--keep); border-color: var(--keep); }
i.reject { background: var(--reject); border-color: var(--reject); }
article { padding: 1rem 1.4rem 6rem; max-width: 70rem; }
h1 { font-size: 1.05rem; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h1 small, .soft { color: var(--soft); font-weight: 400; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: .85rem; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.rejected td:first-child { font-weight: 600; color: var(--reject); }
td:last-child { overflow-wrap: anywhere; width: 55%; }
.images { display: flex; flex-wrap: wrap; gap: .6rem; margin: .9rem 0; }
.images img { display: block; max-width: 100%; max-height: 26rem; border: 1px solid var(--line); border-radius: .4rem; }
.turn { margin: .8rem 0; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
.turn b { display: block; padding: .3rem .8rem; font-size: .8rem; color: var(--soft); font-weight: 600; }
.turn div { padding: 0 .8rem .7rem; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 34rem;
  overflow-y: auto; }
.human { background: var(--human); margin-right: 8%; }
.gpt { background: var(--gpt); margin-left: 8%; }
mark { background: var(--mark); color: inherit; border-radius: .15rem; }
form { position: fixed; left: 17rem; right: 0; bottom: 0; display: flex; gap: .7rem; align-items: center;
  padding: .7rem 1.4rem; background: var(--card); border-top: 1px solid var(--line); }
button, a.button { font: inherit; font-weight: 600; padding: .45rem 1.1rem; border-radius: .5rem; border: 1px solid
  var(--line); background: var(--card); color: var(--ink); cursor: pointer; text-decoration: none; }
button.keep { background: var(--keep); border-color: var(--keep); color: #fff; }
button.reject { background: var(--reject); border-color: var(--reject); color: #fff; }
kbd { font: .8rem ui-monospace, monospace; opacity: .75; margin-left: .4rem; }
.decided { margin-left: auto; color: var(--soft); }
@media (max-width: 60rem) { main { grid-template-columns: minmax(0, 1fr); } nav { display: none; }
  form { left: 0; flex-wrap: wrap; } article { padding-bottom: 9rem; } }
"""

_SCRIPT = """
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`)?.click();
});
document.querySelector("nav .here")?.scrollIntoView({block: "center"});
"""


@dataclass(frozen=True)
class View:
    """Hold what the page needs to know beside the sample."""

    by: str
    form_token: str
    """Proof that a decision was sent from this page."""
    nonce: str
    """Allows this page's own style and script, and no other."""


def render_page(flagged: FlaggedFile, log: ReviewLog, position: int, view: View) -> str:
    """Write the page of the sample at a position."""
    sample = flagged[position]
    decided = sum(key in log.decisions for key in flagged.keys)
    images = "".join(_image(f"/image/{position}/{number}", name) for number, name in enumerate(sample.images))
    body = (
        f"<header><b>Review</b><progress value={decided} max={len(flagged)}></progress>"
        f'<span class="soft">{decided} of {len(flagged)} decided · reviewer {escape(view.by)}</span></header>'
        f"<main><nav>{_neighbours(flagged, log, position)}</nav><article>"
        f"<h1>{escape(sample.key)} <small>sample {position + 1} of {len(flagged)} · source {escape(sample.source)}"
        f'</small></h1>{_verdicts(sample)}<div class="images">{images}</div>{"".join(map(_turn, sample.turns))}'
        f"</article></main>{_form(len(flagged), position, log.decisions.get(sample.key), view)}"
    )
    return _document(f"{position + 1}/{len(flagged)} review", body, view)


def render_note(text: str, view: View) -> str:
    """Write a page that only says something."""
    return _document("review", f"<article><h1>{escape(text)}</h1></article>", view)


def _document(title: str, body: str, view: View) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f'<style nonce="{view.nonce}">{_STYLE}</style></head>'
        f'<body>{body}<script nonce="{view.nonce}">{_SCRIPT}</script></body></html>'
    )


def _image(address: str, name: str) -> str:
    words = escape(name)
    return f'<a href="{address}"><img src="{address}" alt="{words} (not readable)" title="{words}"></a>'


def _neighbours(flagged: FlaggedFile, log: ReviewLog, position: int) -> str:
    """List the samples around the one that is shown."""
    first = max(0, min(position - NUM_NEIGHBOURS // 2, len(flagged) - NUM_NEIGHBOURS))
    rows = []
    for number in range(first, min(first + NUM_NEIGHBOURS, len(flagged))):
        key = flagged.keys[number]
        decision = log.decisions[key].decision if key in log.decisions else ""
        here = ' class="here"' if number == position else ""
        title = f"{key}: {decision or 'open'}"
        rows.append(
            f'<a{here} href="/sample/{number}" title="{escape(title)}"><i class="dot {decision}"></i>'
            f"<span>{escape(key)}</span></a>"
        )
    return "".join(rows)


def _verdicts(sample: FlaggedSample) -> str:
    rows = "".join(
        f"<tr{' class=rejected' if verdict.rejected else ''}><td>{escape(verdict.rule)}</td>"
        f'<td class="number">{verdict.score:.4g}</td><td class="number">{verdict.threshold:.4g}</td>'
        f"<td>{escape(verdict.detail)}</td></tr>"
        for verdict in sample.verdicts
    )
    return f"<table><tr><th>rule</th><th>score</th><th>threshold</th><th>found</th></tr>{rows}</table>"


def _turn(turn: tuple[str, str]) -> str:
    role, text = turn
    words = "".join(
        f"<mark>{escape(part)}</mark>" if repeated else escape(part)
        for part, repeated in marked_parts(text, MAX_TURN_CHARS)
    )
    kind = role if role in ("human", "gpt") else "other"
    return f'<section class="turn {kind}"><b>{escape(role)} · {len(text):,} characters</b><div>{words}</div></section>'


def _form(num_samples: int, position: int, decision: Decision | None, view: View) -> str:
    """Write the bar with the buttons."""
    said = f"{decision.decision} by {decision.by}, {decision.at}" if decision else "not decided"
    back, forth = max(0, position - 1), min(position + 1, num_samples - 1)
    return (
        f'<form method="post" action="/decide"><input type="hidden" name="token" value="{view.form_token}">'
        f'<input type="hidden" name="sample" value="{position}">'
        '<button class="keep" name="decision" value="keep" data-key="k">Keep<kbd>k</kbd></button>'
        '<button class="reject" name="decision" value="reject" data-key="r">Reject<kbd>r</kbd></button>'
        f'<a class="button" href="/sample/{forth}" data-key="s">Skip<kbd>s</kbd></a>'
        f'<a class="button" href="/sample/{back}" data-key="b">Back<kbd>b</kbd></a>'
        f'<span class="decided">{escape(said)}</span></form>'
    )
