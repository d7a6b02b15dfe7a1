"""Byte-level byte-pair encoding (BPE), the tokenizer of GPT-2, which can encode any text.

bpe_by_hand.py is the same algorithm in its simplest form. Text is split into pieces (pretokenizer.py), a piece starts
as its UTF-8 bytes, and the learned merges join neighbours into longer tokens (merging.py). If all 256 bytes are tokens,
no text is unknown. Some families lack rare bytes, which are dropped or replaced with the family's unknown token.
"""

import hashlib
import json
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, SupportsIndex

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.core.files import write_json
from scratchlm.tokenizers.added_tokens import AddedToken, AddedTokenFinder
from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER, from_symbols, is_spelt_in_symbols, to_symbols
from scratchlm.tokenizers.decoding import StreamDecoder, look_up
from scratchlm.tokenizers.huggingface_json import BPEVariant, bpe_to_json
from scratchlm.tokenizers.merging import Merge, MergeTable
from scratchlm.tokenizers.pretokenizer import ByteLevel, PreTokenizer, check_unicode, steps_of
from scratchlm.tokenizers.special_tokens import END_NAMES, check_allowed
from scratchlm.tokenizers.tiktoken_engine import MAX_CHUNK_CHARS, build_encoding

# Cache of encoded pieces: Shakespeare's 297,833 pieces have 15,057 distinct ones. About 16 MB when full.
_CACHE_PIECES = 1 << 16
_CACHE_PIECE_CHARS = 64  # longer pieces are rarely repeated
_MAX_IDS = 1 << 22  # the largest vocabularies in use have 262,144 tokens
_MISSING = -1
_GPT2 = BPEVariant()


class BPETokenizer:
    """Encode text as ids and decode it without loss, if all of its bytes are in the vocabulary.

    merges: the pairs of tokens to join, in the order learned.
    vocab: the id of every token; by default the bytes come first in GPT-2's order, then one id for each merge.
    special_tokens: strings with their ids, or strings alone, which get the ids after the last token.
    added_tokens: further tokens that are matched literally in the text, with their settings.
    pattern: regular expression that splits text before merging, instead of the variant's steps.
    variant: the differences of a family from GPT-2; see BPEVariant.
    engine: "python" runs this package's code, "tiktoken" the same rules in Rust; the ids are equal.

    Raises: TokenizerError when the tables contradict each other; ConfigError for an invalid pattern or engine.
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
        added_tokens: Iterable[AddedToken] = (),
        pattern: str | None = None,
        variant: BPEVariant = _GPT2,
        engine: Literal["python", "tiktoken"] = "python",
    ) -> None:
        if engine not in ("python", "tiktoken"):
            raise ConfigError(f'engine must be "python" or "tiktoken", got {engine!r}; choose one of them.')
        self.merges = list(merges)
        self.vocab = number_tokens(self.merges) if vocab is None else dict(vocab)
        if not isinstance(special_tokens, Mapping):
            special_tokens = {token: len(self.vocab) + i for i, token in enumerate(special_tokens)}
        specials = (AddedToken(content=text, id=id_, special=True) for text, id_ in special_tokens.items())
        self.added_tokens = sorted((*specials, *added_tokens), key=lambda token: token.id)
        self.variant = variant if pattern is None else replace(variant, steps=steps_of(pattern))
        self._special_tokens = {token.content: token.id for token in self.added_tokens if token.special}
        self._bytes_of_id = _check_ids(self.vocab, self.added_tokens)
        self._table = MergeTable(self.merges, self.vocab)
        self._pretokenizer = PreTokenizer(self.variant.steps)
        self._finder = AddedTokenFinder(self.added_tokens, self.variant.normalizers)
        self._first_ids = [self.vocab.get(bytes([byte]), _MISSING) for byte in range(256)]
        self._unknown = self._find_unknown()
        self._check_variant(engine)
        self._cache: dict[str, list[int]] = {}
        self._encoding = build_encoding(self.merges, self.vocab) if engine == "tiktoken" else None
        self.engine = engine

    @property
    def vocab_size(self) -> int:
        """The largest id plus one; see `unused_ids` for ids without a token."""
        return self._bytes_of_id.n_ids

    @property
    def unused_ids(self) -> list[int]:
        """The ids below `vocab_size` without a token; they decode to nothing."""
        return [id_ for id_ in range(self.vocab_size) if id_ not in self._bytes_of_id]

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids."""
        return dict(self._special_tokens)

    @property
    def end_of_text_id(self) -> int | None:
        """The id that separates documents, or None."""
        return next((self._special_tokens[name] for name in END_NAMES if name in self._special_tokens), None)

    @property
    def begin_of_text_id(self) -> int | None:
        """The id that the model expects before every text, or None; `encode` does not add it."""
        token = self.variant.begin_of_text
        return None if token is None else self._special_tokens[token]

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of everything that determines the ids; the engine does not."""
        steps = [replace(s, trim_offsets=True) if isinstance(s, ByteLevel) else s for s in self.variant.steps]
        value = self._to_json(replace(self.variant, steps=tuple(steps), kept={}))
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of the text.

        Raises: TokenizerError for a lone surrogate, or an allowed special token that this tokenizer lacks.
        """
        check_unicode(text)
        ids: list[int] = []
        for part, id_ in self._finder.parts(text, check_allowed(allowed_special, self._special_tokens)):
            if id_ is not None:
                ids.append(id_)
            elif self._encoding is None:
                self._encode_part(part, ids)
            else:
                self._encode_part_by_tiktoken(part, ids)
        return ids

    def decode(self, ids: Iterable[SupportsIndex], *, errors: str = "replace") -> str:
        """Text of the ids; invalid UTF-8 becomes U+FFFD (`errors` as in bytes.decode)."""
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
        """A decoder for ids that arrive one at a time."""
        return StreamDecoder(self._bytes_of_id)

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json` with which Hugging Face's `tokenizers` gives the same ids."""
        write_json(path, self._to_json(self.variant), error=TokenizerError)

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
        whole = self.vocab.get(text) if self.variant.ignore_merges else None
        merged = self._table.apply(self._byte_ids(text)) if whole is None else [whole]
        if len(piece) <= _CACHE_PIECE_CHARS:
            if len(self._cache) >= _CACHE_PIECES:
                self._cache.clear()
            self._cache[piece] = merged
        return merged

    def _byte_ids(self, text: bytes) -> list[int]:
        """The ids of a piece's bytes before merging, with the rules for bytes that the vocabulary lacks."""
        first = [self._first_ids[byte] for byte in text]
        if _MISSING not in first:
            return first
        ids: list[int] = []
        unknown: list[int] = []  # `tokenizers` writes them when the next known byte comes
        for byte, id_ in zip(text, first):
            if id_ != _MISSING:
                ids += [*unknown, id_]
                unknown = []
            elif fallback := self._fallback(byte):
                ids += fallback
            elif not (unknown and self.variant.fuse_unk):
                unknown += self._unknown
        return ids + unknown

    def _fallback(self, byte: int) -> list[int]:
        """The tokens <0x..> for a missing byte; like `tokenizers`, one for each byte of its printable symbol."""
        names = [b"<0x%02X>" % part for part in to_symbols(bytes([byte])).encode()]
        has_all = self.variant.byte_fallback and all(name in self.vocab for name in names)
        return [self.vocab[name] for name in names] if has_all else []

    def _encode_part_by_tiktoken(self, text: str, ids: list[int]) -> None:
        assert self._encoding is not None
        for chunk in self._pretokenizer.chunks(text):
            if len(chunk) <= MAX_CHUNK_CHARS:
                ids += self._encoding.encode_ordinary(chunk)
            else:
                self._encode_part(chunk, ids)

    def _to_json(self, variant: BPEVariant) -> dict[str, Any]:
        return bpe_to_json(self.merges, self.vocab, self.added_tokens, variant)

    def _find_unknown(self) -> list[int]:
        """The id that replaces a byte missing from the vocabulary, if there is one."""
        name = self.variant.unk_token
        if name is None or _MISSING not in self._first_ids:
            return []
        ids = {to_symbols(token): id_ for token, id_ in self.vocab.items()}
        ids |= {token.content: token.id for token in self.added_tokens}
        if name not in ids:
            raise TokenizerError(
                f"unk_token must be a token of the vocabulary, got {name!r}; add it, or leave unk_token out to drop "
                "the bytes that the vocabulary lacks."
            )
        return [ids[name]]

    def _check_variant(self, engine: str) -> None:
        first = self.variant.begin_of_text
        if first is not None and first not in self._special_tokens:
            raise TokenizerError(
                f"begin_of_text must be one of the special tokens, got {first!r}; add it to them."
            )
        is_gpt2 = replace(self.variant, begin_of_text=None) == _GPT2 and _MISSING not in self._first_ids
        if engine == "tiktoken" and not is_gpt2:
            raise ConfigError(
                'engine="tiktoken" supports only GPT-2\'s rules with all 256 bytes, and this tokenizer differs; use '
                'engine="python".'
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}  # each worker process fills its own


def number_tokens(merges: Sequence[Merge]) -> dict[bytes, int]:
    """Number the tokens: the 256 bytes in GPT-2's order, then one token for each merge.

    Raises: TokenizerError when two merges give the same token.
    """
    vocab = {token: id_ for id_, token in enumerate(BYTES_IN_ID_ORDER)}
    for rank, (left, right) in enumerate(merges):
        if vocab.setdefault(left + right, 256 + rank) != 256 + rank:
            raise TokenizerError(
                f"each merge must make a new token, but merge number {rank} makes {left + right!r} again; "
                "pass the vocabulary with its ids, or drop the merge."
            )
    return vocab


class _BytesOfId(dict[int, bytes]):
    """The bytes of each id; b"" for an id without a token, a KeyError for one beyond the last."""

    n_ids = 0

    def __missing__(self, id_: SupportsIndex) -> bytes:
        number = operator.index(id_)  # a scalar tensor is not usable as a key, but has __index__
        if not 0 <= number < self.n_ids:
            raise KeyError(id_)
        return self.get(number, b"")


def _check_ids(vocab: Mapping[bytes, int], added_tokens: Sequence[AddedToken]) -> _BytesOfId:
    """Map ids to bytes, after checking that each id belongs to one token.

    An added token may also be an ordinary token, if its spelling and its id are the same.
    """
    bytes_of_id = _BytesOfId()
    own = [token for token in added_tokens if _needs_entry(token, vocab)]
    for token, id_ in (*vocab.items(), *((token.content.encode("utf-8"), token.id) for token in own)):
        if type(id_) is not int or not 0 <= id_ < _MAX_IDS:
            raise TokenizerError(
                f"ids must be integers from 0 to {_MAX_IDS - 1}, got {id_!r} for {token!r}; the vocabulary is damaged."
            )
        if id_ in bytes_of_id:
            raise TokenizerError(
                f"id {id_} belongs to both {bytes_of_id[id_]!r} and {token!r}; give one of them another id."
            )
        bytes_of_id[id_] = token
    if not bytes_of_id:
        raise TokenizerError("the vocabulary has no tokens; the file is truncated.")
    bytes_of_id.n_ids = max(bytes_of_id) + 1
    return bytes_of_id


def _needs_entry(token: AddedToken, vocab: Mapping[bytes, int]) -> bool:
    """Whether an added token needs an entry of its own.

    Raises: TokenizerError for an empty token, and for one that would replace an ordinary token.
    """
    check_unicode(token.content)
    same = from_symbols(token.content, where="") if is_spelt_in_symbols(token.content) else None
    if same is not None and vocab.get(same) == token.id:
        return False
    if not token.content or (same is not None and token.content.encode("utf-8") in vocab):
        raise TokenizerError(
            f"a special token must not be empty or equal to an ordinary token, got {token.content!r}; rename it."
        )
    return True
