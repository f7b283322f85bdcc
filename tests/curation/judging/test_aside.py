import json

from internvl_lab.curation.judging.aside import AsideLog


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_entries_are_on_disk_at_once_and_only_once(tmp_path):
    path = tmp_path / "out" / "unparsed.jsonl"
    log = AsideLog(path)
    for _ in range(2):
        log.add("web:1", "quality", "no final line", "An 8.")
    assert lines(path) == [{"key": "web:1", "scorer": "quality", "reason": "no final line", "answer": "An 8."}]
    again = AsideLog(path)
    again.add("web:1", "quality", "no final line", "An 8.")
    again.add("web:1", "repetition", "HTTP 400", None)
    again.close()
    assert len(lines(path)) == len(again) == 2


def test_a_scored_record_leaves_and_a_new_reason_replaces_the_old(tmp_path):
    path = tmp_path / "unparsed.jsonl"
    log = AsideLog(path)
    log.add("a", "quality", "HTTP 400", None)
    log.add("b", "quality", "HTTP 400", None)
    log.resolve("a", "quality")
    log.add("b", "quality", "no final line", "?")
    log.resolve("never seen", "quality")
    log.close()
    assert [(entry["key"], entry["reason"]) for entry in lines(path)] == [("b", "no final line")]


def test_half_a_line_of_a_killed_run_goes(tmp_path):
    path = tmp_path / "unparsed.jsonl"
    AsideLog(path).add("a", "quality", "r", None)
    whole = path.read_text()
    path.write_text(whole + '{"key": "b", "sco')
    log = AsideLog(path)
    assert path.read_text() == whole
    log.add("b", "quality", "r", None)
    log.close()
    assert [entry["key"] for entry in lines(path)] == ["a", "b"]
