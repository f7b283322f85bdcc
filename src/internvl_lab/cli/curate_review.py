"""`curate review`: look at what `curate` flagged, keep or reject it, in the terminal or in a local page.

Decisions go to `reviews.jsonl` in the same folder; the next `curate` run obeys them.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_lab.curation.review import FlaggedFile, ReviewLog


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--in", dest="folder", type=Path, required=True, help="output folder of `curate`")
    parser.add_argument("--web", action="store_true", help="serve a page on 127.0.0.1 instead of asking here")
    parser.add_argument("--port", type=int, default=0, help="port of the page; default: a free one")
    parser.add_argument("--by", help="who decides; default: your login name")
    parser.add_argument("--rule", help="only samples that this rule rejected")
    parser.add_argument("--again", action="store_true", help="also samples that are decided already (terminal)")


def execute(args: argparse.Namespace) -> None:
    """Review until the last sample, `q`, or Ctrl-C."""
    from internvl_lab.curation.review import REVIEWS, FlaggedFile, ReviewLog
    from internvl_lab.errors import ConfigError

    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port} must lie in 0..65535")
    info = logging.getLogger(__name__).info
    flagged, log = FlaggedFile(args.folder, args.rule), ReviewLog(args.folder / REVIEWS)
    by = args.by or _login_name()
    if not len(flagged):
        info("%s: nothing is flagged", args.folder)
        return
    if args.web:
        _serve(flagged, log, by, args.port)
    else:
        from rich.console import Console

        from internvl_lab.curation.review.terminal import read_key, review_in_terminal

        review_in_terminal(flagged, log, by, Console(), read_key, args.again)
    decided = sum(key in log.decisions for key in flagged.keys)
    info("%d of %d flagged samples decided: %s", decided, len(flagged), args.folder / REVIEWS)


def _login_name() -> str:
    import getpass

    from internvl_lab.errors import ConfigError

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:  # KeyError and ImportError before Python 3.13
        raise ConfigError("this machine knows no login name: say who decides with --by NAME") from error


def _serve(flagged: FlaggedFile, log: ReviewLog, by: str, port: int) -> None:
    from internvl_lab.curation.review.server import ReviewServer
    from internvl_lab.errors import ConfigError

    try:
        server = ReviewServer(flagged, log, by, port)
    except OSError as error:
        raise ConfigError(f"--port {port} cannot be used: {error.strerror}") from error
    logging.getLogger(__name__).info("open %s   (Ctrl-C ends)", server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
