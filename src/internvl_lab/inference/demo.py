"""The report's demo as a local web page: upload pictures, see their tiles, ask, read the answer as it comes.

Needs the extra `demo` (gradio), which is imported here alone. The page is bound to 127.0.0.1, brings its own fonts and
asks nobody else for anything; the model answers one question at a time.
"""

from __future__ import annotations

import html
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from internvl_lab.config import SamplingConfig
from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.inference.chat import Assistant, read_image
from internvl_lab.inference.processor import Processor
from internvl_lab.models.internvl import InternVL

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"
TITLE = "internvl-lab"
FONTS = ("system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")
LONGEST_ANSWER = 2048
CSS = """
.gradio-container { width: 100% !important; max-width: 1240px !important; margin: auto !important; }
footer, button[aria-label="Share"], button[title="Share"] { display: none !important; }
"""

logger = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()


def import_gradio() -> Any:
    """Import gradio with its reports to its makers switched off.

    Raises:
        ConfigError: it is not installed; says how to install it.
    """
    # read at import; the page must work, and stay, on a machine without network
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ConfigError("the web page needs gradio: pip install 'internvl-lab[demo]'") from error
    return gradio


class Demo:
    """Answer what the page sends; a conversation's state stays with its browser tab.

    Args:
        model, processor: what answers.
        sampling, max_new_tokens: where the page's settings start.
        name: what the page calls the model.
    """

    def __init__(
        self, model: InternVL, processor: Processor, sampling: SamplingConfig, max_new_tokens: int, name: str
    ) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.sampling, self.max_new_tokens = sampling, max_new_tokens

    def build(self) -> gradio.Blocks:
        """Build the page.

        Raises:
            ConfigError: gradio is not installed.
        """
        gr = import_gradio()
        page: gradio.Blocks = gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True)
        with page:
            gr.Markdown(
                f"## {TITLE}\nAsk **{html.escape(self.name)}** about pictures. Everything stays on this machine."
            )
            history, seen = gr.State(lambda: ([], [])), gr.State(list)
            with gr.Row():
                with gr.Column(scale=5, min_width=420):
                    chat = gr.Chatbot(label="Conversation", height=540, buttons=["copy"])
                    box = gr.MultimodalTextbox(
                        placeholder="Attach pictures and ask a question",
                        file_types=["image"],
                        file_count="multiple",
                        show_label=False,
                        stop_btn=True,
                        elem_id="question",
                    )
                    clear = gr.Button("New conversation", size="sm")
                with gr.Column(scale=4, min_width=420):
                    gr.Markdown("#### Tiles the model sees")
                    tiles = gr.Gallery(
                        show_label=False, columns=4, height=250, object_fit="contain", buttons=[], elem_id="tiles"
                    )
                    settings = self._settings(gr)
            box.change(self.preview, [box, seen], [tiles, seen], show_progress="hidden")
            asked = box.submit(self.respond, [box, chat, history, *settings], [box, chat, history], concurrency_limit=1)
            box.stop(None, cancels=[asked])
            chat.clear(lambda: ([], []), None, history, cancels=[asked])
            clear.click(lambda: (None, [], ([], []), None), None, [box, chat, history, tiles], cancels=[asked])
        return page

    def _settings(self, gr: Any) -> list[Any]:
        """Add the sampling settings: temperature, top-p, top-k, repetition penalty, length, seed."""
        start = self.sampling
        with gr.Accordion("Sampling", open=True):
            gr.Markdown("Temperature 0 is greedy; top-k 0 keeps all tokens; a repetition penalty of 1 is none.")
            with gr.Row():
                temperature = gr.Slider(0.0, 2.0, start.temperature, step=0.05, label="Temperature")
                top_p = gr.Slider(0.05, 1.0, start.top_p, step=0.05, label="Top-p")
            with gr.Row():
                top_k = gr.Slider(0, 200, start.top_k, step=1, label="Top-k")
                penalty = gr.Slider(1.0, 2.0, start.repetition_penalty, step=0.05, label="Repetition")
            with gr.Row():
                length = gr.Slider(1, LONGEST_ANSWER, self.max_new_tokens, step=1, label="Max tokens")
                seed = gr.Number(start.seed, precision=0, minimum=0, label="Seed")
        return [temperature, top_p, top_k, penalty, length, seed]

    def preview(self, message: dict[str, Any] | None, seen: list[str]) -> tuple[Any, list[str]]:
        """Show the tiles of newly attached pictures; a file that is none is told once it is sent.

        Every key stroke calls this, and gradio would write the same files anew while the browser reads them; so
        without new pictures nothing changes. After a question its tiles stay in sight.
        """
        files = [str(file) for file in (message or {}).get("files", [])]
        if not files or files == seen:
            return import_gradio().skip(), seen
        try:
            return label_tiles(self.processor, [read_image(Path(file)) for file in files]), files
        except InternVLLabError:
            return [], files

    def respond(
        self,
        message: dict[str, Any],
        shown: list[Any],
        history: tuple[list[Any], list[Image.Image]],
        temperature: float,
        top_p: float,
        top_k: int,
        repetition_penalty: float,
        max_new_tokens: int,
        seed: int,
    ) -> Iterator[tuple[Any, list[Any], tuple[list[Any], list[Image.Image]]]]:
        """Yield (question box, conversation as shown, history) while the answer grows."""
        gr = import_gradio()
        text, files = (message.get("text") or "").strip(), message.get("files") or []
        if not text:
            gr.Warning("Write a question first.")
            yield gr.skip(), shown, history
            return
        asked = [*shown, *({"role": "user", "content": {"path": str(file)}} for file in files)]
        asked.append({"role": "user", "content": escape(text)})
        yield {"text": "", "files": []}, asked, history
        turns, images = history
        try:
            sampling = SamplingConfig(temperature, top_p, int(top_k), repetition_penalty, seed=int(seed))
            assistant = Assistant(self.model, self.processor, int(max_new_tokens), sampling, list(turns), list(images))
            new = [read_image(Path(file)) for file in files]
            reply = ""
            with _one_at_a_time:
                for piece in assistant.stream(text, new):
                    reply += piece
                    yield gr.skip(), [*asked, _says(reply)], history
            yield gr.skip(), [*asked, _says(reply or "(empty answer)")], (assistant.turns, assistant.images)
        except InternVLLabError as error:
            gr.Warning(html.escape(str(error)))
            yield message, shown, history  # the question comes back, to be changed


def _says(reply: str) -> dict[str, str]:
    """Make the model's message."""
    return {"role": "assistant", "content": escape(reply)}


def escape(text: str) -> str:
    r"""Show a text as it is: `<box>` and `\boxed{}` are no markup of the page's; line breaks stay."""
    return html.escape(text, quote=False).replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_")


def label_tiles(processor: Processor, images: list[Image.Image]) -> list[tuple[Image.Image, str]]:
    """Cut pictures into the tiles that the model would see; each with its place as a caption."""
    labelled = []
    for number, tiles in enumerate(processor.tile(images), 1):
        last = len(tiles) if len(tiles) > 1 and processor.tiling.use_thumbnail else 0
        for place, tile in enumerate(tiles, 1):
            what = "thumbnail" if place == last else f"tile {place}"
            labelled.append((Image.fromarray(tile), f"picture {number}, {what}" if len(images) > 1 else what))
    return labelled


def serve(demo: Demo, port: int, block: bool = True) -> gradio.Blocks:
    """Serve a page on this machine, until interrupted.

    Args:
        demo: what answers.
        port: 0 takes any free one.
        block: wait; else return at once.
    Raises:
        ConfigError: gradio is not installed, or the port is taken.
    """
    gr = import_gradio()
    page = demo.build()
    theme = gr.themes.Default(font=list(FONTS), font_mono=list(MONO))
    try:
        page.launch(
            server_name=HOST,
            server_port=port or None,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            theme=theme,
            css=CSS,
            ssr_mode=False,
            footer_links=[],
        )
    except OSError as error:
        raise ConfigError(f"--port {port} cannot be used: {error}") from error
    logger.info("the page is at %s (Ctrl+C ends it)", page.local_url)
    if block:
        page.block_thread()
    return page
