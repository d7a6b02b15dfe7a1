"""Learning merges with incremental counts against counting everything anew."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER
from scratchlm.tokenizers.merge_learning import learn_merges


def learn_by_recounting(
    piece_counts: dict[str, int], n_merges: int, min_frequency: int = 1
) -> list[tuple[bytes, bytes]]:
    """The definition: count all pairs, merge the commonest (smallest ids first), begin again."""
    tokens = list(BYTES_IN_ID_ORDER)
    words = [([tokens.index(bytes([b])) for b in piece.encode()], n) for piece, n in piece_counts.items()]
    merges = []
    while len(merges) < n_merges:
        pairs: Counter[tuple[int, int]] = Counter()
        for ids, n in words:
            for pair in pairwise(ids):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < min_frequency:
            break
        for ids, _ in words:
            i = 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == best:
                    ids[i : i + 2] = [len(tokens)]
                i += 1
        merges.append((tokens[best[0]], tokens[best[1]]))
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return merges


@settings(deadline=None, database=None, max_examples=150)
@given(
    st.dictionaries(st.text("aab é", min_size=1, max_size=12), st.integers(1, 5), max_size=12),
    st.integers(1, 3),
)
def test_incremental_counts_learn_what_recounting_learns(piece_counts, min_frequency):
    learned = learn_merges(piece_counts, 30, min_frequency=min_frequency)
    assert learned == learn_by_recounting(piece_counts, 30, min_frequency)


def test_the_order_of_the_text_does_not_matter():
    counts = {"".join(random.Random(i).choices("abc", k=6)): i % 4 + 1 for i in range(40)}
    backwards = dict(reversed(counts.items()))
    assert learn_merges(counts, 40) == learn_merges(backwards, 40)


@pytest.mark.parametrize(
    ("pieces", "first"),
    [
        (["xy", "ab"], (b"a", b"b")),  # the smaller left id
        (["ac", "ab"], (b"a", b"b")),  # then the smaller right id
        ([" a", "ab"], (b"a", b"b")),  # by GPT-2's ids: a is 64, the space 220, though as bytes 32 < 97
        (["bcbc", "aaa"], (b"a", b"a")),  # overlapping pairs count twice, bc stands twice: a tie
    ],
)
def test_of_equally_common_pairs_the_smaller_ids_come_first(pieces, first):
    assert learn_merges(dict.fromkeys(pieces, 1), 1) == [first]


def test_progress_is_told_after_every_merge():
    told = []
    learn_merges({"abcd": 1}, 2, progress=lambda done, wanted: told.append((done, wanted)))
    assert told == [(1, 2), (2, 2)]
