"""Measure repetition in generated texts, within each text and across texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scratchlm.core.errors import DataError
from scratchlm.evaluation.ngrams import longest_repeat

REPEATED_N = 4  # the n-grams whose repetition is counted, as in Welleck et al.


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """Measures of repetition, over words separated by white space; None where all texts are too short."""

    distinct_1: float | None  # number of different words / number of words, over all texts
    distinct_2: float | None
    distinct_3: float | None
    repeated_4: float | None  # share of a text's 4-grams that already occurred in it; mean over texts
    longest_repeat: float  # words in the longest sequence that a text contains twice; mean over texts


def diversity(texts: Sequence[str]) -> Diversity:
    """Compute measures of repetition. Longer texts repeat more, so compare texts of similar length.

    Source: distinct-n of Li et al. 2016; repeated 4-grams as seq-rep-4 of Welleck et al. 2020.
    Raises: DataError for no texts.
    Example:
        >>> figures = diversity(["a b c a b c a b"])
        >>> figures.distinct_1, figures.repeated_4, figures.longest_repeat
        (0.375, 0.4, 5.0)
    """
    if not texts:
        raise DataError("diversity needs at least one text, got none; generate some first.")
    rows = [text.split() for text in texts]
    repeated = [1 - len(set(grams)) / len(grams) for row in rows if (grams := _grams(row, REPEATED_N))]
    numbered = [np.unique(row, return_inverse=True)[1] for row in rows]
    return Diversity(
        distinct_1=_distinct(rows, 1),
        distinct_2=_distinct(rows, 2),
        distinct_3=_distinct(rows, 3),
        repeated_4=sum(repeated) / len(repeated) if repeated else None,
        longest_repeat=sum(map(longest_repeat, numbered)) / len(rows),
    )


def _distinct(rows: Sequence[list[str]], n: int) -> float | None:
    grams = [gram for row in rows for gram in _grams(row, n)]
    return len(set(grams)) / len(grams) if grams else None


def _grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
