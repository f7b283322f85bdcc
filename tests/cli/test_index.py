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
