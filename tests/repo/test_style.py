"""House rules that no linter knows: sizes, docstrings with shapes, a test module for every module."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "internvl_lab"
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 350
MAX_TRAIN_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
Node = Function | ast.ClassDef

# "(1, T, D)", "(N,h*r,w*r,C/r^2)", "(S+1,)", "(..., D)"; or words that say the same.
SHAPE = re.compile(
    r"\(\s*(?:[\w.*/+^-]+\s*,\s*)+(?:[\w.*/+^-]+)?\s*\)|\(\)|\bscalars?\b|\b0-d\b|\bany shape\b|\bsame shape\b",
    re.IGNORECASE,
)
TENSOR = re.compile(r"\b(?:Tensor|ndarray|NDArray)\b")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def all_python() -> list[Path]:
    train = ROOT / "train.py"
    return [*sources(), *sorted((ROOT / "tests").rglob("*.py")), *([train] if train.exists() else [])]


def name_of(path: Path, node: Node | None = None) -> str:
    place = path.relative_to(ROOT).as_posix()
    return place if node is None else f"{place}:{node.lineno} {node.name}"


def public(body: list[ast.stmt]) -> Iterator[Node]:
    """Yield public classes, functions and methods; what is nested in a function is nobody's interface."""
    for node in body:
        if isinstance(node, Node) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def repeats_another(node: Node) -> bool:
    """Tell whether a function only completes another one's documentation: a setter or an overload."""
    names = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
    return bool(names & {"setter", "deleter", "overload"})


def annotated_types(function: Function) -> str:
    arguments = function.args
    each = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    found = [argument.annotation for argument in each if argument is not None and argument.annotation is not None]
    return " ".join(ast.unparse(node) for node in [*found, *([function.returns] if function.returns else [])])


def test_functions_have_at_most_60_lines() -> None:
    long = [
        f"{name_of(path, node)}: {node.end_lineno - node.lineno + 1} lines"
        for path in all_python()
        for node in ast.walk(tree(path))
        if isinstance(node, Function) and node.end_lineno and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_files_have_at_most_350_lines() -> None:
    counts = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in all_python()}
    assert {name: count for name, count in counts.items() if count > MAX_FILE_LINES} == {}
    assert counts.get("train.py", 0) <= MAX_TRAIN_LINES


def test_everything_public_has_a_docstring() -> None:
    missing = [name_of(path) for path in sources() if ast.get_docstring(tree(path)) is None]
    for path in sources():
        nodes = [node for node in public(tree(path).body) if not repeats_another(node)]
        missing += [name_of(path, node) for node in nodes if not ast.get_docstring(node)]
    assert not missing, "\n".join(missing)


def test_tensors_have_their_shapes_stated() -> None:
    silent = []
    for path in sources():
        for node in public(tree(path).body):
            # Lightning's own hooks ("on_...") have the framework's contract, not ours.
            if isinstance(node, ast.ClassDef) or repeats_another(node) or node.name.startswith("on_"):
                continue
            if TENSOR.search(annotated_types(node)) and not SHAPE.search(ast.get_docstring(node) or ""):
                silent.append(name_of(path, node))
    assert not silent, "\n".join(silent)


def test_every_module_with_code_has_its_test_module() -> None:
    tests = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    modules: Counter[str] = Counter()
    for path in sources():
        if path.name in ("__init__.py", "__main__.py"):
            continue
        if any(isinstance(node, Function) for node in ast.walk(tree(path))):
            modules[f"test_{path.name}"] += 1
    missing = sorted(f"{count - tests[name]} x {name}" for name, count in modules.items() if tests[name] < count)
    assert not missing, "\n".join(missing)


def test_test_folders_are_no_packages() -> None:
    """Importmode importlib needs no __init__.py, and one would let two tests of the same name collide."""
    assert [name_of(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_no_prints_and_no_loose_ends() -> None:
    loose_end = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    found = [name_of(path) for path in all_python() if loose_end.search(path.read_text(encoding="utf-8"))]
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"{name_of(path)}:{node.lineno} print")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("docstring", "stated"),
    [
        ("Map (1, T) to (1,T,D).", True),
        ("Unshuffle (N,h,w,C) to (N,h*r,w*r,C/r^2).", True),
        ("Give offsets (S+1,) int32.", True),
        ("Return a scalar.", True),
        ("Return logits (see above).", False),
        ("Return the loss (for example, nothing).", False),
    ],
)
def test_the_shape_rule_itself(docstring: str, stated: bool) -> None:
    assert bool(SHAPE.search(docstring)) is stated
