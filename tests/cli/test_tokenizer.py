from internvl_lab.cli import main
from internvl_lab.text import load_tokenizer


def test_the_shipped_tokenizer_can_be_made_again(tmp_path):
    assert main(["tokenizer", "--out", str(tmp_path)]) == 0
    made, shipped = load_tokenizer(tmp_path), load_tokenizer("asset:tokenizer")
    assert made.get_vocab() == shipped.get_vocab()
