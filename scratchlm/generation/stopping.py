"""When a row's text ends: stop texts that may begin in one token and end in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

FinishedBy = Literal["length", "stop_id", "stop_text"]


class StopTextGate:
    """Lets text through piece by piece, and closes for good at the first stop text.

    What could still become a stop text is held back until it is certain: with the stop text "\\n\\n" a single
    line end waits for the next piece. The stop text that is complete first counts; the stop text itself and
    everything after it never comes out. How the text is cut into pieces makes no difference.

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
        """Take in new text; give back what is certain to be shown."""
        if self.found is not None:
            return ""
        text = self._held + piece
        first = min(self._matches(text), default=None)
        if first is not None:
            _, start, self.found = first
            self._held = ""
            return text[:start]
        n_held = self._n_undecided(text)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def flush(self) -> str:
        """The text held back, once it is known that no more will come."""
        text, self._held = self._held, ""
        return text

    def _matches(self, text: str) -> list[tuple[int, int, str]]:
        """End, start and stop text of the first place where each one stands."""
        starts = [(text.find(stop), stop) for stop in self._stop_texts]
        return [(start + len(stop), start, stop) for start, stop in starts if start >= 0]

    def _n_undecided(self, text: str) -> int:
        """Length of the longest end of the text that some stop text starts with."""
        longest = max((len(stop) - 1 for stop in self._stop_texts), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop_texts):
                return length
        return 0
