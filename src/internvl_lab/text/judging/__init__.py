"""Asking a language model as a judge: nothing is paid twice, lost or guessed; for curation and evaluation alike."""
