"""What commands print through: nothing that a model, a file or a name holds can steer the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from scratchlm.cli.printable_stream import behind
from scratchlm.core.printable import printable


class PrintableConsole(Console):
    """A rich console for text of unknown origin: only styles and cursor movements of ours reach the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, their text harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False) -> PrintableConsole:
    """A console on standard output or standard error; square brackets and colons in text are no markup."""
    stream = sys.stderr if stderr else sys.stdout
    return PrintableConsole(file=behind(stream), highlight=False, markup=False, emoji=False)
