"""The ways in stay in step: pyproject.toml, requirements.txt, constraints.txt and the version."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import scratchlm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
NOT_PINNED = ("nvidia-", "cuda-", "triton")  # torch names its own exact builds for GPUs


def requirements(path: Path) -> list[Requirement]:
    lines = (line.partition(" #")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def extra(name: str) -> list[Requirement]:
    """An extra's requirements, with `scratchlm[other]` opened up."""
    found = []
    for text in PROJECT["optional-dependencies"][name]:
        requirement = Requirement(text)
        if requirement.name == "scratchlm":
            found += [inner for other in sorted(requirement.extras) for inner in extra(other)]
        else:
            found.append(requirement)
    return found


def direct() -> list[Requirement]:
    names = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in PROJECT["dependencies"]] + [
        r for name in names for r in extra(name)
    ]


def applies(requirement: Requirement, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def pins(python: str) -> dict[str, Version]:
    """Name and version of each line of constraints.txt that applies to this Python."""
    found: dict[str, Version] = {}
    for requirement in requirements(ROOT / "constraints.txt"):
        [specifier] = requirement.specifier
        assert specifier.operator == "==", f"{requirement} should be one exact version"
        if applies(requirement, python):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is pinned twice for Python {python}"
            found[name] = Version(specifier.version)
    return found


def installed_closure(requirement: Requirement) -> set[str]:
    """What a requirement brings in here, itself included, as far as it is installed."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [requirement]
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        try:
            distribution = importlib.metadata.distribution(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if key in seen:
            continue
        seen.add(key)
        for text in distribution.requires or []:
            inner = Requirement(text)
            extras = ("", *wanted.extras)
            if inner.marker is None or any(inner.marker.evaluate({"extra": name}) for name in extras):
                todo.append(inner)
    return {name for name, _ in seen}


def test_requirements_txt_brings_what_scratchlm_all_brings():
    wanted = [Requirement(text) for text in PROJECT["dependencies"]] + extra("all")
    assert {str(r) for r in requirements(ROOT / "requirements.txt")} == {str(r) for r in wanted}


def test_requirements_txt_also_installs_the_command():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-e ." in lines


@pytest.mark.parametrize("python", SUPPORTED)
def test_every_direct_dependency_has_a_pin_that_it_allows(python):
    pinned = pins(python)
    for requirement in direct():
        if applies(requirement, python):
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_every_package_that_we_bring_in_here_is_pinned():
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    brought = set().union(*(installed_closure(requirement) for requirement in direct()))
    unpinned = {name for name in brought - set(pins(python)) if not name.startswith(NOT_PINNED)}
    assert unpinned == set()


def test_constraints_hold_nothing_that_nobody_brings_in():
    brought = set().union(*(installed_closure(requirement) for requirement in direct()))
    brought |= {
        canonicalize_name(requirement.name) for requirement in direct()
    }  # not installed here, or it is
    elsewhere = {"colorama", "exceptiongroup", "tomli"}  # on Windows; on Python 3.10
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert set(pins(python)) - brought <= elsewhere


def test_the_supported_pythons_are_the_same_everywhere():
    classifiers = {c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert classifiers == set(SUPPORTED)
    assert PROJECT["requires-python"] == ">=3.10,<3.14"


def test_the_version_has_one_source():
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    assert importlib.metadata.version("scratchlm") == scratchlm.__version__
    others = [
        path
        for path in (ROOT / "scratchlm").rglob("*.py")
        if re.search(r"^__version__ =", path.read_text(), re.MULTILINE)
    ]
    assert others == [ROOT / "scratchlm" / "__init__.py"]


def test_the_changelog_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[({re.escape(scratchlm.__version__)}|Unreleased)\]", text, re.MULTILINE)


def test_where_packages_come_from_is_left_to_the_users_own_settings():
    for name in ("requirements.txt", "constraints.txt", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"--(extra-)?index-url|--find-links|https?://", text), name
