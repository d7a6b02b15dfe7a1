"""Measure how much of one set of texts occurs in another: shared sentences and shared n-grams.

Validation loss measures grammar only if the validation sentences do not occur in training.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# A sentence ends at . ! or ?, perhaps with a closing quotation mark, before a space and a capital or an
# opening mark.
_BREAK = re.compile(r'(?:(?<=[.!?])|(?<=[.!?]"))\s+(?=[A-Z"])')
_WORD = re.compile(r"[a-z0-9']+")


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlapReport:
    """The overlap of validation texts with training texts.

    Units: shares from 0 to 1 of the validation texts; every occurrence counts.
    """

    n_train_texts: int
    n_val_texts: int
    n_train_sentences: int  # different ones
    n_val_sentences: int  # different ones
    shared_texts: float
    shared_sentences: float
    shared_5grams: float
    shared_10grams: float


def sentences(text: str) -> list[str]:
    """Split a text into sentences; direct speech belongs to the sentence around it.

    Example:
        >>> sentences('"Come in! It is late," said Mia. Tom came in.')
        ['"Come in! It is late," said Mia.', 'Tom came in.']
    """
    found: list[str] = []
    for paragraph in text.splitlines():
        open_part = ""
        for part in _BREAK.split(paragraph.strip()):
            open_part = f"{open_part} {part}".strip()
            if open_part.count('"') % 2 == 0:
                found.append(open_part)
                open_part = ""
        found.append(open_part)
    return [sentence for sentence in found if sentence]


def overlap_report(train: Sequence[str], val: Sequence[str]) -> OverlapReport:
    """Measure how much of the validation texts occurs in the training texts.

    Example:
        >>> overlap_report(["The cat sat. The dog ran."], ["The dog ran. It was late."]).shared_sentences
        0.5
    """
    train_sentences, val_sentences = list(_all_sentences(train)), list(_all_sentences(val))
    return OverlapReport(
        n_train_texts=len(train),
        n_val_texts=len(val),
        n_train_sentences=len(set(train_sentences)),
        n_val_sentences=len(set(val_sentences)),
        shared_texts=_share(train, val),
        shared_sentences=_share(train_sentences, val_sentences),
        shared_5grams=_share(_ngrams(train, 5), _ngrams(val, 5)),
        shared_10grams=_share(_ngrams(train, 10), _ngrams(val, 10)),
    )


def _all_sentences(texts: Iterable[str]) -> Iterator[str]:
    return (sentence for text in texts for sentence in sentences(text))


def _ngrams(texts: Iterable[str], n: int) -> Iterator[tuple[str, ...]]:
    for text in texts:
        words = _WORD.findall(text.lower())
        yield from zip(*(words[start:] for start in range(n)))


def _share(train: Iterable[object], val: Iterable[object]) -> float:
    known = set(train)
    is_known = [item in known for item in val]
    return sum(is_known) / len(is_known) if is_known else 0.0
