"""Word tokenizers: the simplest method, and its limits.

For a word outside the vocabulary `StrictWordTokenizer` raises an error, `WordTokenizer` writes `<|unk|>` and
`LosslessWordTokenizer` spells the word out. All three need tens of thousands of entries to cover English; byte-pair
encoding (bpe_by_hand.py, bpe.py) does not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from scratchlm.core.errors import TokenizerError, UnknownWordError
from scratchlm.core.files import write_json
from scratchlm.tokenizers.decoding import WordStreamDecoder, look_up
from scratchlm.tokenizers.huggingface_json import words_to_json
from scratchlm.tokenizers.pretokenizer import check_unicode
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, UNKNOWN, check_allowed, split_on_special

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

# Source: "Build a Large Language Model (From Scratch)", chapter 2.
SPLIT_PATTERN = r"""[,.:;?_!"()']|--|\s"""
_SPLIT = re.compile(f"({SPLIT_PATTERN})")
_SPECIAL = re.compile(r"<\|[^<|>]+\|>")  # entries of this form are special tokens


def split_words(text: str, *, keep_space: bool = False) -> list[str]:
    """Split text into words and punctuation; white space is dropped unless keep_space is set.

    Example:
        >>> split_words("Hello, world. Is this-- a test?")
        ['Hello', ',', 'world', '.', 'Is', 'this', '--', 'a', 'test', '?']
    """
    return [piece for piece in _SPLIT.split(text) if piece and (keep_space or not piece.isspace())]


def build_vocab(words_or_text: Iterable[str] | str, *, special_tokens: Iterable[str] = ()) -> dict[str, int]:
    """Number the distinct words alphabetically, then the special tokens in the order given.

    Example:
        >>> build_vocab("the cat and the dog", special_tokens=["<|unk|>"])
        {'and': 0, 'cat': 1, 'dog': 2, 'the': 3, '<|unk|>': 4}
    """
    words = split_words(words_or_text) if isinstance(words_or_text, str) else words_or_text
    special_tokens = list(dict.fromkeys(special_tokens))
    ordinary = sorted(set(words) - set(special_tokens))
    return {word: id_ for id_, word in enumerate([*ordinary, *special_tokens])}


class _WordVocabulary:
    """The vocabulary of a word tokenizer, and the methods that depend only on it.

    Raises: TokenizerError when the ids are not 0, 1, 2 ... without gaps.
    """

    _keeps_space = False

    def __init__(self, vocab: Mapping[str, int]) -> None:
        for word in vocab:
            check_unicode(word)
        self.str_to_int = dict(vocab)
        n = len(vocab)
        if any(type(id_) is not int for id_ in vocab.values()) or {*vocab.values()} != {*range(n)}:
            raise TokenizerError(
                f"a vocabulary of {n} words must use each id from 0 to {n - 1} once; "
                "number the words with build_vocab."
            )
        self.int_to_str = {id_: word for word, id_ in vocab.items()}

    @property
    def vocab_size(self) -> int:
        """Number of ids, including special tokens."""
        return len(self.str_to_int)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The entries of the form `<|name|>` and their ids."""
        return {word: id_ for word, id_ in self.str_to_int.items() if _SPECIAL.fullmatch(word)}

    @property
    def end_of_text_id(self) -> int | None:
        """The id that separates documents, or None."""
        return self.str_to_int.get(END_OF_TEXT)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of the vocabulary and of the rule that splits text."""
        return hashlib.sha256(json.dumps(self._to_json(), sort_keys=True).encode()).hexdigest()

    def stream_decoder(self) -> WordStreamDecoder:
        """A decoder for ids that arrive one at a time."""
        return WordStreamDecoder(self.decode)

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` atomically."""
        write_json(path, self._to_json(), error=TokenizerError)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """Text of the ids.

        Raises: TokenizerError for an id outside the vocabulary.
        """
        return self._join(look_up(self.int_to_str, ids))

    def _join(self, words: Sequence[str]) -> str:
        raise NotImplementedError

    def _words(self, text: str, allowed_special: Collection[str]) -> Iterable[str]:
        check_unicode(text)
        for part, is_special in split_on_special(text, check_allowed(allowed_special, self.special_tokens)):
            yield from [part] if is_special else split_words(part, keep_space=self._keeps_space)

    def _to_json(self) -> dict[str, Any]:
        return words_to_json(
            type(self).__name__,
            self.str_to_int,
            self.special_tokens,
            split=SPLIT_PATTERN,
            keep_space=self._keeps_space,
        )


class StrictWordTokenizer(_WordVocabulary):
    """Raise an error for a word outside the vocabulary: the book's SimpleTokenizerV1.

    A special token between spaces is a word like any other, so text can contain it; BPETokenizer is safe from this.
    Decoding leaves a space before `:` and `;`, as in the book.
    Raises: UnknownWordError (also a KeyError) for a word outside the vocabulary.
    Example:
        >>> tokenizer = StrictWordTokenizer(build_vocab("the cat sat."))
        >>> tokenizer.decode(tokenizer.encode("the cat, sat."))
        Traceback (most recent call last):
        scratchlm.core.errors.UnknownWordError: ...
        >>> tokenizer.decode(tokenizer.encode("the cat."))
        'the cat.'
    """

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of the text's words."""
        return [_id_of(word, self.str_to_int) for word in self._words(text, allowed_special)]

    def _join(self, words: Sequence[str]) -> str:
        return re.sub(r"""\s+([,.?!"()'])""", r"\1", " ".join(words))


class WordTokenizer(_WordVocabulary):
    """Replace words outside the vocabulary by `<|unk|>`: the book's SimpleTokenizerV2.

    Unknown words are lost, and so are line ends and the spaces around apostrophes and dashes.
    Raises: UnknownWordError when a word is unknown and the vocabulary has no `<|unk|>`.
    Example:
        >>> tokenizer = WordTokenizer(build_vocab("the cat sat.", special_tokens=["<|unk|>"]))
        >>> tokenizer.decode(tokenizer.encode("the dog sat."))
        'the <|unk|> sat.'
    """

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of the text's words."""
        words = self._words(text, allowed_special)
        return [_id_of(word if word in self.str_to_int else UNKNOWN, self.str_to_int) for word in words]

    def _join(self, words: Sequence[str]) -> str:
        return re.sub(r"""\s+([,.:;?!"()'])""", r"\1", " ".join(words))


class LosslessWordTokenizer(_WordVocabulary):
    """Keep white space as tokens and spell unknown words letter by letter, so that no text is lost.

    Raises: UnknownWordError for a character outside the vocabulary.
    Example:
        >>> tokenizer = LosslessWordTokenizer.from_text("It's  the cat\\nand the dog -- in")
        >>> tokenizer.decode(tokenizer.encode("the  goat -- it's\\ndead"))
        "the  goat -- it's\\ndead"
    """

    _keeps_space = True

    @classmethod
    def from_text(cls, text: str, *, special_tokens: Iterable[str] = ()) -> LosslessWordTokenizer:
        """Build a vocabulary of the text's words and characters."""
        words = [*split_words(text, keep_space=True), *text]
        return cls(build_vocab(words, special_tokens=special_tokens))

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of the text's words and white space, and of the letters of unknown words."""
        allowed = check_allowed(allowed_special, self.special_tokens)
        ids: list[int] = []
        for word in self._words(text, allowed):
            is_known = word in self.str_to_int and (word in allowed or not _SPECIAL.fullmatch(word))
            ids += [_id_of(part, self.str_to_int) for part in ([word] if is_known else word)]
        return ids

    def _join(self, words: Sequence[str]) -> str:
        return "".join(words)


def loses_text(tokenizer: Tokenizer) -> bool:
    """Whether encoding loses text, which makes bits per byte meaningless."""
    return isinstance(tokenizer, (WordTokenizer, StrictWordTokenizer))


def _id_of(word: str, str_to_int: Mapping[str, int]) -> int:
    try:
        return str_to_int[word]
    except KeyError:
        raise UnknownWordError(
            f"{word!r} is not among the {len(str_to_int)} words of the vocabulary; add it, use WordTokenizer "
            "with <|unk|>, or use a BPE tokenizer, which can encode any text."
        ) from None
