"""The web page: its handlers, and the whole of it in a real browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from internvl_lab.api import load
from internvl_lab.config import SamplingConfig
from internvl_lab.errors import ConfigError
from internvl_lab.inference import Assistant, Generator, Processor
from internvl_lab.inference import demo as module
from internvl_lab.inference.demo import Demo, escape, import_gradio, label_tiles, serve
from internvl_lab.models import InternVL

SCENE = Path(__file__).parents[1] / "assets" / "scene.png"
WARNINGS: list[str] = []
SETTINGS = (0.0, 1.0, 0, 1.0, 8, 0)


@pytest.fixture
def demo(model: InternVL, processor: Processor, monkeypatch: pytest.MonkeyPatch) -> Demo:
    monkeypatch.setattr(Generator, "stream", lambda *_: iter(["a ", "<box>"]))
    # gradio takes seconds to import; the test in the browser below uses the real one
    monkeypatch.setattr(module, "import_gradio", lambda: SimpleNamespace(skip=lambda: "skip", Warning=WARNINGS.append))
    WARNINGS.clear()
    return Demo(model, processor, SamplingConfig(), 8, "tiny")


def ask(demo: Demo, text: str, files: list[str], shown: list[Any], history: Any = ([], [])) -> list[Any]:
    """Run the handler and return all it yields."""
    return list(demo.respond({"text": text, "files": files}, shown, history, *SETTINGS))


def test_an_answer_grows_and_enters_the_history(demo: Demo) -> None:
    steps = ask(demo, "What?", [str(SCENE)], [])
    assert steps[0][0] == {"text": "", "files": []}, "the box is emptied at once"
    said = [step[1][-1]["content"] for step in steps]
    assert said == ["What?", "a ", "a &lt;box&gt;", "a &lt;box&gt;"]
    turns, images = steps[-1][2]
    assert [turn.text for turn in turns] == ["<image>\nWhat?", "a <box>"] and len(images) == 1
    assert steps[0][2] == ([], []), "an unfinished answer is no history"
    again = ask(demo, "And?", [], steps[-1][1], steps[-1][2])
    assert len(again[-1][2][0]) == 4 and len(again[-1][1]) == 5


@pytest.mark.parametrize(("text", "files"), [("", []), ("What?", ["/nowhere.png"]), ("Is <image> red?", [])])
def test_a_refused_question_comes_back(demo: Demo, text: str, files: list[str]) -> None:
    last = ask(demo, text, files, [])[-1]
    assert last[1] == [] and last[2] == ([], []) and len(WARNINGS) == 1


def test_preview_shows_new_pictures_only(demo: Demo, tmp_path: Path) -> None:
    tiles, seen = demo.preview({"text": "", "files": [str(SCENE)]}, [])
    assert tiles[-1][1] == "thumbnail" and seen == [str(SCENE)]
    assert demo.preview({"text": "What", "files": [str(SCENE)]}, seen) == ("skip", seen)
    assert demo.preview({"text": "What", "files": []}, seen) == ("skip", seen)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert demo.preview({"files": [str(tmp_path / "broken.png")]}, seen)[0] == []


def test_tiles_have_captions(processor: Processor) -> None:
    wide = Image.new("RGB", (112, 56))
    assert [label for _, label in label_tiles(processor, [wide])] == ["tile 1", "tile 2", "thumbnail"]
    both = label_tiles(processor, [wide, Image.new("RGB", (56, 56))])
    assert [label for _, label in both][-2:] == ["picture 1, thumbnail", "picture 2, tile 1"]
    assert all(tile.size == (56, 56) for tile, _ in both)


def test_what_the_model_says_is_no_markup() -> None:
    assert escape(r"<b> \boxed{2} *a* _b_") == r"&lt;b&gt; \\boxed{2} \*a\* \_b\_"


def test_a_missing_gradio_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"needs gradio: pip install 'internvl-lab\[demo\]'"):
        import_gradio()


@pytest.fixture
def page() -> Iterator[Any]:
    """Open Chromium, as Debian packages it, offline but for this machine."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.set_default_timeout(120_000)  # a loaded machine
        yield tab
        browser.close()


@pytest.mark.browser
@pytest.mark.slow
def test_upload_ask_and_read_the_answer(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    model, processor = load("asset:quickstart")
    expected = Assistant(model, processor).ask("Describe the image.", [Image.open(SCENE)])
    served = serve(Demo(model, processor, SamplingConfig(), 64, "asset:quickstart"), port=0, block=False)
    try:
        assert served.local_url.startswith("http://127.0.0.1:")
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url) if _is_foreign(request.url) else None)
        page.goto(served.local_url)
        page.wait_for_selector("#question textarea")
        page.set_input_files("#question input[type=file]", str(SCENE))
        page.wait_for_selector("#tiles img")
        page.fill("#question textarea", "Describe the image.")
        page.press("#question textarea", "Enter")
        page.wait_for_selector(f"text={expected}")
        page.screenshot(path=str(tmp_path / "demo.png"))
        assert (tmp_path / "demo.png").stat().st_size > 20_000
        page.click("text=New conversation")
        page.wait_for_selector(f"text={expected}", state="detached")
        assert foreign == []
    finally:
        served.close()


def _is_foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))
