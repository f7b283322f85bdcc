"""Every command of the README is executed, or at least parsed: what it promises must exist."""

import re
import shlex
from pathlib import Path

import pytest

from internvl_lab.cli import parse
from internvl_lab.config.compose import compose, compose_raw, plain, typed_config
from internvl_lab.run import Invocation, run

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:bash|console|sh)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ").split("  #")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.removeprefix("$ ").startswith(("python ", "make", "git ", "conda "))
]
TRAIN = [shlex.split(c)[2:] for c in COMMANDS if c.startswith("python train.py")]
ONLY_COMPOSED = ("scale=full", "trainer=ddp", "logger=wandb", "plan=true")
"""Overrides of a cluster, of real weights or of an account: such a line is composed, not run."""


def is_tiny(overrides):
    """Whether a command can run here with `debug=tiny`."""
    return not any(word.startswith(ONLY_COMPOSED) or "DIR" in word or word == "-m" for word in overrides)


def test_the_readme_is_short_and_shows_the_two_commands_early():
    lines = README.splitlines()
    assert len(lines) <= 200
    assert any("git clone" in line for line in lines[:30])
    assert any("make train" in line for line in lines[:30])
    assert "make test" in README


@pytest.mark.parametrize("overrides", [t for t in TRAIN if not is_tiny(t)], ids=" ".join)
def test_lines_for_clusters_and_full_scale_compose(overrides):
    words = [word.replace("DIR", "/tmp/somewhere") for word in overrides if word != "-m"]
    for word in words:
        for value in word.partition("=")[2].split(",") if "-m" in overrides else [None]:
            choice = word if value is None else f"{word.partition('=')[0]}={value}"
            compose([choice if other == word else other.split(",")[0] for other in words])


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [t for t in TRAIN if is_tiny(t)], ids=lambda t: " ".join(t) or "train.py")
def test_every_training_command_runs(overrides, tmp_path):
    latest = tmp_path / "outputs" / "latest"
    folders = [f"paths.output_dir={tmp_path}/outputs", f"paths.data_dir={tmp_path}/data"]
    if any(word.startswith("init_from=") for word in overrides):
        execute(["debug=tiny", *folders])
    words = [word.replace("outputs/latest", str(latest.resolve())) for word in overrides]
    execute([*words, "debug=tiny", *folders])
    assert latest.is_dir()


def execute(overrides):
    raw = compose_raw(overrides)
    run(typed_config(raw), Invocation(plain(raw), tuple(overrides)))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m internvl_lab")])
def test_every_other_python_command_parses(command):
    parse(shlex.split(command)[3:])


def test_every_make_target_and_file_of_the_readme_exists():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for command in COMMANDS:
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, flags=re.MULTILINE), command
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / link).exists(), link
