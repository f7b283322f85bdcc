import time

from internvl_lab.run_folder import RunFolder


def test_time_adds_up_over_restarts(tmp_path):
    folder = RunFolder(tmp_path / "outputs" / "x" / "1", started_s=time.time() - 100)
    folder.open(fresh=False)
    folder.tick()
    again = RunFolder(folder.path, started_s=time.time() - 50)
    assert 149 < again.elapsed_s() < 152


def test_a_tick_writes_at_most_every_two_seconds(tmp_path):
    folder = RunFolder(tmp_path, started_s=time.time())
    folder.tick()
    first = (tmp_path / "elapsed.json").stat().st_mtime_ns
    folder.tick()
    assert (tmp_path / "elapsed.json").stat().st_mtime_ns == first


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
