import time

import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.run_folder import RunFolder


def test_time_adds_up_over_restarts(tmp_path):
    folder = RunFolder(tmp_path / "outputs" / "x" / "1", started_s=time.time() - 100)
    folder.open(fresh=False)
    folder.elapsed_s()
    again = RunFolder(folder.path, started_s=time.time() - 50)
    assert 149 < again.elapsed_s() < 152


def test_the_clock_notes_time_while_the_run_works(tmp_path, monkeypatch):
    monkeypatch.setattr("internvl_lab.run_folder.TICK_S", 0.01)
    folder = RunFolder(tmp_path, started_s=time.time())
    with folder.clock():
        deadline = time.monotonic() + 10
        while not (tmp_path / "elapsed.json").is_file():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_second_run_of_one_process_does_not_count_the_first_one_s_time(tmp_path):
    RunFolder(tmp_path / "first")
    second = RunFolder(tmp_path / "second")
    second.open(fresh=False)
    assert second.elapsed_s() < 5


def test_only_one_process_at_a_time_has_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("internvl_lab.run_folder.WAIT_FOR_LOCK_S", 0.0)
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first.locked(), pytest.raises(ConfigError, match="another process is running"), second.locked():
        pass
    with second.locked():
        pass


def test_fresh_refuses_to_delete_what_the_run_starts_from(tmp_path):
    folder = RunFolder(tmp_path / "run")
    weights = folder.path / "stages" / "stage1"
    weights.mkdir(parents=True)
    (tmp_path / "latest").symlink_to(folder.path)
    with pytest.raises(ConfigError, match="copy it first"):
        folder.open(fresh=True, sources=[tmp_path / "latest"])
    assert weights.is_dir()
    assert folder.open(fresh=True, sources=[tmp_path / "elsewhere"]) is False


def test_finish_marks_the_run_and_points_latest_at_it(tmp_path):
    folder = RunFolder(tmp_path / "outputs" / "quickstart" / "abc")
    folder.open(fresh=False)
    assert not folder.finished
    folder.finish({"seed": 3})
    assert folder.finished
    assert folder.result == {"seed": 3}
    latest = tmp_path / "outputs" / "latest"
    assert latest.resolve() == folder.path.resolve()
    other = RunFolder(tmp_path / "outputs" / "quickstart" / "def")
    other.open(fresh=False)
    other.finish({})
    assert latest.resolve() == other.path.resolve()


def test_open_says_whether_a_run_lies_there_and_fresh_empties_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.open(fresh=False) is False
    (folder.path / "config.yaml").write_text("x: 1\n")
    assert folder.open(fresh=False) is True
    assert folder.open(fresh=True) is False
    assert list(folder.path.iterdir()) == []
