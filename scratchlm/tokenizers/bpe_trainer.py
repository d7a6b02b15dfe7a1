"""Train a byte-level BPE tokenizer: learn which neighbouring tokens to merge.

bpe_by_hand.py shows the idea. This trainer finds the same merges without scanning the text again: it stores
only distinct pieces ("the" may occur 30,000 times), and updates the counts and places of all pairs of
neighbours, so that a merge changes only the places where it occurs.
"""

import heapq
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER, ID_OF_BYTE
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.patterns import GPT2_PATTERN
from scratchlm.tokenizers.pretokenizer import PreTokenizer, check_unicode, steps_of
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, split_on_special

# A pair of ids is stored as one number, (left << _SHIFT) + right: quicker to look up than a tuple, and in the order
# of the tie rule.
_SHIFT = 24
_BORDER = -1
_logger = logging.getLogger(__name__)


def check_vocab_size(vocab_size: int, *, n_special_tokens: int) -> None:
    """Check that a vocabulary has room for every byte and every special token.

    Raises: ConfigError.
    """
    smallest = 256 + n_special_tokens
    if vocab_size < smallest:
        raise ConfigError(
            f"vocab_size must hold 256 bytes and {n_special_tokens} special tokens, got {vocab_size}; "
            f"choose at least {smallest}."
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
    """Learn a vocabulary from text: 256 bytes, the merges in the order learned, then the special tokens.

    texts: documents, each read once, so a generator is accepted. A single string is one document.
    min_frequency: pairs that occur less often are never merged.
    progress: called with (merges learned, merges requested) after every merge.

    A text with too few different pairs gives a smaller vocabulary than vocab_size, with a warning. The string of a
    special token separates documents and is not learned from.

    Raises: ConfigError when vocab_size has no room for bytes and special tokens; DataError without text;
        TokenizerError for a lone surrogate.
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
        raise DataError("there is no text to train a tokenizer on; check the paths.")
    merges = learn_merges(piece_counts, n_merges, min_frequency=min_frequency, progress=progress)
    if len(merges) < n_merges:
        _logger.warning(
            "the text has pairs for only %d of %d merges, so the vocabulary has %d tokens instead of %d",
            *(len(merges), n_merges, vocab_size - n_merges + len(merges), vocab_size),
        )
    return BPETokenizer(merges, special_tokens=special_tokens, pattern=pattern)


def count_pieces(
    texts: Iterable[str], *, special_tokens: Iterable[str] = (), pattern: str = GPT2_PATTERN
) -> Counter[str]:
    """Count the distinct pieces of the text: the only input of training.

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


def learn_merges(
    piece_counts: Mapping[str, int],
    n_merges: int,
    *,
    min_frequency: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Merge]:
    """Learn at most n_merges merges, in order; fewer when no pair occurs min_frequency times any more.

    When two pairs are equally frequent, the one with the smaller left id wins, then the one with the smaller right
    id. Bytes have the ids 0 to 255 in GPT-2's order, and the token of the i-th merge has id 256 + i.
    Source: the same rule, hence the same merges, as `tokenizers.trainers.BpeTrainer` on the byte alphabet.
    Example:
        >>> learn_merges({"low": 5, "lower": 2, "new": 6}, 2)
        [(b'l', b'o'), (b'lo', b'w')]
    """
    pairs = _PairIndex(piece_counts)
    tokens = list(BYTES_IN_ID_ORDER)
    merges: list[Merge] = []
    # A pair's count only falls after the pair first appears, so an entry of the heap is never too low. An entry that
    # is too high goes back with its current count when it reaches the top.
    heap = [(-count, pair) for pair, count in pairs.counts.items()]
    heapq.heapify(heap)
    while heap and len(merges) < n_merges:
        negative_count, pair = heapq.heappop(heap)
        count = pairs.counts[pair]
        if count < max(min_frequency, 1):
            continue
        if count != -negative_count:
            heapq.heappush(heap, (-count, pair))
            continue
        left, right = pair >> _SHIFT, pair & ((1 << _SHIFT) - 1)
        for new_pair in pairs.join(left, right, len(tokens)):
            heapq.heappush(heap, (-pairs.counts[new_pair], new_pair))
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
        if progress is not None:
            progress(len(merges), n_merges)
    return merges


class _PairIndex:
    """All distinct pieces as one linked list of ids, with the count and places of every pair of neighbours.

    A place is the position of a pair's left part. A merged token stays at its left part's position; the position of
    its right part is removed from the list.
    """

    def __init__(self, piece_counts: Mapping[str, int]) -> None:
        self.ids = [_BORDER]  # borders separate neighbouring pieces
        self.weight = [0]  # how often the piece at this position occurs in the text
        for piece, count in piece_counts.items():
            data = piece.encode("utf-8").translate(ID_OF_BYTE)
            self.ids += [*data, _BORDER]
            self.weight += [count] * (len(data) + 1)
        self.before = [*range(-1, len(self.ids) - 1)]
        self.after = [*range(1, len(self.ids) + 1)]
        self.counts: defaultdict[int, int] = defaultdict(int)
        self.places: defaultdict[int, list[int]] = defaultdict(list)
        for i, (left, right) in enumerate(pairwise(self.ids)):
            if left != _BORDER and right != _BORDER:
                pair = (left << _SHIFT) + right
                self.counts[pair] += self.weight[i]
                self.places[pair].append(i)

    def join(self, left: int, right: int, joined: int) -> set[int]:
        """Replace every left-right pair by `joined`; return the new pairs of neighbours."""
        ids, before, after, counts, places = self.ids, self.before, self.after, self.counts, self.places
        created = set()
        for i in places.pop((left << _SHIFT) + right):
            j = after[i]
            if ids[i] != left or ids[j] != right:
                continue  # an earlier merge took one of the two, as in "aaa"
            weight, h, k = self.weight[i], before[i], after[j]  # h, (i, j), k are neighbours
            ids[i], ids[j] = joined, _BORDER
            after[i], before[k] = k, i
            if ids[h] != _BORDER:
                counts[(ids[h] << _SHIFT) + left] -= weight
                pair = (ids[h] << _SHIFT) + joined
                counts[pair] += weight
                places[pair].append(h)
                created.add(pair)
            if ids[k] != _BORDER:
                counts[(right << _SHIFT) + ids[k]] -= weight
                pair = (joined << _SHIFT) + ids[k]
                counts[pair] += weight
                places[pair].append(i)
                created.add(pair)
        return created
