"""Measure how well a tokenizer fits a text: tokens per word, bytes per token, and text lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scratchlm.core.errors import DataError

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerMeasures:
    """Measures of a tokenizer on one text."""

    n_tokens: int
    n_used: int  # distinct ids in the encoded text
    bytes_per_token: float | None  # of UTF-8 text; higher means shorter sequences; None without a token
    fertility: float | None  # tokens per word between white space; at least 1, None without a word
    characters_kept: float  # share of the characters that survive encoding and decoding
    words_kept: float | None  # share of the words that survive; None without a word
    vocabulary_used: float  # n_used as a share of the vocabulary


def tokenizer_measures(tokenizer: Tokenizer, text: str, *, ids: list[int] | None = None) -> TokenizerMeasures:
    """Measure a tokenizer on a text; pass `ids` if the text is already encoded.

    Characters and words kept are counted without regard to order. A byte-level vocabulary keeps everything; a word
    vocabulary loses white space and unknown words.
    Source: fertility as in Rust et al. 2021, section 4.
    Raises: DataError for an empty text; TokenizerError when the tokenizer cannot encode it.
    Example:
        >>> from scratchlm.tokenizers.word import WordTokenizer
        >>> measures = tokenizer_measures(WordTokenizer({"a": 0, "b": 1, "c": 2, "<|unk|>": 3}), "a b a d")
        >>> measures.fertility, measures.words_kept, measures.vocabulary_used
        (1.0, 0.75, 0.75)
    """
    if not text:
        raise DataError("the text to measure a tokenizer on is empty; give some words.")
    ids = tokenizer.encode(text) if ids is None else ids
    decoded = tokenizer.decode(ids)
    words = text.split()
    return TokenizerMeasures(
        n_tokens=len(ids),
        n_used=len(set(ids)),
        bytes_per_token=len(text.encode("utf-8", "surrogatepass")) / len(ids) if ids else None,
        fertility=len(ids) / len(words) if words else None,
        characters_kept=_share_kept(text, decoded),
        words_kept=_share_kept(words, decoded.split()) if words else None,
        vocabulary_used=len(set(ids)) / tokenizer.vocab_size,
    )


def _share_kept(before: Iterable[str], after: Iterable[str]) -> float:
    counts = Counter(before)
    return (counts & Counter(after)).total() / counts.total()
