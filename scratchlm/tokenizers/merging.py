"""Apply learned merges to the bytes of one piece of text.

Of all neighbours that have a merge, join the pair of the lowest rank (learned first), the leftmost if it occurs
several times, until no neighbours have a merge. The two functions here follow this rule and differ only in cost.
"""

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise, repeat

from scratchlm.core.errors import TokenizerError

Merge = tuple[bytes, bytes]

# Longer pieces go to merge_long; at this length both take the same time (random letters, GPT-2's merges).
LONG_PIECE_BYTES = 64
_NO_RANK = 1 << 60


class MergeTable:
    """The merges of a tokenizer by the ids of their two parts.

    Raises: TokenizerError when a part or the joined token is not in the vocabulary.
    """

    def __init__(self, merges: Sequence[Merge], vocab: Mapping[bytes, int]) -> None:
        for rank, (left, right) in enumerate(merges):
            for token in (left, right, left + right):
                if token not in vocab:
                    raise TokenizerError(
                        f"merge number {rank} (counted from 0) joins {left!r} and {right!r}, but the vocabulary has "
                        f"no token {token!r}; the file is damaged or its parts do not belong together."
                    )
        pairs = [(vocab[left], vocab[right]) for left, right in merges]
        self.joined = [vocab[left + right] for left, right in merges]  # by rank
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}  # the later of equal merges

    def apply(self, ids: list[int]) -> list[int]:
        """Merge the byte ids of one piece until nothing is left to merge; changes the list in place."""
        return merge_short(ids, self) if len(ids) <= LONG_PIECE_BYTES else merge_long(ids, self)


def merge_short(ids: list[int], table: MergeTable) -> list[int]:
    """Merge a piece of usual length: find the best pair, join it, repeat.

    Every round scans all pairs, so n bytes cost n * n steps, each of them a fast built-in.
    """
    rank_of = table.ranks.get
    ranks = list(map(rank_of, pairwise(ids), repeat(_NO_RANK)))  # ranks[i] belongs to ids[i], ids[i + 1]
    while ranks:
        best = min(ranks)
        if best == _NO_RANK:
            break
        i = ranks.index(best)  # the leftmost
        ids[i : i + 2] = [table.joined[best]]
        del ranks[i]
        if i > 0:
            ranks[i - 1] = rank_of((ids[i - 1], ids[i]), _NO_RANK)
        if i < len(ranks):
            ranks[i] = rank_of((ids[i], ids[i + 1]), _NO_RANK)
    return ids


def merge_long(ids: list[int], table: MergeTable) -> list[int]:
    """Merge a piece of any length: n bytes cost about n * log(n) steps.

    The tokens form a linked list. A heap holds, for every pair that has a merge, its rank and the place of its left
    part as one number, rank * n + place, which compares faster than a tuple. An entry whose pair no longer exists when
    it reaches the top is skipped.
    """
    n = len(ids)
    ids.append(-1)  # sentinel: the neighbour on either side of the piece, which has no merge
    before = [*range(-1, n)]
    after = [*range(1, n + 1), n]
    rank_of = table.ranks.get
    heap = [rank * n + i for i, rank in enumerate(map(rank_of, pairwise(ids))) if rank is not None]
    heapq.heapify(heap)
    while heap:
        rank, i = divmod(heapq.heappop(heap), n)
        j = after[i]
        if rank_of((ids[i], ids[j])) != rank:
            continue
        ids[i], ids[j] = table.joined[rank], -1
        after[i] = k = after[j]
        before[k] = i
        h = before[i]
        for place, pair in ((h, (ids[h], ids[i])), (i, (ids[i], ids[k]))):
            new_rank = rank_of(pair)
            if new_rank is not None:
                heapq.heappush(heap, new_rank * n + place)
    return [id_ for id_ in ids if id_ >= 0]
