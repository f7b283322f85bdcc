"""Curation: find and drop what would make a model loop, on any conversation data.

inputs, items (what there is) -> rules, signatures (one record) -> measure (one chunk) -> duplicates (all records)
-> decisions (thresholds, reviews, scorers) -> outputs, tally, report (what becomes of it); pipeline runs it all.
planted, quality: a labelled set, and what the rules find in it.
"""

from internvl_lab.curation.decisions import Decision, Review, read_reviews
from internvl_lab.curation.pipeline import curate
from internvl_lab.curation.rules import Finding, apply_text_rules
from internvl_lab.curation.verdicts import CurationRecord, Scorer, Verdict

__all__ = [
    "CurationRecord",
    "Decision",
    "Finding",
    "Review",
    "Scorer",
    "Verdict",
    "apply_text_rules",
    "curate",
    "read_reviews",
]
