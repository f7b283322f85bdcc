import io
import sys
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


def chat(weights, monkeypatch, lines, *options):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return main(["chat", "--model", str(weights), "--max-new-tokens", "4", *options])


def test_a_conversation_knows_commands(weights, capsys, monkeypatch):
    lines = [
        "What?",
        f"/image {SCENE}",
        "And this?",
        "/image /nowhere.png",
        "/hello",
        "/reset",
        "Hm?",
        "/quit",
        "What?",
    ]
    assert chat(weights, monkeypatch, lines) == 0
    captured = capsys.readouterr()
    assert "/nowhere.png" in captured.err and "/image FILE" in captured.err


def test_the_history_is_kept_until_reset(weights, monkeypatch):
    from internvl_lab.inference import Assistant

    seen = []

    def stream(self, question, images, is_video):
        seen.append((len(self.turns), len(images)))
        self.turns = [*self.turns, question, "reply"]
        yield "reply"

    monkeypatch.setattr(Assistant, "stream", stream)
    assert (
        chat(weights, monkeypatch, ["a", "b", "/reset", f"/image {SCENE}", "c", "/quit", "d"], "--image", str(SCENE))
        == 0
    )
    assert seen == [(0, 1), (2, 0), (0, 1)]


def test_a_video_is_a_folder_of_frames(weights, capsys, tmp_path):
    from PIL import Image

    for k in range(3):
        Image.new("RGB", (112, 112), (60 * k, 0, 0)).save(tmp_path / f"{k}.png")
    command = ["chat", "--model", str(weights), "--video", str(tmp_path), "--frames", "2", "--question", "What moves?"]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "/nowhere.png"], "/nowhere.png"),
        (["--image", str(SCENE), "--video", "x"], "--video and --image"),
        (["--video", "/nowhere"], "/nowhere"),
        (["--temperature", "-1"], "temperature"),
        (["--frames", "0"], "--frames"),
        (["--web"], "--web: pictures and questions are given on the page"),
    ],
)
def test_wrong_options_are_one_line(weights, capsys, options, message):
    assert main(["chat", "--model", str(weights), "--question", "x", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_picture_is_no_frame_of_a_video(weights, capsys, monkeypatch, tmp_path):
    from PIL import Image

    from internvl_lab.inference import Assistant

    for k in range(2):
        Image.new("RGB", (112, 112), (60 * k, 0, 0)).save(tmp_path / f"{k}.png")
    seen = []
    monkeypatch.setattr(Assistant, "stream", lambda self, *asked: seen.append((len(asked[1]), asked[2])) or iter(["x"]))
    lines = [f"/image {SCENE}", "What moves?", f"/image {SCENE}", "/reset", f"/image {SCENE}", "What?"]
    assert chat(weights, monkeypatch, lines, "--video", str(tmp_path)) == 0
    assert seen == [(2, True), (1, False)]
    assert capsys.readouterr().err.count("a video stands alone") == 2


def test_pictures_outlive_a_refused_question(weights, capsys, monkeypatch):
    from internvl_lab.inference import Assistant

    seen = []
    stream = Assistant.stream
    monkeypatch.setattr(Assistant, "stream", lambda self, *asked: seen.append(len(asked[1])) or stream(self, *asked))
    assert chat(weights, monkeypatch, ["<|im_end|>?", "What?", "And?"], "--image", str(SCENE)) == 0
    assert seen == [1, 1, 0]
    assert "special_token_in_text" in capsys.readouterr().err


def test_an_interrupted_answer_ends_no_conversation_at_a_terminal(weights, capsys, monkeypatch):
    from internvl_lab.cli.chat import _converse

    class Stopped:
        def stream(self, *asked):
            yield "I "
            raise KeyboardInterrupt

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    _converse(Stopped(), [], False, ["a", "b"])
    assert capsys.readouterr().out.count("stopped") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    with pytest.raises(KeyboardInterrupt):
        _converse(Stopped(), [], False, ["a", "b"])


def test_an_interrupted_command_is_one_line(weights, capsys, monkeypatch):
    from internvl_lab.inference import Assistant

    def stream(self, *asked):
        raise KeyboardInterrupt

    monkeypatch.setattr(Assistant, "stream", stream)
    assert main(["chat", "--model", str(weights), "--question", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_without_gradio_the_web_page_is_refused_in_one_line(weights, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["chat", "--model", str(weights), "--web"]) == 2
    assert "internvl-lab[demo]" in capsys.readouterr().err
