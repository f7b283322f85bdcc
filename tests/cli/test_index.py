import json
import logging
import tarfile

from internvl_lab.cli import main


def test_says_how_many_samples_and_what_is_wrong(tmp_path, caplog):
    main(["miniworld", "--out", str(tmp_path), "--pretrain", "11", "--finetune", "0", "--val", "0"])
    with caplog.at_level(logging.INFO):
        assert main(["index", "--shards", str(tmp_path / "pretrain")]) == 0
    assert "11 samples, 0 problems" in caplog.text


def test_a_truncated_shard_is_one_clear_error(tmp_path, capsys):
    main(["miniworld", "--out", str(tmp_path), "--pretrain", "11", "--finetune", "0", "--val", "0"])
    shard = next((tmp_path / "pretrain").glob("*.tar"))
    assert tarfile.is_tarfile(shard)
    shard.write_bytes(shard.read_bytes()[:-20000])
    for sidecar in (tmp_path / "pretrain").glob("*.npz"):
        sidecar.unlink()
    assert main(["index", "--shards", str(tmp_path / "pretrain")]) == 2
    assert shard.name in capsys.readouterr().err


def test_long_samples_and_damage_are_reported(tmp_path, caplog):
    main(["miniworld", "--out", str(tmp_path), "--pretrain", "11", "--finetune", "0", "--val", "0"])
    shard = next((tmp_path / "pretrain").glob("*.tar"))
    options = ["--shards", str(tmp_path / "pretrain"), "--workers", "2"]
    report = tmp_path / "problems.jsonl"
    with caplog.at_level(logging.INFO, logger="internvl_lab"):
        assert main(["index", *options, "--max-tokens", "40", "--max-tiles", "1", "--report", str(report)]) == 0
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert 0 < len(lines) <= 11 and f"11 samples, {len(lines)} problems" in caplog.text
    assert {line["reason"] for line in lines} <= {"over_max_tokens", "over_max_tiles"}
    assert all(line["shard"] == shard.name and line["key"] and "> " in line["detail"] for line in lines)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="internvl_lab"):
        assert main(["index", *options, "--max-tokens", "100000"]) == 0
    assert "11 samples, 0 problems" in caplog.text
