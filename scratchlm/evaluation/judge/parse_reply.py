"""Parse a judge's reply into a score: the whole reply must have one of a few formats, otherwise it is rejected.

With N an integer of the scale, in digits 0-9 without sign, point or leading zero, a reply is accepted if it
is, ignoring case and surrounding white space, exactly one of

    N        N/100        Score: N        Score: N/100        {"score": N}

(on the 1 to 10 scale /10). Everything else is rejected: prose with a number in it, two numbers, NaN, -5, 85.5.

A leading `<think>...</think>`, the reasoning of a reasoning model, is not part of the reply.

A number that the judge may have copied from the judged text is rejected too: one whose digits occur in this
order in one of the item's texts, with any characters between them. The judge then gets a reminder to reply
with a line that contains a code that occurs in none of the texts,

    Score for item CODE: N        or, shorter,        CODE: N

and such a line is accepted for any N, since it cannot be a copy of the answer. A reply that echoes the
answer, a part of it or the reminder has no such line. Verdicts in words (A, B, tie, yes, no) can occur in any
text, so they require the code in the first reply.
"""

import re
import unicodedata
from collections.abc import Sequence

MAX_READ = 2_000  # characters; every format is shorter, so a reply of 100 KB is not searched
WHOLE = "(0|[1-9][0-9]{0,3})"


def without_thoughts(text: str) -> str:
    """Remove a leading `<think>...</think>`; the result is empty when the block does not end.

    Example:
        >>> without_thoughts("<think>80? No.</think> 85"), without_thoughts("<think>80? No. 85")
        ('85', '')
    """
    if not text.lstrip().startswith("<think>"):
        return text
    return text.partition("</think>")[2].lstrip()


def read_number(reply: str, *, low: int, high: int) -> int | None:
    """Read the score if the whole reply is one, else None.

    Example:
        >>> read_number("Score: 85/100", low=0, high=100)
        85
        >>> read_number("I would say 85.", low=0, high=100)
    """
    bare = _matched(reply, rf"(?:score:\s*)?{WHOLE}(?:/{high})?", low, high)
    return bare if bare is not None else _matched(reply, rf'\{{\s*"score"\s*:\s*{WHOLE}\s*\}}', low, high)


def read_coded_number(reply: str, *, code: str, low: int, high: int) -> int | None:
    """Read the score if the whole reply is the line with the code, else None.

    Example:
        >>> read_coded_number("Score for item qwrtzpsd: 85", code="qwrtzpsd", low=0, high=100)
        85
        >>> read_coded_number("85", code="qwrtzpsd", low=0, high=100)
    """
    return _matched(reply, rf"(?:score\ for\ item\s+)?{code}:\s*{WHOLE}(?:/{high})?", low, high)


def read_coded_word(reply: str, *, code: str, words: Sequence[str]) -> str | None:
    """Read the verdict, one of the words, if the whole reply is the line with the code, else None.

    Example:
        >>> read_coded_word("Verdict for item qwrtzpsd: tie", code="qwrtzpsd", words=("A", "B", "tie"))
        'tie'
    """
    found = _whole(reply, rf"(?:verdict\ for\ item\s+)?{code}:\s*({'|'.join(words)})")
    return None if found is None else next(word for word in words if word.casefold() == found.casefold())


def read_coded_list(reply: str, *, code: str, n: int) -> list[bool] | None:
    """Read the answers if the whole reply is n lines `CODE 1: yes` in order, else None."""
    lines = [line for line in reply.strip()[:MAX_READ].split("\n") if line.strip()]
    if len(lines) != n:
        return None
    found = [_whole(line, rf"{code}\s+{number}:\s*(yes|no)") for number, line in enumerate(lines, start=1)]
    return None if None in found else [word is not None and word.casefold() == "yes" for word in found]


def occurs_in(number: int, texts: Sequence[str]) -> bool:
    """Whether the number's digits occur in this order in a text, with any characters between them.

    Example:
        >>> occurs_in(100, ["It costs 1100 crowns."]), occurs_in(100, ["1, 0 and 0"]), occurs_in(85, ["58"])
        (True, True, False)
    """
    return any(str(number) in _digits(text) for text in texts)


def _digits(text: str) -> str:
    """Extract the decimal digits of a text as 0-9, including full-width, circled and non-Latin ones."""
    return "".join(str(unicodedata.decimal(c)) for c in unicodedata.normalize("NFKC", text) if c.isdecimal())


def _matched(reply: str, pattern: str, low: int, high: int) -> int | None:
    digits = _whole(reply, pattern)
    return int(digits) if digits is not None and low <= int(digits) <= high else None


def _whole(reply: str, pattern: str) -> str | None:
    text = reply.strip()
    found = re.fullmatch(pattern, text, re.IGNORECASE | re.ASCII) if len(text) <= MAX_READ else None
    return None if found is None else found[1]
