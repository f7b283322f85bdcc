import io
from pathlib import Path

import pytest

from internvl_lab.cli import main

SCENE = Path(__file__).parents[1] / "assets" / "scene.png"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A whole checkpoint with random weights: what it says is noise, that it answers is not."""
    from internvl_lab.api import compose
    from internvl_lab.checkpoints import save_model
    from internvl_lab.config import TilingConfig
    from internvl_lab.models import InternVL
    from internvl_lab.prepare import build_template

    config = compose()
    template = build_template(config)
    folder = tmp_path_factory.mktemp("chat") / "weights"
    model = InternVL(config.model, template.context_id)
    save_model(model, folder, {}, None, template, TilingConfig(112, 16, 1, 6))
    return folder


def test_one_question_is_one_answer(weights, capsys):
    command = ["chat", "--model", str(weights), "--image", str(SCENE), "--question", "Describe the image."]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("\n")


def test_questions_are_read_line_by_line(weights, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 plus 4?\nWhich is larger, 2 or 9?\n"))
    assert main(["chat", "--model", str(weights)]) == 0
    assert capsys.readouterr().out.count("\n") >= 2


def test_a_missing_model_is_one_line(capsys):
    assert main(["chat", "--model", "/nowhere", "--question", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
