"""The heuristic rules: small functions that measure, and know no threshold.

    record ── answers ──> ANSWER_RULES (largest score of the gpt turns)
           ── turns ────> TURN_RULES, language
           ── images ───> IMAGE_RULES
    all records ────────> duplicates (a pass of its own)

Thresholds stand in `config.curation.RulesConfig`; a record is rejected where its score is above.
"""

from __future__ import annotations

from collections.abc import Callable

from internvl_lab.curation.rules.finding import NOTHING, Finding
from internvl_lab.curation.rules.form import Turns, boxes, copied_question, language, placeholders
from internvl_lab.curation.rules.images import Images, blank_image, unreadable_image
from internvl_lab.curation.rules.loops import (
    character_run,
    compression,
    longest_loop,
    longest_repeat,
    repeated_ngrams,
    zero_run,
)
from internvl_lab.curation.rules.sentences import repeated_clauses, repeated_lines, repeated_sentences, sentence_length

ANSWER_RULES: dict[str, Callable[[str], Finding]] = {
    rule.__name__: rule
    for rule in (
        repeated_ngrams,
        longest_repeat,
        longest_loop,
        repeated_lines,
        repeated_sentences,
        repeated_clauses,
        character_run,
        zero_run,
        sentence_length,
        compression,
    )
}
TURN_RULES: dict[str, Callable[[Turns], Finding]] = {
    rule.__name__: rule for rule in (placeholders, boxes, copied_question)
}
IMAGE_RULES: dict[str, Callable[[Images], Finding]] = {rule.__name__: rule for rule in (unreadable_image, blank_image)}

UNITS = {
    "malformed_record": "faults",
    "repeated_ngrams": "share",
    "longest_repeat": "share",
    "longest_loop": "letters",
    "repeated_lines": "share",
    "repeated_sentences": "sentences",
    "repeated_clauses": "share",
    "character_run": "characters",
    "zero_run": "zeros",
    "sentence_length": "words",
    "compression": "ratio",
    "placeholders": "faults",
    "copied_question": "share",
    "language": "share",
    "boxes": "faults",
    "unreadable_image": "images",
    "blank_image": "share",
    "exact_duplicate": "copies",
    "near_duplicate": "similarity",
    "near_duplicate_image": "similarity",
}
"""Unit of every rule's score, in the order in which reports list the rules."""

__all__ = [
    "ANSWER_RULES",
    "IMAGE_RULES",
    "NOTHING",
    "TURN_RULES",
    "UNITS",
    "Finding",
    "Images",
    "Turns",
    "apply_text_rules",
    "language",
]


def apply_text_rules(turns: Turns, scripts: tuple[str, ...] = ()) -> dict[str, Finding]:
    """Measure one conversation by all rules about text.

    Args:
        turns: (role, text) of each turn.
        scripts: expected by the source; () = any.
    Returns:
        Rule to finding, without those of score 0; of several answers the worst counts.
    """
    findings: dict[str, Finding] = {}
    for role, text in turns:
        if role != "gpt":
            continue
        for name, rule in ANSWER_RULES.items():
            finding = rule(text)
            if finding.score > 0 and finding.score > findings.get(name, NOTHING).score:
                findings[name] = finding
    for name, turn_rule in TURN_RULES.items():
        if (finding := turn_rule(turns)).score > 0:
            findings[name] = finding
    if scripts and (finding := language(turns, scripts)).score > 0:
        findings["language"] = finding
    return findings
