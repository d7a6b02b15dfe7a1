"""Byte-pair encoding in its simplest form: read this first, then the fast bpe_trainer.py and bpe.py.

Training counts the pairs of neighbouring tokens, merges the most frequent pair into a new token, and repeats. Encoding
applies the learned merges to new text, in the order in which they were learned. That is the whole algorithm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import regex

from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER, ID_OF_BYTE
from scratchlm.tokenizers.patterns import GPT2_PATTERN

Pair = tuple[int, int]


class PlainBPE:
    """A byte-level BPE tokenizer without special tokens, written for clarity and not for speed.

    merges: each pair of ids and the id of the token that replaces it, in the order learned.
    tokens: the bytes of each id; the first 256 are the single bytes in GPT-2's order.

    Source: Sennrich et al. 2016, algorithm 1, on bytes as in Radford et al. 2019. The merges and ids equal those of
        `train_bpe` and `BPETokenizer`.
    Example:
        >>> tokenizer = PlainBPE.train("low lower lowest", n_merges=3)
        >>> [tokenizer.tokens[id_] for id_ in tokenizer.encode("lowly")]
        [b'low', b'l', b'y']
        >>> tokenizer.decode(tokenizer.encode("lowly"))
        'lowly'
    """

    def __init__(self) -> None:
        self.merges: dict[Pair, int] = {}
        self.tokens: list[bytes] = list(BYTES_IN_ID_ORDER)

    @classmethod
    def train(cls, text: str, n_merges: int) -> PlainBPE:
        """Learn up to n_merges merges; fewer when no pair is left."""
        tokenizer = cls()
        pieces = [byte_ids(piece) for piece in split_pieces(text)]
        for _ in range(n_merges):
            counts = Counter(pair for ids in pieces for pair in pairwise(ids))
            if not counts:
                break
            best = min(counts, key=lambda pair: (-counts[pair], pair))  # ties go to the smaller ids
            new_id = len(tokenizer.tokens)
            tokenizer.merges[best] = new_id
            tokenizer.tokens.append(tokenizer.tokens[best[0]] + tokenizer.tokens[best[1]])
            pieces = [replace_pair(ids, best, new_id) for ids in pieces]
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of the text: split it into pieces, then apply every merge to the bytes of each piece."""
        encoded: list[int] = []
        for piece in split_pieces(text):
            ids = byte_ids(piece)
            for pair, new_id in self.merges.items():
                ids = replace_pair(ids, pair, new_id)
            encoded += ids
        return encoded

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; bytes that are not valid UTF-8 become U+FFFD."""
        return b"".join(self.tokens[id_] for id_ in ids).decode("utf-8", errors="replace")


def split_pieces(text: str) -> list[str]:
    """Split into words with their leading space, numbers and punctuation; no merge crosses a border."""
    pieces: list[str] = regex.findall(GPT2_PATTERN, text)
    return pieces


def byte_ids(piece: str) -> list[int]:
    """Ids of the piece's UTF-8 bytes, before any merge."""
    return list(piece.encode("utf-8").translate(ID_OF_BYTE))


def replace_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of a pair, from left to right.

    Example:
        >>> replace_pair([1, 2, 3, 1, 2], (1, 2), 9)
        [9, 3, 9]
    """
    replaced: list[int] = []
    for id_ in ids:
        replaced.append(id_)
        if tuple(replaced[-2:]) == pair:
            replaced[-2:] = [new_id]
    return replaced
