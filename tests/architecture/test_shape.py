"""Every file is a page: explained, short, named after its idea, and the only home of its names."""

import ast
from collections import defaultdict

import pytest

MAX_LINES = 400  # past this, look for the second idea hiding in the file
NAMES_WITHOUT_AN_IDEA = {"util", "utils", "common", "helper", "helpers", "misc"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def missing_docstrings(source) -> list[str]:
    """Public modules, classes, functions and methods that do not say what they do."""
    found = [] if ast.get_docstring(source.tree) else [source.module]

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or node.name.startswith("_"):
                continue
            is_explained_elsewhere = any(
                ast.unparse(decorator).split(".")[-1] in {"overload", "setter", "override"}
                for decorator in node.decorator_list
            )
            if not ast.get_docstring(node) and not is_explained_elsewhere:
                found.append(f"{prefix}.{node.name}")
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{prefix}.{node.name}")

    look(source.tree.body, source.module)
    return found


def too_long(source) -> list[str]:
    """Files that have grown past a page."""
    n_lines = source.text.count("\n")
    return [f"{source.module} has {n_lines} lines, {MAX_LINES} are the most"] if n_lines > MAX_LINES else []


def named_after_nothing(source) -> list[str]:
    """Files and folders whose name does not say what is in them; `book` bears the names of the book's package."""
    return (
        [source.module]
        if source.room != "book" and NAMES_WITHOUT_AN_IDEA & set(source.module.split("."))
        else []
    )


def node_name(node: ast.stmt) -> str:
    """The name of a public class or function; nothing for any other statement."""
    is_public = isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
    return node.name if is_public else ""


def defined_twice(sources) -> list[str]:
    """Public classes and functions that have two homes; `book` bears the book's names, of which some are ours too."""
    homes = defaultdict(list)
    for source in sources:
        if source.room == "book":
            continue
        for node in source.tree.body:
            is_entry_point = node_name(node) == "main" and source.room == "cli"  # one in each command's file
            if node_name(node) and not is_entry_point:
                homes[node_name(node)].append(source.module)
    return [f"{name}: {', '.join(modules)}" for name, modules in homes.items() if len(set(modules)) > 1]


@pytest.mark.parametrize("rule", [missing_docstrings, too_long, named_after_nothing])
def test_the_package_keeps_the_rule(package, rule):
    wrongs = [wrong for source in package for wrong in rule(source)]
    assert wrongs == [], "\n" + "\n".join(wrongs)


def test_every_public_name_has_one_home(package):
    wrongs = defined_twice(package)
    assert wrongs == [], "\n" + "\n".join(wrongs)


@pytest.mark.parametrize(
    ("text", "n_missing"),
    [
        ("x = 1", 1),
        ('"""Page."""\ndef f(): ...', 1),
        ('"""Page."""\nclass A:\n    """A."""\n    def f(self): ...\n    def _g(self): ...', 1),
        ('"""Page."""\nclass A:\n    async def f(self): ...', 2),
        ('"""Page."""\ndef _f(): ...\nclass _A:\n    def f(self): ...', 0),
        ('"""Page."""\n@typing.overload\ndef f(): ...', 0),
    ],
)
def test_the_rule_finds_what_is_not_explained(example, text, n_missing):
    assert len(missing_docstrings(example(text))) == n_missing


def test_the_rule_finds_a_file_past_a_page(example):
    assert too_long(example("x = 1\n" * MAX_LINES)) == []
    assert too_long(example("x = 1\n" * (MAX_LINES + 1))) != []


@pytest.mark.parametrize("module", ["scratchlm.utils", "scratchlm.model.helpers", "scratchlm.common.thing"])
def test_the_rule_finds_a_name_without_an_idea(example, module):
    assert named_after_nothing(example("", module)) != []


def test_the_rule_finds_a_name_with_two_homes(example):
    one, two = example("def f(): ...", "scratchlm.a"), example("class f: ...\ndef _g(): ...", "scratchlm.b")
    assert defined_twice([one, two]) == ["f: scratchlm.a, scratchlm.b"]
    assert defined_twice([one, example("from scratchlm.a import f", "scratchlm.b")]) == []
    commands = [example("def main(): ...", f"scratchlm.cli.{name}") for name in ("run", "chat")]
    assert defined_twice(commands) == []
