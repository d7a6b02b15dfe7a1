"""Make untrusted text safe for a terminal, a page or a spreadsheet."""

import re
from typing import TypeVar

T = TypeVar("T")

# Control characters except tab, LF and CR LF; characters invalid in UTF-8 or HTML; bidirectional controls.
NOT_PRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]|\r(?!\n)"
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def printable(text: str) -> str:
    """Replace each character that could control a terminal with a visible one.

    Source: ECMA-48 for control characters, Unicode's annex 9 for directions.
    Example:
        >>> printable(chr(27) + "[2Ja" + chr(0xD800))
        '␛[2Ja\ufffd'
    """
    return NOT_PRINTABLE.sub(_picture, text)


def printable_json(line: str) -> str:
    """Replace them in a line of JSON with JSON escapes, so that nothing is lost."""
    return NOT_PRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def csv_cell(value: T) -> T | str:
    """Prepare a value for a CSV file: text that a spreadsheet would run as a formula gets an apostrophe.

    Source: OWASP, CSV injection.
    Example:
        >>> csv_cell("=SUM(A1)"), csv_cell(-2.5)
        ("'=SUM(A1)", -2.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\ufffd"
