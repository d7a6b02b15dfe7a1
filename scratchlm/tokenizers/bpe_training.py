"""Training a byte-level BPE tokenizer on one's own text."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.merge_learning import learn_merges
from scratchlm.tokenizers.patterns import GPT2_PATTERN
from scratchlm.tokenizers.pretokenizer import PreTokenizer, check_unicode, steps_of
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, split_on_special

_logger = logging.getLogger(__name__)


def check_vocab_size(vocab_size: int, *, n_special_tokens: int) -> None:
    """Refuse a vocabulary without room for every byte.

    Raises: ConfigError.
    """
    if vocab_size < 256 + n_special_tokens:
        raise ConfigError(
            f"vocab_size must hold 256 bytes and {n_special_tokens} special tokens, got {vocab_size}; "
            f"choose at least {256 + n_special_tokens}."
        )


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Iterable[str] = (END_OF_TEXT,),
    min_frequency: int = 1,
    pattern: str = GPT2_PATTERN,
    progress: Callable[[int, int], None] | None = None,
) -> BPETokenizer:
    """Learn a vocabulary from text: 256 bytes, then the merges in the order learned, then the special tokens.

    texts: documents; a generator will do, as each is looked at once. One string is one document.
    min_frequency: pairs that occur less often are never merged.
    progress: called with (merges learned, merges wanted) after every merge.

    When the text has too few different pairs, the vocabulary stays smaller than vocab_size, and a warning
    says so.
    Of equally common pairs the one with the smaller ids is merged first, as in Hugging Face `tokenizers`; see
    `learn_merges`. A special token's string in the text separates documents and is not learned from.

    Raises: ConfigError when vocab_size has no room for bytes and special tokens; DataError when there is no
    text; TokenizerError for a lone surrogate.
    Example:
        >>> tokenizer = train_bpe(["low lower lowest, new newer newest"], 262)
        >>> [tokenizer.token_bytes(id_) for id_ in range(256, 262)]
        [b'we', b'lo', b'ne', b' ne', b'st', b'<|endoftext|>']
    """
    special_tokens = list(special_tokens)
    check_vocab_size(vocab_size, n_special_tokens=len(special_tokens))
    n_merges = vocab_size - 256 - len(special_tokens)
    if len(set(special_tokens)) != len(special_tokens) or "" in special_tokens:
        raise ConfigError(
            f"special tokens must be distinct and not empty, got {special_tokens}; correct the list."
        )
    piece_counts = count_pieces(texts, special_tokens=special_tokens, pattern=pattern)
    if not piece_counts:
        raise DataError("training a tokenizer needs text, found none; check the paths.")
    merges = learn_merges(piece_counts, n_merges, min_frequency=min_frequency, progress=progress)
    if len(merges) < n_merges:
        _logger.warning(
            "the text has pairs for %d merges only, %d were wanted: the vocabulary has %d tokens, not %d",
            *(len(merges), n_merges, vocab_size - n_merges + len(merges), vocab_size),
        )
    return BPETokenizer(merges, special_tokens=special_tokens, pattern=pattern)


def count_pieces(
    texts: Iterable[str], *, special_tokens: Iterable[str] = (), pattern: str = GPT2_PATTERN
) -> Counter[str]:
    """How often each distinct piece occurs: all that training needs to know of the text.

    Example:
        >>> count_pieces(["the cat and the dog and the end"]).most_common(2)
        [(' and', 2), (' the', 2)]
    """
    pretokenizer = PreTokenizer(steps_of(pattern))
    separators = frozenset(special_tokens)
    counts: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        check_unicode(text)
        for part, is_special in split_on_special(text, separators):
            if not is_special:
                for pieces in pretokenizer.pieces(part):
                    counts.update(pieces)
    return counts
