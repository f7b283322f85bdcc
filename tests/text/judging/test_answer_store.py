import subprocess
import sys

import pytest

from internvl_lab.errors import JudgeError
from internvl_lab.text.judging.answer_store import AnswerStore, answer_key
from internvl_lab.text.judging.judge import Question, Reply


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "judge.sqlite"


def test_answers_outlive_the_process(path):
    store = AnswerStore(path)
    call = store.open_call(2, 0.5)
    assert store.totals() == (2, 0.5)
    store.close_call(call, {"a": (Reply("x", 1, 2), 0.1), "b": (Reply("y", 3, 4, False), 0.2)})
    store.close()
    store = AnswerStore(path)
    assert store.look_up(["a", "b", "c"]) == {"a": Reply("x", 1, 2), "b": Reply("y", 3, 4, False)}
    assert store.totals() == (2, pytest.approx(0.3))
    store.close()


def test_a_call_without_an_end_stays_charged_and_one_that_cost_nothing_goes(path):
    store = AnswerStore(path)
    store.open_call(1, 0.7)
    store.close_call(store.open_call(1, 0.5), {})
    store.close()
    store = AnswerStore(path)
    assert store.totals() == (1, 0.7)
    store.close()


def test_a_thousand_keys_are_looked_up_at_once(path):
    store = AnswerStore(path)
    answers = {f"k{i}": (Reply(str(i), 1, 1), 0.0) for i in range(0, 1500, 2)}
    store.close_call(store.open_call(750, 0.0), answers)
    found = store.look_up(f"k{i}" for i in range(1500))
    assert {key: reply.text for key, reply in found.items()} == {f"k{i}": str(i) for i in range(0, 1500, 2)}
    store.close()


def test_one_owner_at_a_time(path):
    store = AnswerStore(path)
    with pytest.raises(JudgeError, match="is in use"):
        AnswerStore(path)
    code = (
        "import sys, pathlib\nfrom internvl_lab.text.judging.answer_store import AnswerStore\n"
        "from internvl_lab.errors import JudgeError\n"
        "try:\n    AnswerStore(pathlib.Path(sys.argv[1]))\nexcept JudgeError as error:\n    sys.exit(str(error))"
    )
    other = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "is in use: wait for the other run" in other.stderr
    store.close()
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database\n" * 50)
    with pytest.raises(JudgeError, match="cannot be used as a cache"):
        AnswerStore(path)
    assert path.read_text().startswith("these are my notes")


def test_every_commit_is_in_the_files_at_once(path, tmp_path):
    store = AnswerStore(path)
    for key in ("b", "a"):  # the second does not wait for the disk
        store.close_call(store.open_call(1, 0.0), {key: (Reply("x", 1, 1), 0.0)})
    for file in path.parent.iterdir():  # what a kill would leave
        (tmp_path / file.name).write_bytes(file.read_bytes())
    store.close()
    copy = AnswerStore(tmp_path / path.name)
    assert copy.look_up(["a"]) == {"a": Reply("x", 1, 1)}
    copy.close()


def test_the_id_of_a_call_is_never_used_again(path):
    store = AnswerStore(path)
    first = store.open_call(1, 0.0)
    store.close_call(first, {})
    assert store.open_call(1, 0.0) != first
    store.close()


def test_the_key_holds_everything_an_answer_depends_on():
    keys = {
        answer_key(*arguments)
        for arguments in (
            ("m", Question("p", "t")),
            ("n", Question("p", "t")),
            ("m", Question("q", "t")),
            ("m", Question("p", "u")),
            ("m", Question("pt", "")),
        )
    }
    assert len(keys) == 5
    assert answer_key("m", Question("p", "t")) in keys
