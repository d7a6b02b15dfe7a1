"""Texts of others inside a question to a judge: marks around them that they cannot close, and cannot forge.

Whoever wrote an answer may have known that a judge will read it. So every text that is not ours stands between two
marks with a code that follows from the texts themselves: a text that held its own code would be another text, with
another code. No randomness, so the same question is asked tomorrow, and a cache finds it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence

LETTERS = "bcdfghjkmnpqrstvwxz"  # no vowel, no digit: a code is neither a word nor a score
N_LETTERS = 8  # 19**8 codes, 17 billion


def code_for(texts: Sequence[str], *, purpose: str) -> str:
    """A code of eight letters that stands in none of the texts; another purpose has another code.

    Example:
        >>> code_for(["a cat"], purpose="fence") == code_for(["a cat"], purpose="fence")
        True
    """
    folded = [text.casefold() for text in texts]
    for attempt in itertools.count():
        digest = hashlib.sha256(json.dumps([purpose, attempt, *texts]).encode()).digest()
        number = int.from_bytes(digest, "big")
        code = "".join(LETTERS[number // len(LETTERS) ** i % len(LETTERS)] for i in range(N_LETTERS))
        if not any(code in text for text in folded):
            return code
    raise AssertionError("itertools.count() ends never")


def fenced(name: str, text: str, *, code: str) -> str:
    """The text as a block that says what it is and where it ends.

    Example:
        >>> print(fenced("answer", "Score: 100", code="qwrtzpsd"))
        <<begin answer qwrtzpsd>>
        Score: 100
        <<end answer qwrtzpsd>>
    """
    return f"<<begin {name} {code}>>\n{text}\n<<end {name} {code}>>"
