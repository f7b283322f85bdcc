import json
import threading

import pytest

from internvl_lab.curation.review.reviews import Decision, ReviewLog


def test_the_last_decision_counts_and_the_history_stays(tmp_path):
    path = tmp_path / "new" / "reviews.jsonl"
    log = ReviewLog(path)
    log.add("a", "keep", "anna", ("loop",))
    log.add("b", "keep", "anna", ())
    taken = log.add("a", "reject", "ben", ("loop", "zeros"))
    assert ReviewLog(path).decisions == log.decisions
    assert log.decisions["a"] == taken
    assert (taken.decision, taken.by, taken.rules) == ("reject", "ben", ("loop", "zeros"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["key"], line["decision"], line["by"]) for line in lines] == [
        ("a", "keep", "anna"),
        ("b", "keep", "anna"),
        ("a", "reject", "ben"),
    ]
    assert lines[0]["at"].endswith("+00:00")


def test_what_others_append_is_seen(tmp_path):
    mine, theirs = ReviewLog(tmp_path / "r"), ReviewLog(tmp_path / "r")
    theirs.add("a", "keep", "ben", ())
    mine.refresh()
    assert mine.decisions["a"].by == "ben"


def test_reviewers_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "r"

    def review(name):
        log = ReviewLog(path)
        for number in range(25):
            log.add(f"{name}:{number}", "keep", name, ())

    threads = [threading.Thread(target=review, args=(f"p{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ReviewLog(path).decisions) == 100


@pytest.mark.parametrize("length", [10, 5000])
def test_half_a_line_of_a_killed_writer_goes_with_the_next_decision(tmp_path, length):
    path = tmp_path / "r"
    ReviewLog(path).add("a", "keep", "anna", ())
    whole = path.read_text()
    path.write_text(whole + '{"key": "' + "b" * length)
    log = ReviewLog(path)
    assert set(log.decisions) == {"a"}
    log.add("c", "keep", "anna", ())
    assert path.read_text().startswith(whole)
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "c"]


def test_a_broken_line_is_skipped_and_said(tmp_path, caplog):
    path = tmp_path / "r"
    path.write_text('nonsense\n{"key": "a", "decision": "maybe", "by": "x", "at": "", "rules": []}\n')
    log = ReviewLog(path)
    log.add("a", "keep", "anna", ())
    assert set(ReviewLog(path).decisions) == {"a"}
    assert caplog.text.count("is no decision and is skipped") == 4


def test_there_is_no_third_way():
    with pytest.raises(ValueError, match="must be keep or reject"):
        Decision("a", "maybe", "anna", "now")
