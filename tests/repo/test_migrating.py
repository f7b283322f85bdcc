"""Every override that MIGRATING.md promises composes, and every command parses."""

import re
import shlex
from pathlib import Path

import pytest

from internvl_lab import compose
from internvl_lab.cli import build_parser
from internvl_lab.errors import ConfigError

PAGE = (Path(__file__).resolve().parents[2] / "MIGRATING.md").read_text(encoding="utf-8")
CODES = [code for line in PAGE.splitlines() if line.startswith("|") for code in re.findall(r"`([^`]+)`", line)]
OVERRIDE = re.compile(r"\+?[a-z][\w./]*=\S+")


def overrides_of(code):
    """Return the overrides in a piece of code; none where it is something else."""
    words = shlex.split(code.removeprefix("python train.py"), comments=True)
    return [word.replace("DIR", "/tmp/x").replace("FILE", "/tmp/x.ckpt") for word in words if OVERRIDE.fullmatch(word)]


OVERRIDES = sorted({code for code in CODES if overrides_of(code)})


def test_the_page_is_read_whole():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| theirs", "| wish"))]
    said = [line for line in rows if "always" in line or "SIGTERM" in line or any(code in line for code in OVERRIDES)]
    assert said == rows
    assert len(OVERRIDES) >= 50


@pytest.mark.parametrize("code", OVERRIDES)
def test_every_override_composes(code):
    words = overrides_of(code)
    assert len(words) == len(shlex.split(code.removeprefix("python train.py")))
    compose(words if "scale=full" in words else ["scale=full", *words])


def test_a_wrong_override_would_be_found():
    with pytest.raises(ConfigError, match="unknown key"):
        compose(overrides_of("packing.max_tokns=1"))


def test_commands_parse():
    commands = [code for code in CODES if code.startswith("python -m internvl_lab")]
    assert commands
    for command in commands:
        build_parser().parse_args(shlex.split(command)[3:])
