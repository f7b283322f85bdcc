"""kill -9 while a judge is being asked: the same command ends with the same output, and no stored answer is paid twice.

What the kill may cost is bounded: an answer that was on its way is asked again, so at most `concurrency` a kill.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from internvl_lab.config.curation_judge import JudgeConfig
from internvl_lab.text.judging.answer_store import AnswerStore, answer_key
from internvl_lab.text.judging.http_judge import ChatJudge
from internvl_lab.text.judging.judge import Question

SCRIPT = Path(__file__).with_name("run_scorers.py")
NUM_RECORDS, CONCURRENCY = 96, 4
FAULTS = "500 1,vague 9,cut 1,none 0,429 1,none 0,hangup 1"


def start(server, folder):
    command = [sys.executable, str(SCRIPT), server.url, str(folder), str(NUM_RECORDS), FAULTS, str(CONCURRENCY)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def num_paid(server):
    with server.guard:
        return sum(server.paid.values())


def outputs(folder):
    lines = (folder / "unparsed.jsonl").read_text().splitlines()
    return (folder / "verdicts.jsonl").read_text(), sorted(lines)


def stored(server, folder):
    """Return the questions whose answers are on disk."""
    identity = ChatJudge(JudgeConfig("openai", "m")).identity
    store = AnswerStore(folder / "judge.sqlite")
    keys = {answer_key(identity, Question(*question)): question for question in server.paid}
    found = [keys[key] for key in store.look_up(keys)]
    store.close()
    return found


def kill_at(server, folder, goal):
    """Start, kill -9 when so many answers have been paid, and return the paid counts of what was stored."""
    process = start(server, folder)
    deadline = time.monotonic() + 120
    while num_paid(server) < goal and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    return {question: server.paid[question] for question in stored(server, folder)}


@pytest.fixture(scope="module")
def whole(judge_server, tmp_path_factory):
    """An uninterrupted run: (its folder, number of paid answers)."""
    folder = tmp_path_factory.mktemp("whole")
    with judge_server.running() as server:
        process = start(server, folder)
        assert process.wait(120) == 0, process.stderr.read()
        assert set(server.paid.values()) == {1}
        return folder, num_paid(server)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_runs_end_like_a_whole_one_and_pay_no_stored_answer_twice(judge_server, whole, tmp_path, seed):
    whole_folder, num_answers = whole
    draw, kills, frozen = random.Random(seed), 4, {}
    with judge_server.running(delay_s=0.01) as server:
        for number in range(1, kills + 1):
            goal = num_answers * number // (kills + 2) + draw.randint(-5, 5)
            frozen |= kill_at(server, tmp_path, goal)
        for _ in range(2):  # the second finds everything done and asks nothing
            process = start(server, tmp_path)
            assert process.wait(120) == 0, process.stderr.read()
            assert outputs(tmp_path) == outputs(whole_folder)
            paid = num_paid(server)
            assert 0 <= paid - num_answers <= kills * CONCURRENCY
            assert all(server.paid[question] == count for question, count in frozen.items())
        assert num_paid(server) == paid
    assert len(frozen) > num_answers // 3


def test_the_victim_s_verdicts_are_whole(judge_server, tmp_path):
    with judge_server.running() as server:
        command = [sys.executable, str(SCRIPT), server.url, str(tmp_path), "5", "none 0", "2"]
        subprocess.run(command, check=True, capture_output=True)
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [[verdict["score"] for verdict in line] for line in verdicts] == [[float(i), float(i)] for i in range(5)]
