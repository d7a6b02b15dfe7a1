"""Imports point down only, never in a circle, and each room keeps to the libraries it may know (STYLE 2)."""

import sys

import pytest

LAYERS = {  # the table of STYLE.md, section 2; reports stand above recipes, which they describe (dev/LOG.md says why)
    "core": 0,
    "assets": 1,
    "tokenizers": 1,
    "model": 1,
    "quantization": 2,
    "data": 3,
    "generation": 3,
    "checkpoints": 3,
    "evaluation": 4,
    "inspection": 4,
    "training": 5,
    "finetuning": 6,
    "serving": 7,
    "recipes": 7,
    "reports": 8,
    "book": 8,
    "labs": 8,
    "cli": 9,
    "__main__": 10,
    "__init__": 10,  # its attributes are lazy, so it may name every room
}
LIBRARIES_OF_CORE = {"torch", "numpy", "psutil", "tomli"}  # tomli: tomllib, for Python 3.10
OWN_NAMES_OF_THE_ROOT = {"__version__"}


def wrong_ways(source) -> list[str]:
    """Imports that point sideways, up, or at no room of the house."""
    found = []
    if source.room not in LAYERS:
        return [f"{source.module} lies in {source.room!r}, which is no room of the house"]
    for module, name, node in source.imports():
        if module.split(".")[0] != "scratchlm":
            continue
        if module == "scratchlm":
            if name in OWN_NAMES_OF_THE_ROOT:
                continue
            room = name or "__init__"
        else:
            room = module.split(".")[1]
        is_down = room in LAYERS and LAYERS[room] < LAYERS[source.room]
        if room != source.room and not is_down:
            found.append(f"{source.module}:{node.lineno} imports {room}, which is not below {source.room}")
    return found


def edges(sources) -> dict[str, set[str]]:
    """Which module of the package names which others."""
    known = {source.module for source in sources}
    graph: dict[str, set[str]] = {}
    for source in sources:
        graph[source.module] = set()
        for module, name, _ in source.imports():
            target = f"{module}.{name}" if f"{module}.{name}" in known else module
            if target in known:
                graph[source.module].add(target)
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or nothing."""
    done: set[str] = set()

    def walk(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph[module]):
            if found := walk(target, [*trail, module]):
                return found
        done.add(module)
        return []

    for module in graph:
        if found := walk(module, []):
            return found
    return []


def foreign_libraries(source, allowed: set[str]) -> list[str]:
    """Imports of third-party libraries that this room should not know."""
    return [
        f"{source.module}:{node.lineno} imports {module}"
        for module, _, node in source.imports()
        if module.split(".")[0] not in {"scratchlm", *allowed, *sys.stdlib_module_names}
    ]


def imports_torch(source) -> list[str]:
    return [
        f"{source.module}:{node.lineno}"
        for module, _, node in source.imports()
        if module.split(".")[0] == "torch"
    ]


def test_imports_point_down_only(package):
    wrongs = [wrong for source in package for wrong in wrong_ways(source)]
    assert wrongs == [], "\n" + "\n".join(wrongs)


def test_no_imports_go_in_a_circle(package):
    assert cycle(edges(package)) == []


def test_core_knows_few_libraries(package):
    sources = [source for source in package if source.room == "core"]
    wrongs = [wrong for source in sources for wrong in foreign_libraries(source, LIBRARIES_OF_CORE)]
    assert wrongs == [], "\n" + "\n".join(wrongs)


def test_tokenizers_know_no_tensors(package):
    assert [
        wrong for source in package if source.room == "tokenizers" for wrong in imports_torch(source)
    ] == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("scratchlm.core.files", "from scratchlm.model.gpt import GPTModel"),
        ("scratchlm.core.files", "def f():\n    import scratchlm.training.trainer"),
        ("scratchlm.model.gpt", "from scratchlm.tokenizers import bpe"),
        ("scratchlm.data.windows", "from scratchlm import generation"),
        ("scratchlm.data.windows", "from ..generation import generate"),
        ("scratchlm.training.trainer", "from scratchlm import load"),
        ("scratchlm.recipes.recipe", "from scratchlm.cli import main"),
        ("scratchlm.data.windows", "import scratchlm"),
        ("scratchlm.extras.thing", "x = 1"),
    ],
)
def test_the_rule_finds_an_import_that_does_not_point_down(example, module, text):
    assert len(wrong_ways(example(text, module))) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            "scratchlm.cli.run",
            "from scratchlm.recipes.recipe import run_recipe\nfrom scratchlm.book import ch02",
        ),
        ("scratchlm.training.trainer", "from scratchlm.data.loaders import BatchLoader\nimport torch"),
        ("scratchlm.data.windows", "from . import loaders\nfrom scratchlm import __version__"),
        ("scratchlm.__main__", "from scratchlm.cli.main import main"),
    ],
)
def test_the_rule_lets_imports_that_point_down_pass(example, module, text):
    assert wrong_ways(example(text, module)) == []


def test_the_rule_finds_a_circle_also_through_a_package(example):
    sources = [
        example("from scratchlm.model.b import B", "scratchlm.model", is_package=True),
        example("from scratchlm.model.c import C", "scratchlm.model.b"),
        example("from scratchlm.model import B", "scratchlm.model.c"),
    ]
    assert cycle(edges(sources)) == [
        "scratchlm.model",
        "scratchlm.model.b",
        "scratchlm.model.c",
        "scratchlm.model",
    ]
    assert cycle(edges(sources[:2])) == []


def test_the_rule_finds_a_library_that_core_should_not_know(example):
    assert len(foreign_libraries(example("import os\nimport torch\nimport tyro"), LIBRARIES_OF_CORE)) == 1


def test_the_rule_finds_a_tensor_in_a_tokenizer(example):
    assert imports_torch(example("from torch import Tensor", "scratchlm.tokenizers.bpe")) != []
