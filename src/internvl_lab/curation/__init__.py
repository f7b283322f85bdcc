"""Curation: find and drop what would make a model loop, on any conversation data."""

from internvl_lab.curation.verdicts import CurationRecord, Scorer, Verdict

__all__ = ["CurationRecord", "Scorer", "Verdict"]
