"""Learning the merges: join the commonest pair of neighbours, again and again.

The text is never rescanned. Only distinct pieces matter ("the" may stand for 30,000 places), and for every
pair of neighbours we keep its count and its places, so that a merge touches only the places where it happens.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER
from scratchlm.tokenizers.merging import Merge

# A pair of ids is kept as one number, (left << _SHIFT) + right, which is quicker to look up than a tuple and
# has the order of the tie rule.
_SHIFT = 24
_BORDER = -1
_ID_OF_BYTE = bytes(BYTES_IN_ID_ORDER.index(bytes([byte])) for byte in range(256))


def learn_merges(
    piece_counts: Mapping[str, int],
    n_merges: int,
    *,
    min_frequency: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Merge]:
    """Up to n_merges merges, the first learned first; fewer when no pair occurs min_frequency times any more.

    When two pairs are equally common, the one with the smaller left id wins, then the one with the smaller
    right id, where bytes have ids 0 to 255 in GPT-2's order and the token of the i-th merge has id 256 + i.
    Source: the same rule, hence the same merges, as `tokenizers.trainers.BpeTrainer` on the byte alphabet.
    Example:
        >>> learn_merges({"low": 5, "lower": 2, "new": 6}, 2)
        [(b'l', b'o'), (b'lo', b'w')]
    """
    pairs = _PairIndex(piece_counts)
    tokens = list(BYTES_IN_ID_ORDER)
    merges: list[Merge] = []
    # Counts only fall after a pair first appears, so an entry of the heap is never too low. It may be too
    # high: such an entry goes back with its true count when it comes up.
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
    """All distinct pieces as one linked list of ids, and the count and places of every pair of neighbours.

    A place is the position of a pair's left part. A merged token stays at its left part's position; the
    position of its right part falls out of the list.
    """

    def __init__(self, piece_counts: Mapping[str, int]) -> None:
        self.ids = [_BORDER]  # borders keep neighbouring pieces apart
        self.weight = [0]  # how often the piece at this position occurs in the text
        for piece, count in piece_counts.items():
            data = piece.encode("utf-8").translate(_ID_OF_BYTE)
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
        """Turn every left-right pair into `joined`; return the pairs of neighbours that this creates."""
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
