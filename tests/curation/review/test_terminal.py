import io
import os
import pty

import pytest
from rich.console import Console

from internvl_lab.curation.review.flagged import FlaggedFile
from internvl_lab.curation.review.reviews import ReviewLog
from internvl_lab.curation.review.terminal import read_key, review_in_terminal


@pytest.fixture
def review(folder):
    """Review with a script of keys; returns (number taken, what was shown)."""

    def run(keys, **options):
        shown = io.StringIO()
        console = Console(file=shown, width=100, force_terminal=True, color_system="truecolor")
        log = ReviewLog(folder / "reviews.jsonl")
        taken = review_in_terminal(FlaggedFile(folder), log, "anna", console, iter(keys).__next__, **options)
        return taken, shown.getvalue()

    return run


def test_keys_decide_skip_go_back_and_quit(folder, review):
    taken, _ = review("sxbkrsq")
    assert taken == 2
    decisions = ReviewLog(folder / "reviews.jsonl").decisions
    assert {key: decision.decision for key, decision in decisions.items()} == {"web:1": "keep", "web:2": "reject"}
    assert decisions["web:1"].rules == ("loop",)
    taken, _ = review("rk")  # only what is open comes again
    assert taken == 2
    assert review("")[0] == 0
    assert len(ReviewLog(folder / "reviews.jsonl").decisions) == 4


def test_the_screen_shows_picture_conversation_rule_and_score(review):
    _, shown = review("q")
    for part in ("web:1", "Describe the image.", "loop", "0.62", "0.4", "images/scene.png", "reject"):
        assert part in shown
    assert "38;2;" in shown and "▀" in shown  # the picture's colours
    assert "\x1b[30;43m" in shown  # the marked repetition


def test_markup_in_the_data_is_text(folder, review):
    path = folder / "flagged.jsonl"
    path.write_text(path.read_text().replace("What is the value?", "[bold]is this markup?[/bold] [/nonsense]"))
    _, shown = review("ssq")
    assert "[bold]is this markup?[/bold] [/nonsense]" in shown


def test_decided_samples_come_again_when_asked_for(review):
    review("kq")
    _, shown = review("q", again=True)
    assert "decided before: keep by anna" in shown


def test_a_terminal_gives_one_key_without_enter(monkeypatch):
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(master, b"K")
        assert read_key() == "k"
    os.close(master)


def test_without_a_terminal_lines_are_read(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("keep\nR\n"))
    assert [read_key() for _ in range(3)] == ["k", "r", "q"]
