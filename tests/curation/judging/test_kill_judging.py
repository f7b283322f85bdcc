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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_runs_end_like_a_whole_one_and_pay_no_stored_answer_twice(judge_server, tmp_path, seed):
    with judge_server.running() as server:
        whole = start(server, tmp_path / "whole")
        assert whole.wait(120) == 0, whole.stderr.read()
        num_answers = num_paid(server)
        # The texts are few: router, quality and repetition prompts ask about each, all paid once.
        assert num_answers == len(server.requests) - sum(server.faults_given.values()) + vague(server)

    draw, kills = random.Random(seed), 4
    with judge_server.running(delay_s=0.01) as server:
        for number in range(1, kills + 1):
            goal = num_answers * number // (kills + 2) + draw.randint(-5, 5)
            process = start(server, tmp_path / "killed")
            deadline = time.monotonic() + 120
            while num_paid(server) < goal and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        last = start(server, tmp_path / "killed")
        assert last.wait(120) == 0, last.stderr.read()
        assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
        twice = num_paid(server) - num_answers
        assert 0 <= twice <= kills * CONCURRENCY
        paid = num_paid(server)
        again = start(server, tmp_path / "killed")
        assert again.wait(120) == 0, again.stderr.read()
        assert num_paid(server) == paid  # a finished run asks nothing


def vague(server):
    return sum(count for (_, kind), count in server.faults_given.items() if kind == "vague")


def test_the_victim_s_verdicts_are_whole(judge_server, tmp_path):
    with judge_server.running() as server:
        command = [sys.executable, str(SCRIPT), server.url, str(tmp_path), "5", "none 0", "2"]
        subprocess.run(command, check=True, capture_output=True)
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [[verdict["score"] for verdict in line] for line in verdicts] == [[float(i), float(i)] for i in range(5)]
