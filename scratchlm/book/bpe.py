"""The bonus class of chapter 2: a byte-pair tokenizer that can be trained, loaded and saved."""

import itertools
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.core.files import MAX_TOKENIZER_BYTES, read_json, write_json
from scratchlm.tokenizers import bpe_by_hand
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER, from_symbols, to_symbols
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, check_allowed, split_on_special

N_BASE_IDS = 257  # the book's: 256 characters and a second symbol for the space
_SPACE_ID, _UNUSED_ID = 256, 32  # the space has a symbol of its own, so the character's id 32 is never used
_UNUSED = "<|unused|>"


class BPETokenizerSimple:
    """A BPETokenizer with the book's methods and its numbering: bytes, the space at 256, special tokens, merges.

    Differences from the book's class: it works on bytes, so no character is unknown and decoding restores every line
    end and space; merges stay within a word and its leading space as in GPT-2, so training finds other merges (but as
    many), and encoding applies them in the order learned; tokens are spelt in GPT-2's byte symbols, including line
    ends. A special token added to both dictionaries is recognised from then on.

    Raises: TokenizerError when used before `train` or one of the `load` methods.
    Example:
        >>> tokenizer = BPETokenizerSimple()
        >>> tokenizer.train("low lower lowest", vocab_size=260)
        >>> tokenizer.encode("low"), tokenizer.decode([259, 256, 259])
        ([259], 'low low')
    """

    def __init__(self) -> None:
        self._trained: BPETokenizer | None = None
        self.vocab: dict[int, str] = {}  # id to token, spelt in GPT-2's byte symbols
        self.inverse_vocab: dict[str, int] = {}
        self.bpe_merges: dict[tuple[int, int], int] = {}  # pair of ids to the merged id, in the order learned
        self.bpe_ranks: dict[tuple[str, str], int] = {}  # pair of tokens to its position in that order

    def train(
        self, text: str, vocab_size: int, allowed_special: Collection[str] | None = frozenset({END_OF_TEXT})
    ) -> None:
        """Learn merges from a text until the vocabulary has the given size or no pair is left.

        Raises: ConfigError when vocab_size has no room for the 257 base ids and the special tokens.
        """
        special = sorted(allowed_special or ())
        if vocab_size < N_BASE_IDS + len(special):
            raise ConfigError(
                f"vocab_size must hold {N_BASE_IDS} base ids and {len(special)} special tokens, got "
                f"{vocab_size}; choose at least {N_BASE_IDS + len(special)}."
            )
        merges = train_bpe([text], vocab_size - 1, special_tokens=special).merges if text else ()
        vocab = {bytes([byte]): byte for byte in range(256)} | {b" ": _SPACE_ID}
        special_tokens = {_UNUSED: _UNUSED_ID}
        special_tokens |= {token: N_BASE_IDS + i for i, token in enumerate(special)}
        first_merge = N_BASE_IDS + len(special)
        vocab |= {left + right: first_merge + rank for rank, (left, right) in enumerate(merges)}
        self._become(BPETokenizer(merges, vocab=vocab, special_tokens=special_tokens))

    def encode(self, text: str, allowed_special: Collection[str] | None = None) -> list[int]:
        """Ids of the text.

        Raises: TokenizerError (a ValueError, as in the book) for a special token in the text that is not allowed, and
            for an allowed one that is not in the vocabulary.
        """
        tokenizer = self._ready()
        is_any = bool(allowed_special) or "<|" in text
        special = {token: id_ for token, id_ in self.inverse_vocab.items() if is_any and _is_special(token)}
        allowed = check_allowed(allowed_special or (), special)
        ids: list[int] = []
        for part, is_special in split_on_special(text, special.keys() - {_UNUSED}):
            if is_special and part not in allowed:
                raise TokenizerError(
                    f"the text contains the special token {part!r}, which is not allowed; "
                    f"call encode with allowed_special={{{part!r}}}."
                )
            ids += [special[part]] if is_special else tokenizer.encode(part)
        return ids

    def tokenize_with_bpe(self, token: str) -> list[int]:
        """Ids of one word, whose leading space is written as its symbol Ġ."""
        return self._ready().encode(from_symbols(token, where="the word").decode("utf-8"))

    def decode(self, token_ids: Iterable[SupportsIndex]) -> str:
        """Text of the ids."""
        tokenizer = self._ready()
        names = ((id_, self.vocab.get(operator.index(id_), "")) for id_ in token_ids)
        data = b"".join(
            name.encode() if _is_special(name) else tokenizer.decode_bytes([id_]) for id_, name in names
        )
        return data.decode("utf-8", errors="replace")

    @staticmethod
    def find_freq_pair(
        token_ids: Sequence[int] | Sequence[Sequence[int]], mode: str = "most"
    ) -> tuple[int, int] | None:
        """The most or least frequent pair of neighbours in ids or rows of ids; the first of several, None without one.

        Raises: ConfigError for another mode.
        """
        if mode not in ("most", "least"):
            raise ConfigError(f"mode must be 'most' or 'least', got {mode!r}; choose one.")
        pairs = Counter(pair for row in _rows(token_ids) for pair in itertools.pairwise(row))
        return (max if mode == "most" else min)(pairs, key=pairs.__getitem__, default=None)

    @staticmethod
    def replace_pair(token_ids: Sequence[Any], pair_id: tuple[int, int], new_id: int) -> list[Any]:
        """Replace every occurrence of a pair in ids or rows of ids, from left to right."""
        pair = (pair_id[0], pair_id[1])
        replaced = [bpe_by_hand.replace_pair(row, pair, new_id) for row in _rows(token_ids)]
        return replaced if _is_rows(token_ids) else replaced[0]

    def get_special_token_id(self, token: str) -> int | None:
        """The id of a token, or None."""
        return self.inverse_vocab.get(token)

    def load_vocab_and_merges_from_openai(self, vocab_path: str | Path, bpe_merges_path: str | Path) -> None:
        """Load GPT-2's tokenizer from its `encoder.json` and `vocab.bpe`."""
        self._become(load_gpt2_tokenizer(vocab_path, bpe_merges_path))
        for end in "\n\r":
            self.inverse_vocab[end] = self.inverse_vocab[to_symbols(end.encode())]

    def save_vocab_and_merges(self, vocab_path: str | Path, bpe_merges_path: str | Path) -> None:
        """Write the book's two JSON files: id to token, and the merges as pairs of ids."""
        self._ready()
        merges = [{"pair": list(pair), "new_id": new_id} for pair, new_id in self.bpe_merges.items()]
        write_json(vocab_path, {str(id_): token for id_, token in self.vocab.items()}, error=TokenizerError)
        write_json(bpe_merges_path, merges, error=TokenizerError)

    def load_vocab_and_merges(self, vocab_path: str | Path, bpe_merges_path: str | Path) -> None:
        """Load the files written by `save_vocab_and_merges`.

        Raises: TokenizerError for damaged files, and for those of the book's own class, whose tokens are characters.
        """
        names = _read_names(Path(vocab_path))
        merges = _read_merge_ids(Path(bpe_merges_path))
        special_tokens = {name: id_ for id_, name in names.items() if _is_special(name)}
        ordinary = {id_: name for id_, name in names.items() if name not in special_tokens}
        tokens = {id_: from_symbols(name, where=str(vocab_path)) for id_, name in ordinary.items()}
        unknown = sorted({id_ for pair in merges for id_ in pair} - set(tokens))
        if unknown:
            raise TokenizerError(
                f"id {unknown[0]} in {bpe_merges_path} is not in {vocab_path}; the two files do not belong together."
            )
        missing = set(BYTES_IN_ID_ORDER) - set(tokens.values())
        if missing:
            raise TokenizerError(f"{vocab_path} has no token for the byte {min(missing)!r}; save it again.")
        trained = BPETokenizer(
            [(tokens[left], tokens[right]) for left, right in merges],
            vocab={token: id_ for id_, token in tokens.items()},
            special_tokens=special_tokens,
        )
        self._become(trained)

    def _become(self, trained: BPETokenizer) -> None:
        names = {id_: to_symbols(token) for token, id_ in trained.vocab.items()}
        names |= {id_: token for token, id_ in trained.special_tokens.items()}
        id_of = trained.vocab
        self._trained = trained
        self.vocab = dict(sorted(names.items()))
        self.inverse_vocab = {token: id_ for id_, token in self.vocab.items()}
        self.bpe_merges = {(id_of[left], id_of[right]): id_of[left + right] for left, right in trained.merges}
        pairs = ((to_symbols(left), to_symbols(right)) for left, right in trained.merges)
        self.bpe_ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def _ready(self) -> BPETokenizer:
        if self._trained is None:
            raise TokenizerError(
                "the tokenizer has no vocabulary yet; call train() or one of the load methods first."
            )
        return self._trained


def _is_special(token: str) -> bool:
    return token.startswith("<|") and token.endswith("|>")


def _is_rows(token_ids: Sequence[Any]) -> bool:
    return bool(token_ids) and isinstance(token_ids[0], Sequence)


def _rows(token_ids: Sequence[Any]) -> Sequence[Sequence[int]]:
    return token_ids if _is_rows(token_ids) else [token_ids]


def _read_names(path: Path) -> dict[int, str]:
    value = read_json(path, max_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError)
    is_fine = isinstance(value, dict) and all(
        id_.isascii() and id_.isdigit() and len(id_) < 10 and isinstance(name, str)
        for id_, name in value.items()
    )
    if not is_fine:
        raise TokenizerError(f"{path} does not map ids to tokens; save it again.")
    return {int(id_): name for id_, name in value.items()}


def _read_merge_ids(path: Path) -> list[tuple[int, int]]:
    value = read_json(path, max_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError)
    merges: list[tuple[int, int]] = []
    for entry in value if isinstance(value, list) else [None]:
        match entry:
            case {"pair": [int(left), int(right)], "new_id": int()}:
                merges.append((left, right))
            case _:
                raise TokenizerError(
                    f'{path} is not a list of {{"pair": [id, id], "new_id": id}}; save the tokenizer again.'
                )
    return merges
