"""Strings on which tokenizers come apart: every kind of space, digit, letter, mark and control character, mixed."""

import random
import unicodedata
from collections.abc import Sequence

PARTS = (
    *("the cat", "Don't", "IT'S", "we'LL", "'ſ", "ABCdef", "iPhone15Pro", "x" * 70, "ab" * 40, "0" * 30),
    *(" ", "  ", "\n", "\n\n", "\r\n", "\t", " \t ", "\x85"),
    *("\xa0", "\u2003", "\u2028", "\u3000", "\u200b", "\ufeff"),
    *("123", "4567890", "3.14", "1,000", "²³", "Ⅷ", "٣٤"),
    *("½", "covid19", "_x_", "a_b", "http://x.y/z?q=1&r=2"),
    *("é", "e\u0301", "naïve", "ﬁ", "İ", "ß", "Σ", "ςΣ", "ǅ"),
    *("ʰ", "µ", "Å", "\u212b", "\u0300", "a\u0300\u0323b"),
    *("日本語", "한국어", "हिन्दी", "ไทย", "עברית", "عربي"),
    *("﷽", "ﬆ", "😀", "👩‍👩‍👧", "🇩🇪", "\ufffd", "\U0010ffff"),
    *("…", "—", "’s", "'s", "''", '"', "!?", "...", "()[]{}", "def f(x):\n    return x**2", "|>"),
    *("\x00", "\x01", "\x04", "\x06", "\x13", "\x1c", "\x1f", "\x7f"),
)
_RANGES = ((0x20, 0x7F), (0, 0x250), (0x250, 0xD800), (0xE000, 0x10000), (0x10000, 0x1FB00))


def odd_strings(n: int, *, also: Sequence[str] = (), seed: int = 1) -> list[str]:
    """n different strings, some of which hold one of `also`.

    Characters that were not assigned yet in this Python's Unicode are left out: programs differ in their age.
    """
    draw = random.Random(seed)
    parts = (*PARTS, *also, *also)
    found = {"": None}
    while len(found) < n:
        kind = draw.random()
        if kind < 0.7:
            text = "".join(draw.choices(parts, k=draw.randint(1, 12)))
        elif kind < 0.85:
            text = "".join(chr(draw.randrange(*draw.choice(_RANGES))) for _ in range(draw.randint(1, 20)))
        else:
            text = "".join(draw.choices("ab '\n\t.1é", k=draw.randint(1, 30)))
        if all(unicodedata.category(char) != "Cn" or char == "\U0010ffff" for char in text):
            found[text] = None
    return list(found)
