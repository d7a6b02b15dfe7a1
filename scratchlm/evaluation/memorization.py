"""Measure memorization: how much of a model's generated text occurs verbatim in its training text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scratchlm.core.errors import DataError
from scratchlm.evaluation.ngrams import NGrams, is_among

Ids = npt.NDArray[Any]
IDS_AT_ONCE = 1 << 21  # ids of the training text read at a time, at 17 bytes of memory each
NOVEL_N = 5  # the n-grams whose novelty is counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """The longest passage of a sample that also occurs in the training text."""

    length: int  # 0: no id in common
    sample_start: int
    training_start: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Memorization:
    """The overlap of samples with the training text."""

    overlaps: tuple[Overlap, ...]  # the longest overlap of each sample, in order
    # share of each sample's 5-grams that are not in the training text; None: too short
    novel: tuple[float | None, ...]
    novel_share: float | None  # the same over all samples' 5-grams

    @property
    def longest(self) -> int:
        """The length of the longest overlap."""
        return max(overlap.length for overlap in self.overlaps)

    @property
    def mean_longest(self) -> float:
        """The mean length of the samples' longest overlaps."""
        return sum(overlap.length for overlap in self.overlaps) / len(self.overlaps)


def memorization(
    samples: Sequence[npt.ArrayLike], training: Ids, *, progress: Callable[[int, int], None] | None = None
) -> Memorization:
    """Compare samples with a training text of any length, which may be memory-mapped and is read in parts.

    Both are rows of ids, of tokens or of words (`word_rows`). The longest overlap is exact, compared id by id.

    Units: progress(done, total) counts ids of the training text.
    Source: McCoy et al. 2023, "How much do language models copy from their training data?" (novel n-grams).
    Raises: DataError for no samples or no training text.
    """
    rows = [np.asarray(sample, dtype=np.int64) for sample in samples]
    if not rows or len(training) == 0:
        raise DataError(
            f"memorization needs samples and a training text, got {len(rows)} samples and {len(training)} ids of "
            "training text; give both."
        )
    grams = [NGrams(row) for row in rows]
    best = [Overlap(length=0, sample_start=0, training_start=0)] * len(rows)
    five_grams = np.unique(np.concatenate([one.all(NOVEL_N) for one in grams]))
    is_known = np.zeros(len(five_grams), dtype=np.bool_)
    longest_sample = max(map(len, rows))
    for begin in range(0, len(training), IDS_AT_ONCE):
        # Parts of the text overlap by the longest sample, so that no match is cut.
        stretch = np.asarray(training[begin : begin + IDS_AT_ONCE + longest_sample])
        text = NGrams(stretch)
        numbers = text.all(NOVEL_N)
        is_known |= np.isin(five_grams, np.unique(numbers[is_among(numbers, five_grams)]))
        for i, found in enumerate(_longest(grams, rows, text, stretch)):
            if found.length > best[i].length:
                best[i] = replace(found, training_start=begin + found.training_start)
        if progress is not None:
            progress(min(begin + len(stretch), len(training)), len(training))
    known = five_grams[is_known]
    is_new = [~is_among(one.all(NOVEL_N), known) for one in grams]
    n_grams = sum(map(len, is_new))
    return Memorization(
        overlaps=tuple(best),
        novel=tuple(float(new.mean()) if len(new) else None for new in is_new),
        novel_share=sum(int(new.sum()) for new in is_new) / n_grams if n_grams else None,
    )


def word_rows(samples: Sequence[str], training: Iterable[tuple[str, bool]]) -> tuple[list[Ids], Ids]:
    """Texts as rows of word ids; words are separated by white space.

    training: pieces of the text, each with a flag whether a document ends after it. Words that occur in no
    sample, and document boundaries, get the id 0, which matches nothing.
    """
    number_of: dict[str, int] = {}
    rows = [
        np.array([number_of.setdefault(word, len(number_of) + 1) for word in text.split()], dtype=np.int64)
        for text in samples
    ]
    known = ([number_of.get(word, 0) for word in text.split()] + [0] * ends for text, ends in training)
    pieces = [np.array(numbers, dtype=np.int32) for numbers in known]
    return rows, np.concatenate([np.zeros(0, dtype=np.int32), *pieces])


def _longest(grams: Sequence[NGrams], rows: Sequence[Ids], text: NGrams, stretch: Ids) -> Iterator[Overlap]:
    """Find each sample's longest match in one part of the training text.

    Lengths 1, 2, 4, ... are tried for all samples together. Each length keeps only the positions of the
    training text at which an n-gram of some sample begins, since a longer match must begin at one of them. A
    binary search between the last length that matches and the first that does not finds the longest.
    """
    # length -> positions where some sample's n-gram of that length begins
    places = {0: np.arange(text.n_ids)}
    matched = [0] * len(grams)
    length = 1
    while True:
        starts = _fitting(places[length // 2], length, text)
        numbers = text.at(starts, length)
        wanted = [one.all(length) for one in grams]
        is_match = is_among(numbers, np.unique(np.concatenate(wanted)))
        if not is_match.any():
            break
        places[length] = starts[is_match]
        found = np.unique(numbers[is_match])
        matched = [length if is_among(mine, found).any() else old for mine, old in zip(wanted, matched)]
        length *= 2
    for one, row, low in zip(grams, rows, matched):
        high = min(2 * low, one.n_ids + 1) if low else 1
        while high - low > 1:
            middle = (low + high) // 2
            is_there = _match(one, text, places[_power_below(middle)], middle) is not None
            low, high = (middle, high) if is_there else (low, middle)
        place = _match(one, text, places[_power_below(low)], low) if low else (0, 0)
        assert place is not None
        assert np.array_equal(row[place[0] : place[0] + low], stretch[place[1] : place[1] + low])
        yield Overlap(length=low, sample_start=place[0], training_start=place[1])


def _match(one: NGrams, text: NGrams, starts: npt.NDArray[np.intp], n: int) -> tuple[int, int] | None:
    """The first positions, in sample and training text, of an n-gram in both."""
    starts = _fitting(starts, n, text)
    mine, theirs = one.all(n), text.at(starts, n)
    is_shared = is_among(theirs, np.unique(mine))
    if not is_shared.any():
        return None
    first = int(is_shared.argmax())
    return int((mine == theirs[first]).argmax()), int(starts[first])


def _fitting(starts: npt.NDArray[np.intp], n: int, text: NGrams) -> npt.NDArray[np.intp]:
    return starts[starts + n <= text.n_ids]


def _power_below(n: int) -> int:
    """The largest power of two that is at most n."""
    return 1 << (n.bit_length() - 1)
