"""Judging: a language model scores records; nothing is paid twice, lost or guessed."""

from internvl_lab.curation.judging.scorers import open_scorers

__all__ = ["open_scorers"]
