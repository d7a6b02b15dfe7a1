"""Format numbers, times, sizes and tokens for reports; missing and non-finite values become a dash."""

import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeGuard

from markupsafe import Markup

from scratchlm.core.printable import printable

MISSING = "–"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether the value is a finite number.

    Example:
        >>> [is_number(value) for value in (3, 0.5, None, float("nan"), "3")]
        [True, True, False, False, False]
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """Format an integer with thousands separators.

    Example:
        >>> count(1234567)
        '1,234,567'
    """
    return f"{round(value):,}" if is_number(value) else MISSING


def short_count(value: Any) -> str:
    """Format a number with three digits and a word for its magnitude, for sentences.

    Example:
        >>> short_count(950), short_count(12_340), short_count(1_234_567), short_count(124_412_160)
        ('950', '12.3 thousand', '1.23 million', '124 million')
    """
    if not is_number(value):
        return MISSING
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if abs(value) >= size:
            unit = min(size, 1e3) if word == "thousand" else size
            return f"{_three_figures(value / unit)} {word}"
    return f"{round(value):,}"


def axis_count(value: Any) -> str:
    """Format a short number for tick labels.

    Example:
        >>> axis_count(400), axis_count(1200), axis_count(2_500_000)
        ('400', '1.2k', '2.5M')
    """
    if not is_number(value):
        return MISSING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{round(value)}"


def decimal(value: Any, digits: int = 2) -> str:
    """Format a number with a fixed number of decimals.

    Example:
        >>> decimal(2.3456), decimal(float("nan"))
        ('2.35', '–')
    """
    return f"{value:,.{digits}f}" if is_number(value) else MISSING


def signed(value: Any) -> str:
    """Format a difference with two decimals and its sign.

    Example:
        >>> signed(1.234), signed(-0.5), signed(-0.001)
        ('+1.23', '−0.50', '0.00')
    """
    if not is_number(value):
        return MISSING
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    """A share in percent; only exactly 0 and 1 are shown as 0% and 100%.

    Example:
        >>> percent(0.974), percent(1), percent(0.99999), percent(0.00001)
        ('97.4%', '100%', '>99.9%', '<0.1%')
    """
    if not is_number(value):
        return MISSING
    if value in (0, 1):
        return f"{value:.0%}"
    smallest = 10.0**-digits / 100
    if 0 < value < smallest:
        return f"<{smallest:.{digits}%}"
    if 1 - smallest < value < 1:
        return f">{1 - smallest:.{digits}%}"
    return f"{value:.{digits}%}"


def duration(seconds: Any) -> str:
    """Format a time span.

    Example:
        >>> duration(0.84), duration(41.23), duration(125), duration(3790)
        ('0.84 s', '41.2 s', '2 min 05 s', '1 h 03 min')
    """
    if not is_number(seconds):
        return MISSING
    if seconds < 10:
        if 0 < seconds < 0.001:
            return "<1 ms"  # not `2.1e-60 s`
        return f"{seconds:.2g} s" if 0 < seconds < 1 else f"{seconds:.1f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def interval_text(low: Any, high: Any) -> str:
    """An interval of shares in percent; empty when an end is missing.

    Example:
        >>> interval_text(0.9373, 0.99), interval_text(None, 0.9)
        ('93.7–99.0%', '')
    """
    return f"{decimal(100 * low, 1)}–{decimal(100 * high, 1)}%" if is_number(low) and is_number(high) else ""


def file_size(n_bytes: Any) -> str:
    """Format a size in bytes, in decimal units.

    Example:
        >>> file_size(1_430_000_000), file_size(512)
        ('1.43 GB', '512 bytes')
    """
    if not is_number(n_bytes):
        return MISSING
    for size, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= size:
            return f"{_three_figures(n_bytes / size)} {word}"
    return f"{round(n_bytes)} bytes"


def moment(iso: Any) -> str:
    """Format a date and time; text that is not an ISO date is returned unchanged.

    Example:
        >>> moment("2026-11-22T19:11:05+00:00"), moment("yesterday")
        ('22 November 2026, 19:11 UTC', 'yesterday')
    """
    try:
        when = datetime.fromisoformat(str(iso).replace("Z", "+00:00"))
    except ValueError:
        return str(iso)
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def visible(token: Any, longest: int = 0) -> str:
    """Show a token with visible white space, cut to `longest` characters (0: no limit).

    Example:
        >>> visible(" the"), visible(chr(10)), visible(""), visible("antidisestablish", 6)
        ('·the', '⏎', '∅', 'antid…')
    """
    text = str(token).replace(" ", "·").replace("\r\n", "⏎").replace("\n", "⏎").replace("\t", "⇥") or "∅"
    return text[: longest - 1] + "…" if 0 < longest < len(text) else text


def listed(words: Sequence[str]) -> str:
    """The words with commas and "and".

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
        ('a, b and c', 'a', '')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def cut(text: Any, longest: int = 2000) -> str:
    """A long text cut at `longest` characters, with the number of characters left out.

    Example:
        >>> cut("abcdefgh", 5)
        'abcde … (3 more characters)'
    """
    text = str(text)
    return f"{text[:longest]} … ({len(text) - longest:,} more characters)" if len(text) > longest else text


def setting(value: Any) -> str:
    """Format a setting as in a recipe file.

    Example:
        >>> setting(True), setting([1, 2]), setting("tiny"), setting(0.001), setting(""), setting(None)
        ('true', '[1, 2]', 'tiny', '0.001', '""', 'not set')
    """
    if value is None:
        return "not set"
    return value if value and isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shade(value: Any) -> int:
    """The step of a colour scale, 0 to 10, for a share.

    Example:
        >>> shade(0), shade(0.44), shade(1)
        (0, 4, 10)
    """
    return min(10, max(0, round(10 * value))) if is_number(value) else 0


def for_page(value: Any) -> Any:
    """Prepare any value for the page: control characters become visible, missing values and NaN a dash.

    Example:
        >>> for_page(chr(0) + "a" + chr(0xD800)), for_page(None)
        ('␀a\ufffd', '–')
    """
    if isinstance(value, Markup):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, str):
        return printable(value.replace("\r\n", "\n"))  # HTML has no carriage returns
    return value


def _three_figures(value: float) -> str:
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


# `count` replaces Jinja's filter of that name, which is also available as `length`.
_FUNCTIONS: tuple[Callable[..., object], ...] = (
    *(axis_count, count, cut, decimal, duration, file_size),
    *(moment, percent, setting, shade, short_count, signed, visible),
)
FILTERS = {function.__name__: function for function in _FUNCTIONS}
