"""Byte-level byte-pair encoding (BPE): the tokenizer of GPT-2, which knows every text.

Text is cut into pieces (pretokenizer.py), a piece's UTF-8 bytes are the first tokens, and learned merges join
neighbours into longer tokens (merging.py). As all 256 bytes are tokens, nothing is unknown.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, SupportsIndex

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.core.files import write_json
from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER
from scratchlm.tokenizers.huggingface_json import BPEVariant, bpe_to_json
from scratchlm.tokenizers.lookup import look_up
from scratchlm.tokenizers.merging import Merge, MergeTable
from scratchlm.tokenizers.pretokenizer import GPT2_PATTERN, PreTokenizer, check_unicode
from scratchlm.tokenizers.special_tokens import END_NAMES, check_allowed, split_on_special
from scratchlm.tokenizers.streaming import StreamDecoder
from scratchlm.tokenizers.tiktoken_engine import MAX_CHUNK_CHARS, build_encoding

# The ids of pieces seen before: of Shakespeare's 297,833 pieces 15,057 differ. About 16 MB when full.
_CACHE_PIECES = 1 << 16
_CACHE_PIECE_CHARS = 64  # longer pieces hardly ever come back
_NEVER_IN_UTF8 = {bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}  # a vocabulary may lack them


class BPETokenizer:
    """Text to ids and back, without loss, for any text.

    merges: the pairs of tokens to join, in the order they were learned.
    vocab: the id of every token; left out, the bytes come first in GPT-2's order, then one id for each merge.
    special_tokens: strings with their ids, or strings alone, which get the ids after the last token.
    pattern: how text is cut before merging; see pretokenizer.py.
    splits_digits, ignores_merges, normalization, begin_of_text: what later families do otherwise; see BPEVariant.
    engine: "python" runs the code on these pages, "tiktoken" the same rules in Rust; the ids are equal.

    Raises: TokenizerError when the tables do not fit together; ConfigError for a bad pattern or engine.
    Source: Sennrich et al. 2016 (BPE); Radford et al. 2019, section 2.2 (on bytes).
    Example:
        >>> tokenizer = BPETokenizer([(b"l", b"o"), (b"lo", b"w")], special_tokens=["<|endoftext|>"])
        >>> tokenizer.encode("lower")
        [257, 68, 81]
        >>> tokenizer.decode([257, 68, 81])
        'lower'
        >>> tokenizer.encode("low<|endoftext|>", allowed_special={"<|endoftext|>"})
        [257, 258]
    """

    def __init__(
        self,
        merges: Sequence[Merge],
        *,
        vocab: Mapping[bytes, int] | None = None,
        special_tokens: Mapping[str, int] | Iterable[str] = (),
        pattern: str = GPT2_PATTERN,
        engine: Literal["python", "tiktoken"] = "python",
        splits_digits: bool = False,
        ignores_merges: bool = False,
        normalization: str | None = None,
        begin_of_text: str | None = None,
    ) -> None:
        if engine not in ("python", "tiktoken"):
            raise ConfigError(f'engine must be "python" or "tiktoken", got {engine!r}; choose one of them.')
        self.merges = list(merges)
        self.vocab = number_tokens(self.merges) if vocab is None else dict(vocab)
        if not isinstance(special_tokens, Mapping):
            special_tokens = {token: len(self.vocab) + i for i, token in enumerate(special_tokens)}
        for token in special_tokens:
            check_unicode(token)
        self._special_tokens = dict(special_tokens)
        self._bytes_of_id = _check_ids(self.vocab, self._special_tokens)
        self._table = MergeTable(self.merges, self.vocab)
        self._id_of_byte = [self.vocab.get(bytes([byte]), -1) for byte in range(256)]
        self._pretokenizer = PreTokenizer(pattern, splits_digits=splits_digits)
        self.variant = BPEVariant(pattern, splits_digits, ignores_merges, normalization, begin_of_text)
        _check_variant(self.variant, self._special_tokens, engine)
        self._cache: dict[str, list[int]] = {}
        self._encoding = build_encoding(self.merges, self.vocab, pattern) if engine == "tiktoken" else None
        self.engine = engine

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._bytes_of_id)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens' strings and ids."""
        return dict(self._special_tokens)

    @property
    def end_of_text_id(self) -> int | None:
        """The id that separates documents, or None."""
        return next((self._special_tokens[name] for name in END_NAMES if name in self._special_tokens), None)

    @property
    def begin_of_text_id(self) -> int | None:
        """The id that the model expects before every text, or None; `encode` leaves it to the caller."""
        token = self.variant.begin_of_text
        return None if token is None else self._special_tokens[token]

    @property
    def pattern(self) -> str:
        """The regular expression that cuts text into pieces."""
        return self._pretokenizer.pattern

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of vocabulary, merges, special tokens and pattern; the engine does not matter."""
        return hashlib.sha256(json.dumps(self._to_json(), sort_keys=True).encode()).hexdigest()

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of the text.

        Raises: TokenizerError for a lone surrogate, or an allowed special token that this tokenizer lacks.
        """
        check_unicode(text)
        ids: list[int] = []
        for part, is_special in split_on_special(text, check_allowed(allowed_special, self._special_tokens)):
            if is_special:
                ids.append(self._special_tokens[part])
            elif self._encoding is None:
                self._encode_part(self._normalized(part), ids)
            else:
                self._encode_part_by_tiktoken(part, ids)
        return ids

    def encode_batch(self, texts: Iterable[str], *, allowed_special: Collection[str] = ()) -> list[list[int]]:
        """Ids of several texts."""
        return [self.encode(text, allowed_special=allowed_special) for text in texts]

    def decode(self, ids: Iterable[SupportsIndex], *, errors: str = "replace") -> str:
        """Text of any ids; where their bytes are not UTF-8, U+FFFD stands in (`errors` as in
        bytes.decode)."""
        return self.decode_bytes(ids).decode("utf-8", errors=errors)

    def decode_bytes(self, ids: Iterable[SupportsIndex]) -> bytes:
        """The exact bytes of the ids.

        Raises: TokenizerError for an id outside the vocabulary.
        """
        return b"".join(look_up(self._bytes_of_id, ids))

    def token_bytes(self, id_: int) -> bytes:
        """The bytes of one token."""
        return self.decode_bytes([id_])

    def stream_decoder(self) -> StreamDecoder:
        """A decoder for ids that arrive one by one."""
        return StreamDecoder(self._bytes_of_id)

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json` that Hugging Face's `tokenizers` loads with equal ids."""
        write_json(path, self._to_json(), error=TokenizerError)

    def _normalized(self, text: str) -> str:
        return text if self.variant.normalization is None else unicodedata.normalize("NFC", text)

    def _encode_part(self, text: str, ids: list[int]) -> None:
        cache = self._cache
        for pieces in self._pretokenizer.pieces(text):
            for piece in pieces:
                try:
                    ids += cache[piece]
                except KeyError:
                    ids += self._encode_piece(piece)

    def _encode_piece(self, piece: str) -> list[int]:
        text = piece.encode("utf-8")
        whole = self.vocab.get(text) if self.variant.ignores_merges else None
        merged = self._table.apply([self._id_of_byte[byte] for byte in text]) if whole is None else [whole]
        if len(piece) <= _CACHE_PIECE_CHARS:
            if len(self._cache) >= _CACHE_PIECES:
                self._cache.clear()
            self._cache[piece] = merged
        return merged

    def _encode_part_by_tiktoken(self, text: str, ids: list[int]) -> None:
        assert self._encoding is not None
        for chunk in self._pretokenizer.chunks(text):
            if len(chunk) <= MAX_CHUNK_CHARS:
                ids += self._encoding.encode_ordinary(chunk)
            else:
                self._encode_part(chunk, ids)

    def _to_json(self) -> dict[str, Any]:
        return bpe_to_json(self.merges, self.vocab, self._special_tokens, self.variant)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}  # worker processes fill their own


def _check_variant(variant: BPEVariant, special_tokens: Mapping[str, int], engine: str) -> None:
    if variant.normalization not in (None, "NFC"):
        raise ConfigError(
            f'normalization must be None or "NFC", got {variant.normalization!r}; choose one of them.'
        )
    if variant.begin_of_text is not None and variant.begin_of_text not in special_tokens:
        raise TokenizerError(
            f"begin_of_text must be one of the special tokens, found {variant.begin_of_text!r}; add it to them."
        )
    if engine == "tiktoken" and (variant.splits_digits or variant.ignores_merges or variant.normalization):
        raise ConfigError(
            'engine="tiktoken" runs GPT-2\'s rules only, found a tokenizer with others; use engine="python".'
        )


def number_tokens(merges: Sequence[Merge]) -> dict[bytes, int]:
    """Ids in the order of learning: the 256 bytes in GPT-2's order, then one token for each merge.

    Raises: TokenizerError when two merges make the same token.
    """
    vocab = {token: id_ for id_, token in enumerate(BYTES_IN_ID_ORDER)}
    for rank, (left, right) in enumerate(merges):
        if vocab.setdefault(left + right, 256 + rank) != 256 + rank:
            raise TokenizerError(
                f"each merge must make a new token, found merge number {rank} making {left + right!r} "
                "again; give the vocabulary with its ids, or drop the merge."
            )
    return vocab


def _check_ids(vocab: Mapping[bytes, int], special_tokens: Mapping[str, int]) -> dict[int, bytes]:
    """Id to bytes, once it is certain that every byte has a token and the ids are 0, 1, 2 ... without
    holes."""
    entries = [*vocab.items(), *((token.encode("utf-8"), id_) for token, id_ in special_tokens.items())]
    bytes_of_id: dict[int, bytes] = {}
    for token, id_ in entries:
        if type(id_) is not int or not 0 <= id_ < len(entries):
            raise TokenizerError(
                f"ids must be whole numbers from 0 to {len(entries) - 1} for {len(entries)} tokens, found "
                f"{id_!r} for {token!r}; the vocabulary is damaged or has holes."
            )
        if id_ in bytes_of_id:
            raise TokenizerError(
                f"each id must belong to one token, found {id_} for {bytes_of_id[id_]!r} and for "
                f"{token!r}; give one of them another id."
            )
        bytes_of_id[id_] = token
    for token in BYTES_IN_ID_ORDER:
        if token not in vocab and token not in _NEVER_IN_UTF8:
            raise TokenizerError(
                f"the vocabulary must hold all 256 single bytes, found none for {token!r}; train with the "
                "full byte alphabet (initial_alphabet=ByteLevel.alphabet())."
            )
    for special in special_tokens:
        if not special or special.encode("utf-8") in vocab:
            raise TokenizerError(
                f"a special token must not be empty or equal an ordinary token, found {special!r}; rename it."
            )
    return bytes_of_id
