"""Tokens as the page shows them: their bytes, and the merges that made them."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import pairwise
from typing import Any

from scratchlm.assets.registry import find_file
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.token_bytes import bytes_of_token, text_of_token
from scratchlm.serving.models import ServedModel
from scratchlm.serving.own_schemas import MAX_MERGE_CHARACTERS, TokenizeRequest
from scratchlm.serving.request_errors import RequestError
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.word import split_words

GPT2_FILES = ("gpt2_bpe/encoder.json", "gpt2_bpe/vocab.bpe")


def tokenized(model: ServedModel | None, body: TokenizeRequest) -> dict[str, Any]:
    """The answer of `/api/tokenize`.

    Raises: RequestError for GPT-2's tokenizer without its files, and for merges of a tokenizer without any or of a
        long text.
    """
    if body.kind == "word":
        words = split_words(body.text)
        tokens = [{"id": None, "text": word, "bytes": list(word.encode())} for word in words]
        return {"kind": "word", "vocab_size": None, "n_tokens": len(words), "ids": [], "tokens": tokens}
    if body.kind == "gpt2":
        tokenizer = gpt2_on_this_machine()
    else:
        assert model is not None
        tokenizer = model.tokenizer
    ids = tokenizer.encode(body.text)
    found: dict[str, Any] = {
        "kind": body.kind,
        "vocab_size": tokenizer.vocab_size,
        "n_tokens": len(ids),
        "ids": ids,
        "tokens": [
            {"id": i, "text": text_of_token(tokenizer, i), "bytes": bytes_of_token(tokenizer, i)} for i in ids
        ],
    }
    if body.merges:
        found["merges"] = _merges(tokenizer, body.text, ids)
    return found


def has_gpt2() -> bool:
    """Whether the files of GPT-2's tokenizer are on this machine."""
    return all(find_file(name) is not None for name in GPT2_FILES)


@functools.cache
def gpt2_on_this_machine() -> Tokenizer:
    """GPT-2's tokenizer, if its files are there; nothing is downloaded.

    Raises: RequestError (404) with the command that fetches them.
    """
    encoder, merges = map(find_file, GPT2_FILES)
    if encoder is None or merges is None:
        message = "GPT-2's tokenizer is not on this machine; fetch it with `scratchlm data fetch gpt2_bpe`."
        raise RequestError(message, HTTPStatus.NOT_FOUND)
    return load_gpt2_tokenizer(encoder, merges)


def _merges(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> list[list[list[str]]]:
    """For each token its parts after every merge, from single bytes on."""
    if not isinstance(tokenizer, BPETokenizer):
        raise RequestError("a word tokenizer has no merges; leave merges out.")
    if len(text) > MAX_MERGE_CHARACTERS:
        message = f"merges are shown for at most {MAX_MERGE_CHARACTERS} characters, got {len(text)}; shorten the text."
        raise RequestError(message)
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    special = set(tokenizer.special_tokens.values())
    return [list(_states(tokenizer.token_bytes(i), ranks)) for i in ids if i not in special]


def _states(token: bytes, ranks: Mapping[Merge, int]) -> Iterator[list[str]]:
    """The parts of one token after each merge; of all pairs with a merge, the one learned first is joined."""
    parts = [bytes([byte]) for byte in token]
    while True:
        yield [part.decode("utf-8", "replace") for part in parts]
        pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not pairs:
            return
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
