"""Consoles and aligned columns for the terminal; untrusted text cannot control the terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from scratchlm.cli.streams import behind
from scratchlm.core.printable import printable


class PrintableConsole(Console):
    """A rich console for untrusted text: only our own styles and cursor movements reach the terminal.

    Text is printed without breaking its lines; tables fit the terminal.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, with `soft_wrap` as the default for text."""
        is_text = all(isinstance(printed, (str, Text)) for printed in objects)
        super().print(*objects, **{"soft_wrap": is_text, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, with control characters in their text made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False) -> PrintableConsole:
    """A console on standard output or standard error; brackets and colons in text are not treated as markup."""
    stream = sys.stderr if stderr else sys.stdout
    return PrintableConsole(file=behind(stream), highlight=False, markup=False, emoji=False)


def print_columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: str = "") -> None:
    """Print rows as aligned columns; those numbered in `right` are aligned to the right.

    Example:
        >>> print_columns([["a", "10"], ["bbb", "9"]], right=[1])
        a    10
        bbb   9
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        print(f"{indent}{'  '.join(cells)}".rstrip())
