"""The package as syntax trees, and small bad examples to try the rules on."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "scratchlm"


@dataclass(frozen=True)
class Source:
    """One Python file of the package."""

    module: str  # "scratchlm.core.files", "scratchlm.core" for a package
    is_package: bool
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def room(self) -> str:
        """The folder below scratchlm, or the file's own name when it lies directly there."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else "__init__"

    def imports(self) -> Iterator[tuple[str, str | None, ast.stmt]]:
        """Each import as (module, name taken from it or None, statement), relative ones resolved."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, None, node
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = self.module.split(".")
                    kept = parts[: len(parts) - node.level + self.is_package]
                    base = ".".join([*kept, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield base, alias.name, node


def make_source(text: str, module: str = "scratchlm.core.example", *, is_package: bool = False) -> Source:
    return Source(module=module, is_package=is_package, text=text, tree=ast.parse(text))


@pytest.fixture(scope="session")
def package() -> list[Source]:
    """Every Python file of scratchlm."""
    sources = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        sources.append(make_source(path.read_text(encoding="utf-8"), module, is_package=is_package))
    assert len(sources) > 10, f"there should be a package in {PACKAGE}"
    return sources


@pytest.fixture(scope="session")
def example() -> Callable[..., Source]:
    """Build a Source from a few lines."""
    return make_source
