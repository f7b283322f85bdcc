import json
import tarfile

from internvl_lab.cli import main


def records(folder):
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            found += [json.load(shard.extractfile(m)) for m in shard.getmembers() if m.name.endswith(".json")]
    return found


def test_shards_with_a_share_of_loops(tmp_path, caplog):
    command = ["loops", "--out", str(tmp_path / "loops"), "--share", "0.25", "--samples", "24", "--processes", "1"]
    with caplog.at_level("INFO"):
        assert main([*command, "--task", "counting", "--task", "text_only"]) == 0
    found = records(tmp_path / "loops")
    assert len(found) == 24
    assert sum("loop" in record for record in found) == 6
    assert {record["task"] for record in found} == {"counting", "text_only"}
    assert f"data.mixtures.finetune.finetune.shards={tmp_path / 'loops'}" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["loops"]


def test_an_unknown_task_is_one_line(tmp_path, capsys):
    assert main(["loops", "--out", str(tmp_path / "x"), "--share", "0.1", "--task", "nope"]) == 2
    assert "unknown nope" in capsys.readouterr().err


def test_an_impossible_share_leaves_an_older_folder_alone(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old.tar").write_bytes(b"")
    assert main(["loops", "--out", str(tmp_path / "x"), "--share", "7", "--samples", "2"]) == 2
    assert (tmp_path / "x" / "old.tar").is_file()
