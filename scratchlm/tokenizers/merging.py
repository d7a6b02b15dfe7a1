"""Applying learned merges: how the bytes of one piece of text become tokens.

The rule is short: of all neighbours that have a merge, join those of the lowest rank (learned first), from
left to right, until no neighbours have a merge. The two functions here follow it; they differ only in what
they cost.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise, repeat

from scratchlm.core.errors import TokenizerError

Merge = tuple[bytes, bytes]

# Longer pieces go to merge_long; here both take equal time (random letters, GPT-2's merges).
LONG_PIECE_BYTES = 64
_NO_RANK = 1 << 60


class MergeTable:
    """The merges of a tokenizer by the ids of their two parts.

    Raises: TokenizerError when a part or the joined token is not in the vocabulary, or merges stand in an
    order in which no training can have learned them.
    """

    def __init__(self, merges: Sequence[Merge], vocab: Mapping[bytes, int]) -> None:
        _check_order(merges, vocab)
        self.pairs = [(vocab[left], vocab[right]) for left, right in merges]  # by rank
        self.joined = [vocab[left + right] for left, right in merges]  # by rank
        self.ranks = {pair: rank for rank, pair in enumerate(self.pairs)}

    def apply(self, ids: list[int]) -> list[int]:
        """Merge the byte ids of one piece until nothing is left to merge; the list given is used up."""
        return merge_short(ids, self) if len(ids) <= LONG_PIECE_BYTES else merge_long(ids, self)


def merge_short(ids: list[int], table: MergeTable) -> list[int]:
    """Merge a piece of ordinary length: find the best neighbours, join them, repeat.

    Every round looks at all neighbours, so n bytes cost n * n steps, each of them a fast built-in.
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
    """Merge a piece of any length in time that grows like its length.

    The tokens form a linked list. A heap holds the ranks that occur somewhere; for each, `places` lists where
    its left part stands. A merge makes only neighbours of higher rank (MergeTable checks it), so each rank is
    done once.
    """
    n = len(ids)
    ids.append(-1)  # sentinel: the neighbour on either side of the piece, part of no merge
    before = [*range(-1, n)]
    after = [*range(1, n + 1), n]
    rank_of = table.ranks.get
    places: defaultdict[int, list[int]] = defaultdict(list)
    for i, rank in enumerate(map(rank_of, pairwise(ids))):
        if rank is not None:
            places[rank].append(i)
    heap = list(places)
    heapq.heapify(heap)
    while heap:
        best = heapq.heappop(heap)
        left_id, right_id = table.pairs[best]
        joined = table.joined[best]
        for i in sorted(places.pop(best)):
            j = after[i]
            if ids[i] != left_id or ids[j] != right_id:
                continue  # an earlier merge took one of the two, as in "aaa"
            ids[i], ids[j] = joined, -1
            after[i] = k = after[j]
            before[k] = i
            for place, pair in ((before[i], (ids[before[i]], joined)), (i, (joined, ids[k]))):
                rank = rank_of(pair)
                if rank is None:
                    continue
                if rank not in places:
                    heapq.heappush(heap, rank)
                places[rank].append(place)
    return [id_ for id_ in ids if id_ >= 0]


def _check_order(merges: Sequence[Merge], vocab: Mapping[bytes, int]) -> None:
    """Parts must be bytes or made by earlier merges; once a token is used, no later merge may make it."""
    made = {bytes([byte]) for byte in range(256)}
    used: set[bytes] = set()
    seen: set[Merge] = set()
    for rank, (left, right) in enumerate(merges):
        joined = left + right
        if joined not in vocab:
            raise _bad_merge(rank, left, right, f"but the vocabulary has no token {joined!r}")
        if left not in made or right not in made:
            raise _bad_merge(
                rank, left, right, f"but no earlier merge makes {left if left not in made else right!r}"
            )
        if joined in used or (left, right) in seen:
            raise _bad_merge(
                rank, left, right, f"but an earlier merge already uses {joined!r} or repeats this one"
            )
        made.add(joined)
        used |= {left, right}
        seen.add((left, right))


def _bad_merge(rank: int, left: bytes, right: bytes, problem: str) -> TokenizerError:
    return TokenizerError(
        f"merges must stand in the order in which they were learned, found merge number {rank} (counted "
        f"from 0) joining {left!r} and {right!r}, {problem}; the file is damaged or its parts do not "
        "belong together."
    )
