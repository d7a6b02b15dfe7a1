"""Compare an answer with its reference: exact match, token F1, ROUGE-L, edit distance, final numbers."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]])[-\u2212] ?)?(?:[$€£¥](?P<late_sign>[-\u2212])?)?"
    r"(?:(?P<dotted>[1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d)(?:,\d+)?)"  # 1.000.000,50
    r"|(?P<size>(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d{1,3}(?:['\u2019\u00a0\u202f]\d{3})+(?!\d)|\d+)"
    r"(?:\.\d+)?|(?<![\d.])\.\d+)(?P<exponent>[eE][-+]?\d{1,3}(?!\w))?)"
)
_SEPARATORS = re.compile("[,'\u2019\u00a0\u202f]")  # between thousands
_MARKED = re.compile(r"####(?P<answer>[^\n]*)")  # the end of a solution in GSM8K, or a heading in Markdown
_MARKED_NUMBER = re.compile(r"####(?P<answer>[ *]*[-\u2212$€£¥]{0,2}\.?\d[^\n]*)")


def marked_number(text: str) -> Decimal | None:
    """The number after `####`, which ends a GSM8K solution; None without one.

    The first `####` with a number directly after it counts, else the first one.

    Example:
        >>> marked_number("12 and 60 are 72 clips.\\n#### 72")
        Decimal('72')
    """
    found = _MARKED_NUMBER.search(text) or _MARKED.search(text)
    return None if found is None else _last_number(found["answer"])


def final_number(text: str) -> Decimal | None:
    """The final number of a solution: the marked one, else the last in the text; None without a number.

    Currency signs, separators between thousands, units and a following full stop are ignored.
    Source: lm-evaluation-harness's `gsm8k`, filters `strict-match` and `flexible-extract`; but numbers are compared as
        values, so 72 and 72.00 are equal here.
    Example:
        >>> final_number("The answer is $1,234.50.") == final_number("#### 1234.5"), final_number("about -7 °C")
        (True, Decimal('-7'))
    """
    marked = _MARKED_NUMBER.search(text)
    return _last_number(text if marked is None else marked["answer"])


def _last_number(text: str) -> Decimal | None:
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    if (dotted := found["dotted"]) is not None:
        size = Decimal(dotted.replace(".", "").replace(",", "."))
    else:
        size = Decimal(_SEPARATORS.sub("", found["size"]) + (found["exponent"] or ""))
    return -size if found["sign"] or found["late_sign"] else size


def normalize_answer(text: str) -> str:
    """Normalize case, white space, and punctuation at the ends.

    Example:
        >>> normalize_answer("  The Cat.\\n")
        'the cat'
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip(" .,;:!?\"'")


def exact_match(answer: str, reference: str) -> bool:
    """Whether they are equal after normalization; an empty answer matches nothing."""
    return normalize_answer(answer) == normalize_answer(reference) != ""


def token_f1(answer: str, reference: str) -> float:
    """F1 of the overlap of two bags of words, 0 to 1.

    Source: the F1 of SQuAD (Rajpurkar et al. 2016, section 6.1), but articles are kept.

    Example:
        >>> round(token_f1("the red hen", "the red fox"), 3)
        0.667
    """
    given, wanted = (Counter(re.findall(r"\w+", normalize_answer(text))) for text in (answer, reference))
    n_shared = sum((given & wanted).values())
    if n_shared == 0:
        return 0.0
    return 2 * n_shared / (sum(given.values()) + sum(wanted.values()))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L: the longest common subsequence of words as an F score from 0 to 1.

    Source: Lin 2004, section 3, with equal weights; for ASCII the same as the package `rouge-score` without stemming,
        whose words are runs of letters and digits.

    Example:
        >>> round(rouge_l("the red hen sat", "the hen sat down"), 3)
        0.75
    """
    given, wanted = (re.findall(r"[^\W_]+", text.lower()) for text in (answer, reference))
    n_shared = _longest_common_subsequence(given, wanted)
    return 2 * n_shared / (len(given) + len(wanted)) if n_shared else 0.0


def edit_distance(one: str, other: str) -> float:
    """The Levenshtein distance divided by the length of the longer text.

    0 for equal texts, 1 for texts with nothing in common; two empty texts are equal.
    Source: Levenshtein 1966, with the bit vectors of Myers 1999 as in Hyyrö 2003: a row of the table is a few
        operations on one long integer.

    Example:
        >>> edit_distance("kitten", "sitting") * len("sitting")
        3.0
    """
    longest = max(len(one), len(other))
    return _levenshtein(one, other) / longest if longest else 0.0


def _longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence (Hyyrö 2004); a 0 bit in `rows` marks an increase."""
    places = _places(one)
    everywhere = (1 << len(one)) - 1
    rows = everywhere
    for item in other:
        matched = rows & places.get(item, 0)
        rows = ((rows + matched) | (rows - matched)) & everywhere
    return len(one) - rows.bit_count()


def _levenshtein(one: str, other: str) -> int:
    """Levenshtein distance in characters; `up` and `down` mark rows where a column's distance changes."""
    if not one:
        return len(other)
    places = _places(one)
    everywhere, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, distance = everywhere, 0, len(one)
    for character in other:
        matched = places.get(character, 0)
        diagonal = (((matched & up) + up) ^ up) | matched | down  # rows where a diagonal step costs nothing
        more = down | (everywhere & ~(diagonal | up))  # rows where the distance to the right rises,
        less = up & diagonal  # and where it falls
        distance += bool(more & last) - bool(less & last)
        more = (more << 1) | 1
        less <<= 1
        up = (less | ~(diagonal | more)) & everywhere
        down = more & diagonal & everywhere
    return distance


def _places(items: Sequence[str]) -> dict[str, int]:
    """Map each item to an integer whose set bits are its positions."""
    places: dict[str, int] = {}
    for place, item in enumerate(items):
        places[item] = places.get(item, 0) | 1 << place
    return places
