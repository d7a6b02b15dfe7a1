"""What of a judge's reply is a score: the whole reply in one of a few forms, or nothing.

With N a whole number of the scale, in digits 0-9 without sign, point or leading zero, a reply is read when it is, apart
from white space around it and upper or lower case, exactly

    N        N/100        Score: N        Score: N/100        {"score": N}

(on the 1 to 10 scale /10). Everything else, prose with a number in it, two numbers, NaN, -5, 85.5, is no score.

A reasoning model's thoughts, one leading `<think>...</think>`, are no part of the reply.

A score that the judge only copied out of what it read is none either. So a number whose digits stand one after the
other in one of the item's own texts, whatever is between them, is not taken; the judge is asked once more, for a line
with a code that stands in none of the texts,

    Score for item CODE: N        or, shorter,        CODE: N

and that line counts whatever N is: nobody can copy it out of an answer. A reply that echoes the answer, a piece of it
or the reminder has no such line. Verdicts in words (A, B, tie, yes, no) occur in any text: they need the code at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_READ = 2_000  # characters; no form is longer, and a reply of 100 KB is not searched
WHOLE = "(0|[1-9][0-9]{0,3})"


def without_thoughts(text: str) -> str:
    """What stands behind one leading `<think>...</think>`; nothing when the block does not end.

    Example:
        >>> without_thoughts("<think>80? No.</think> 85"), without_thoughts("<think>80? No. 85")
        ('85', '')
    """
    if not text.lstrip().startswith("<think>"):
        return text
    return text.partition("</think>")[2].lstrip()


def read_number(reply: str, *, low: int, high: int) -> int | None:
    """The score that the whole reply is, or None.

    Example:
        >>> read_number("Score: 85/100", low=0, high=100)
        85
        >>> read_number("I would say 85.", low=0, high=100)
    """
    bare = _matched(reply, rf"(?:score:\s*)?{WHOLE}(?:/{high})?", low, high)
    return bare if bare is not None else _matched(reply, rf'\{{\s*"score"\s*:\s*{WHOLE}\s*\}}', low, high)


def read_coded_number(reply: str, *, code: str, low: int, high: int) -> int | None:
    """The score of a reply that is the coded line, or None.

    Example:
        >>> read_coded_number("Score for item qwrtzpsd: 85", code="qwrtzpsd", low=0, high=100)
        85
        >>> read_coded_number("85", code="qwrtzpsd", low=0, high=100)
    """
    return _matched(reply, rf"(?:score\ for\ item\s+)?{code}:\s*{WHOLE}(?:/{high})?", low, high)


def read_coded_word(reply: str, *, code: str, words: Sequence[str]) -> str | None:
    """The verdict, one of the words, of a reply that is the coded line, or None.

    Example:
        >>> read_coded_word("Verdict for item qwrtzpsd: tie", code="qwrtzpsd", words=("A", "B", "tie"))
        'tie'
    """
    found = _whole(reply, rf"(?:verdict\ for\ item\s+)?{code}:\s*({'|'.join(words)})")
    return None if found is None else next(word for word in words if word.casefold() == found.casefold())


def read_coded_list(reply: str, *, code: str, n: int) -> list[bool] | None:
    """The answers of a reply that is n lines `CODE 1: yes`, in order and all there, or None."""
    lines = [line for line in reply.strip()[:MAX_READ].split("\n") if line.strip()]
    if len(lines) != n:
        return None
    found = [_whole(line, rf"{code}\s+{number}:\s*(yes|no)") for number, line in enumerate(lines, start=1)]
    return None if None in found else [word is not None and word.casefold() == "yes" for word in found]


def stands_in(number: int, texts: Sequence[str]) -> bool:
    """Do the number's digits stand one after the other in a text, whatever is between them?

    Example:
        >>> stands_in(100, ["It costs 1100 crowns."]), stands_in(100, ["1, 0 and 0"]), stands_in(85, ["58"])
        (True, True, False)
    """
    return any(str(number) in _digits(text) for text in texts)


def _digits(text: str) -> str:
    """All decimal digits of a text as 0-9, also full-width, circled and of other scripts; nothing else."""
    return "".join(str(unicodedata.decimal(c)) for c in unicodedata.normalize("NFKC", text) if c.isdecimal())


def _matched(reply: str, pattern: str, low: int, high: int) -> int | None:
    digits = _whole(reply, pattern)
    return int(digits) if digits is not None and low <= int(digits) <= high else None


def _whole(reply: str, pattern: str) -> str | None:
    text = reply.strip()
    found = re.fullmatch(pattern, text, re.IGNORECASE | re.ASCII) if len(text) <= MAX_READ else None
    return None if found is None else found[1]
