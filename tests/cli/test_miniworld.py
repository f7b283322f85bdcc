from internvl_lab.cli import main


def test_generates_the_three_splits(tmp_path):
    assert main(["miniworld", "--out", str(tmp_path), "--pretrain", "11", "--finetune", "11", "--val", "11"]) == 0
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"pretrain", "finetune", "val"}
