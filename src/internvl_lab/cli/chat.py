"""`chat`: ask a trained checkpoint about images or a video, in the terminal or on a local web page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from internvl_lab.inference import Assistant

HELP = "/image FILE adds a picture to your next question, /reset begins anew, /quit ends"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--model", default="outputs/latest", help="run folder, weights folder or asset:NAME")
    parser.add_argument("--image", type=Path, action="append", default=[], help="may be given several times")
    parser.add_argument("--video", type=Path, help="a video; a folder of frames or a GIF always works")
    parser.add_argument("--frames", type=int, default=8, help="of the video")
    parser.add_argument("--question", help="ask once and exit; without it, a conversation begins")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=0, help="0 = all tokens")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="1 = off")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--web", action="store_true", help="open a page on 127.0.0.1 instead (extra: demo)")
    parser.add_argument("--port", type=int, default=7860, help="of the page")


def execute(args: argparse.Namespace) -> None:
    """Answer the question, hold a conversation, or serve the page."""
    from internvl_lab.api import load
    from internvl_lab.config import SamplingConfig
    from internvl_lab.errors import ConfigError
    from internvl_lab.inference import Assistant
    from internvl_lab.inference.chat import read_image, read_video

    if args.video and args.image:
        raise ConfigError("--video and --image: a conversation is about pictures or about one video")
    if args.frames < 1:
        raise ConfigError("--frames must be at least 1")
    sampling = SamplingConfig(args.temperature, args.top_p, args.top_k, args.repetition_penalty, seed=args.seed)
    if args.web:
        from internvl_lab.inference.demo import Demo, import_gradio, serve

        if args.image or args.video or args.question is not None:
            raise ConfigError(
                "--web: pictures and questions are given on the page; leave out --image, --video, --question"
            )
        import_gradio()
        serve(Demo(*load(args.model), sampling, args.max_new_tokens, args.model), args.port)
        return
    images = read_video(args.video, args.frames) if args.video else [read_image(path) for path in args.image]
    assistant = Assistant(*load(args.model), args.max_new_tokens, sampling)
    if args.question is not None:
        _say(assistant.stream(args.question, images, bool(args.video)))
        return
    _converse(assistant, images, bool(args.video), _lines())


def _lines() -> Iterator[str]:
    """Read questions; at a terminal with a prompt and the line editor, else line by line."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401  # input() then has history and cursor keys

    sys.stdout.write(f"{HELP}\n")
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return


def _converse(assistant: Assistant, images: list[Image.Image], is_video: bool, lines: Iterable[str]) -> None:
    """Answer line by line; what is wrong with one line is said, and the conversation goes on with its pictures."""
    from internvl_lab.errors import ConfigError, InternVLLabError
    from internvl_lab.inference.chat import read_image

    waiting = list(images)
    for line in map(str.strip, lines):
        command, _, rest = line.partition(" ")
        try:
            if command == "/quit":
                return
            if command == "/reset":
                assistant.reset()
                waiting, is_video = [], False
            elif command == "/image":
                if is_video:
                    raise ConfigError("a video stands alone in its conversation: ask about it, or /reset before /image")
                waiting.append(read_image(Path(rest.strip())))
            elif command.startswith("/"):
                sys.stderr.write(f"{HELP}\n")
            elif line:
                _say(assistant.stream(line, waiting, is_video and bool(waiting)))
                waiting = []
        except InternVLLabError as error:
            sys.stderr.write(f"error: {error}\n")
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            sys.stdout.write("\n(stopped, and not remembered; at the prompt Ctrl+C ends)\n")


def _say(pieces: Iterable[str]) -> None:
    """Write an answer as it comes."""
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
