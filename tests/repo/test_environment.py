"""pyproject, lock, Makefile and environment.yml describe one environment, and none of them names an index."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKED_EXTRAS = ("dev", "notebooks", "joblib")
# Written apart, so that this file does not hold what it forbids.
HOSTS = tuple(
    "".join(parts)
    for parts in (
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("download.", "pytorch.org"),
        ("conda.", "anaconda.org"),
        ("repo.", "anaconda.com"),
        ("registry.", "npmjs.org"),
        ("pypi.", "nvidia.com"),
        ("/opt/", "pypi"),
        ("/opt/", "wheels"),
    )
)
INDEX_OPTIONS = tuple(
    "".join(parts) for parts in (("--index", "-url"), ("--extra-index", "-url"), ("--find", "-links"))
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def project() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads(read("pyproject.toml"))
    return settings


@cache
def locked() -> dict[str, tuple[Requirement, int]]:
    """Parse the lock into {name: (pin with its marker, number of hashes)}."""
    pins: dict[str, tuple[Requirement, int]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", read("requirements.lock")):
        code = "\n".join(line for line in block.splitlines() if not line.lstrip().startswith("#"))
        if not code.strip():
            continue
        requirement = Requirement(code.split("\\")[0].split("--hash")[0].strip())
        name = canonicalize_name(requirement.name)
        assert name not in pins, f"{name} is pinned twice"
        pins[name] = (requirement, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", code)))
    return pins


def pinned_version(name: str) -> Version:
    (specifier,) = locked()[name][0].specifier
    assert specifier.operator == "==", name
    return Version(specifier.version)


def torch_pin() -> str:
    match = re.search(r"^TORCH := (\S+)$", read("Makefile"), re.MULTILINE)
    assert match, "the Makefile pins torch"
    return match[1]


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    declared = project()["project"]
    lines = [
        *declared["dependencies"],
        *(line for extra in extras for line in declared["optional-dependencies"][extra]),
    ]
    return [Requirement(line) for line in lines]


def files_of_the_repository() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_every_declared_dependency_is_locked_inside_its_range() -> None:
    for requirement in wanted(LOCKED_EXTRAS):
        name = canonicalize_name(requirement.name)
        if name == "torch":
            continue
        assert name in locked(), f"{name} is declared and not locked: run 'make lock'"
        assert requirement.specifier.contains(pinned_version(name), prereleases=True), (
            f"{name} is locked outside its range"
        )


def test_every_third_party_import_is_declared() -> None:
    """What comes along with another package today may not tomorrow."""
    declared = {
        canonicalize_name(requirement.name) for requirement in wanted(("flash", "slurm", "joblib", "notebooks", "demo"))
    }
    distributions = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in [*(ROOT / "src").rglob("*.py"), ROOT / "train.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"internvl_lab"}:
                if not {canonicalize_name(name) for name in distributions.get(top, [top])} & declared:
                    undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert undeclared == set()


def test_every_pin_is_hashed_and_the_lock_names_no_address() -> None:
    assert len(locked()) > 50
    assert [name for name, (_, hashes) in locked().items() if not hashes] == []
    lines = read("requirements.lock").splitlines()
    assert [line for line in lines if "://" in line or line.startswith("-") or " @ " in line] == []


def test_torch_is_pinned_once_and_outside_the_hashes() -> None:
    pin = torch_pin()
    assert re.findall(r"^# torch==(\S+)$", read("requirements.lock"), re.MULTILINE) == [pin]
    assert [n for n in locked() if n in ("torch", "triton") or n.startswith(("nvidia-", "cuda-"))] == []
    (declared,) = [requirement for requirement in wanted(()) if requirement.name == "torch"]
    assert declared.specifier.contains(pin)


def test_what_torch_needs_is_locked_where_torch_accepts_it() -> None:
    for line in importlib.metadata.requires("torch") or []:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name == "triton" or name.startswith(("nvidia-", "cuda-")):
            continue
        assert requirement.specifier.contains(pinned_version(name)), f"torch {torch_pin()} needs {requirement}"


def test_conda_environment_agrees() -> None:
    conda = yaml.safe_load(read("environment.yml"))
    assert conda["name"] == project()["project"]["name"]
    plain = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    (python,) = [entry for entry in plain if entry.startswith("python")]
    offered = SpecifierSet(python.removeprefix("python"))
    needed = SpecifierSet(project()["project"]["requires-python"])
    for minor in range(8, 20):
        version = f"3.{minor}.1"
        assert not offered.contains(version) or needed.contains(version), f"conda would give Python {version}"
    assert offered.contains("3.12.1")
    assert {"pip", "make", "git"} <= set(plain)
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert pip == [f"torch=={torch_pin()}"], "all other versions stand in requirements.lock, which make setup installs"
    assert f"filter {conda['name']},$(CONDA_DEFAULT_ENV)" in read("Makefile"), "make setup takes the active environment"


def test_python_versions_agree() -> None:
    needed = SpecifierSet(project()["project"]["requires-python"])
    lowest = f"{project()['tool']['mypy']['python_version']}"
    assert project()["tool"]["ruff"]["target-version"] == "py" + lowest.replace(".", "")
    assert needed.contains(f"{lowest}.0")
    assert not needed.contains(f"3.{int(lowest.split('.')[1]) - 1}.9")
    supported = [line for line in project()["project"]["classifiers"] if "Python :: 3." in line]
    assert all(needed.contains(line.rsplit(" ", 1)[1] + ".0") for line in supported)


def test_pillow_stays_below_13() -> None:
    assert pinned_version("pillow").major == 12


def test_this_environment_is_the_locked_one() -> None:
    if not (Path(sys.prefix) / ".ready").exists():
        pytest.skip("not an environment made by make setup")
    assert Version(importlib.metadata.version("torch")).public == torch_pin()
    wrong = {}
    for name, (requirement, _) in locked().items():
        if requirement.marker is None or requirement.marker.evaluate():
            found = importlib.metadata.version(name)
            if Version(found) != pinned_version(name):
                wrong[name] = found
    assert wrong == {}


def test_no_file_names_a_registry_or_an_index() -> None:
    found = []
    for path in files_of_the_repository():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in (*HOSTS, *INDEX_OPTIONS) if word in text]
    assert found == []


def test_package_data_and_entry_point_exist() -> None:
    assert (ROOT / "src/internvl_lab/py.typed").is_file()
    assert {"py.typed", "assets/**"} <= set(project()["tool"]["setuptools"]["package-data"]["internvl_lab"])
    module, _, function = project()["project"]["scripts"]["internvl-lab"].partition(":")
    source = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
    assert re.search(rf"^(?:def|from \S+ import .*)\b{function}\b", source.read_text(encoding="utf-8"), re.MULTILINE)


def test_version_agrees_with_the_citation() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == project()["project"]["version"]
    assert citation["license"] == project()["project"]["license"]
    assert "2412.05271" in str(citation["references"])
