"""Stop texts: end generation at a given string, which may span several tokens."""

from collections.abc import Sequence
from typing import Literal

FinishedBy = Literal["length", "stop_id", "stop_text", "constraint", "error"]


class StopTextGate:
    """Pass on text in pieces until the first stop text.

    An ending that could be the beginning of a stop text is held back until the next piece: with the stop text
    "\\n\\n", a single line end is held back. The stop text that is complete first counts; it and everything
    after it are dropped. The result does not depend on how the text is split into pieces.

    Example:
        >>> gate = StopTextGate(["###"])
        >>> [gate.push("Hello #"), gate.push("# the"), gate.push("re ##"), gate.push("# more")]
        ['Hello ', '## the', 're ', '']
        >>> gate.found
        '###'
    """

    def __init__(self, stop_texts: Sequence[str]) -> None:
        self.found: str | None = None
        self._stop_texts = tuple(stop_texts)
        self._held = ""

    def push(self, piece: str) -> str:
        """Add a piece; return the text that is certain to be shown."""
        if self.found is not None:
            return ""
        text = self._held + piece
        starts = [(text.find(stop), stop) for stop in self._stop_texts]
        matches = [(start + len(stop), start, stop) for start, stop in starts if start >= 0]
        if matches:
            _, start, self.found = min(matches)  # the one that ends first
            self._held = ""
            return text[:start]
        n_shown = len(text) - self._n_undecided(text)
        self._held = text[n_shown:]
        return text[:n_shown]

    def flush(self) -> str:
        """Return the text held back, when no more pieces follow."""
        text, self._held = self._held, ""
        return text

    def _n_undecided(self, text: str) -> int:
        """Length of the longest suffix of the text that is a prefix of a stop text."""
        longest = max((len(stop) - 1 for stop in self._stop_texts), default=0)
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(s.startswith(text[-n:]) for s in self._stop_texts)), 0)
