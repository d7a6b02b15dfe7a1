"""How close an answer is to its reference, judged by words alone: no model and no network needed."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter


def normalize_answer(text: str) -> str:
    """Fold what does not change an answer: case, white space, punctuation at the ends.

    Example:
        >>> normalize_answer("  The Cat.\\n")
        'the cat'
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip(" .,;:!?\"'")


def exact_match(answer: str, reference: str) -> bool:
    """Do they say the same, letter for letter after folding? An empty answer matches nothing."""
    return normalize_answer(answer) == normalize_answer(reference) != ""


def token_f1(answer: str, reference: str) -> float:
    """Overlap of the two bags of words, 0 to 1.

    Source: the F1 of SQuAD (Rajpurkar et al. 2016, section 6.1), without its dropping of articles.

    Example:
        >>> round(token_f1("the red hen", "the red fox"), 3)
        0.667
    """
    given, wanted = (Counter(re.findall(r"\w+", normalize_answer(text))) for text in (answer, reference))
    n_shared = sum((given & wanted).values())
    if n_shared == 0:
        return 0.0
    return 2 * n_shared / (sum(given.values()) + sum(wanted.values()))
