"""Tables of a language model, resized as the authors resize them; numbers by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from internvl_lab.checkpoints.vocabulary import EMBEDDINGS, HEAD, Vocabulary, plan_vocabulary
from internvl_lab.text import train_tokenizer


def test_output_rows_get_the_mean_of_all_others_and_input_rows_do_not() -> None:
    table = torch.tensor([[1.0, 0.0], [3.0, 4.0], [100.0, 100.0]])
    vocabulary = Vocabulary(num_rows=4, num_added=2)
    assert vocabulary.fit(HEAD, table).tolist() == [[1, 0], [3, 4], [2, 2], [2, 2]]
    rows = vocabulary.fit(EMBEDDINGS, table)
    assert torch.equal(rows[:3], table)
    assert rows[3].abs().max() < 0.1
    assert torch.equal(rows, vocabulary.fit(EMBEDDINGS, table))


def test_rows_are_cut_where_the_tokenizer_ends() -> None:
    table = torch.arange(10.0, dtype=torch.float32)[:, None].bfloat16()
    fitted = Vocabulary(num_rows=6, num_added=2).fit(HEAD, table)
    assert fitted.dtype == torch.bfloat16
    assert fitted[:, 0].tolist() == [0, 1, 2, 3, 1.5, 1.5]


def test_other_tensors_and_shapes_without_data_pass() -> None:
    other = torch.ones(3, 2)
    assert Vocabulary(9, 9).fit("model.language_model.norm.weight", other) is other
    assert Vocabulary(9, 9).fit(HEAD, other.to("meta")).shape == (9, 2)


@pytest.mark.parametrize(("rows", "expected"), [(151_936, 151_674), (152_064, 151_674), (92_544, 92_553)])
def test_published_tables_without_tokenizer_get_the_published_size(rows: int, expected: int, tmp_path: Path) -> None:
    assert plan_vocabulary(tmp_path, rows) == Vocabulary(expected, 9)


def test_the_tokenizer_decides_where_there_is_one(tmp_path: Path) -> None:
    train_tokenizer(["a red circle"] * 9, 300).save_pretrained(tmp_path)
    assert plan_vocabulary(tmp_path, 320) == Vocabulary(300, 0)  # it has the nine tokens already
