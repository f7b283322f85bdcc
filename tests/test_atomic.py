from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from internvl_lab.atomic import held, write_atomic
from internvl_lab.errors import ConfigError


def test_the_new_text_replaces_the_old_and_nothing_lies_beside(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "deep" / "file.txt", "old")
    write_atomic(path, "neu ü")
    assert path.read_text(encoding="utf-8") == "neu ü"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomic(tmp_path / "file.bin", b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_threads_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"

    def write(text: str) -> None:
        for _ in range(50):
            write_atomic(path, text)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write, str(number) * 1000) for number in range(4)]:
            future.result()
    assert path.read_text(encoding="utf-8") in {str(number) * 1000 for number in range(4)}
    assert [p.name for p in tmp_path.iterdir()] == ["clock.json"]


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match="out: wait for it or choose another out")
    with held(tmp_path / "out", "out"), refused, held(tmp_path / "out", "out"):
        pass
    with held(tmp_path / "out", "out"):
        assert (tmp_path / "out").is_dir()
