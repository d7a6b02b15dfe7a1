"""Convert a BPE tokenizer to GGUF settings and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from scratchlm.checkpoints.usage import GGUF_ENDS, GGUF_TOKENS
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.tokenizers.added_tokens import AddedToken
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.byte_symbols import from_symbols, to_symbols
from scratchlm.tokenizers.families import CL100K, GPT2, LLAMA3, O200K, QWEN2, SMOLLM, TEKKEN
from scratchlm.tokenizers.huggingface_json import ordinary_tokens
from scratchlm.tokenizers.special_tokens import end_ids

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # llama.h, enum llama_token_type
# llama.cpp identifies pre-tokenizers by name (llama-vocab.cpp). It does not normalize, so text for Qwen must
# already be NFC, as nearly all text is.
_VARIANTS = (
    ("gpt-2", GPT2),
    ("default", GPT2),
    ("smollm", SMOLLM),
    ("starcoder", SMOLLM),
    ("llama-bpe", LLAMA3),
    ("dbrx", CL100K),
    ("gpt-4o", O200K),
    ("tekken", TEKKEN),
    ("qwen2", QWEN2),
    ("qwen2", dataclasses.replace(QWEN2, normalizers=())),
)
_ALIASES = {  # llama.cpp's names for the same pre-tokenizers in files of other models
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
    "pixtral": "llama-bpe",
    "midm-2.0": "llama-bpe",
    "minerva-7b": "starcoder",
    "mellum": "gpt-2",
    "a.x-4.0": "gpt-2",
    "trillion": "gpt-2",
    "smaug-bpe": "dbrx",
    "deepseek-r1-qwen": "qwen2",
    "megrez": "qwen2",
    "kormo": "qwen2",
}
_BEGINS_BY_DEFAULT = ("llama-bpe", "tekken")  # a begin-of-text token is added unless the file says otherwise


def tokenizer_settings(tokenizer: Tokenizer, *, vocab_size: int, task: Mapping[str, Any]) -> dict[str, Any]:
    """The `tokenizer.ggml.` settings without that prefix; ids without a token get a placeholder.

    The task's stop ids become GGUF's end-of-text, end-of-turn and end-of-message tokens, of which it has one each.

    Raises: ConfigError for a tokenizer that is not byte-level BPE, has a pre-tokenizer that llama.cpp lacks, or has no
        end-of-text token; or for a model with fewer ids than the tokenizer.
    """
    if not isinstance(tokenizer, BPETokenizer):
        raise ConfigError(
            f"GGUF needs a BPETokenizer, got {type(tokenizer).__name__}; llama.cpp has no such tokenizer."
        )
    variant = dataclasses.replace(  # llama.cpp drops bytes that the vocabulary lacks
        tokenizer.variant, begin_of_text=None, unk_token=None, fuse_unk=False, byte_fallback=False
    )
    names = [name for name, known in _VARIANTS if known == variant]
    if not names:
        raise ConfigError(
            f"GGUF needs the pre-tokenizer of GPT-2, SmolLM, Llama 3, GPT-4o or Qwen, got {variant!r:.200}; llama.cpp "
            "has no other: convert the model with --to hf or native."
        )
    ends = end_ids(tokenizer, task)
    if not ends:
        raise ConfigError(
            "GGUF needs a tokenizer with <|endoftext|>, got one without: llama.cpp would use id 11 as the end of a "
            "text; train the tokenizer with that special token."
        )
    if vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"the model has {vocab_size} ids, fewer than the {tokenizer.vocab_size} of its tokenizer; they do not "
            "belong together."
        )
    tokens = [f"[unused {id_}]" for id_ in range(vocab_size)]
    types = [_UNUSED] * vocab_size
    for token, id_ in tokenizer.vocab.items():
        tokens[id_], types[id_] = to_symbols(token), _NORMAL
    for added in tokenizer.added_tokens:
        if added.single_word or added.lstrip or added.rstrip:
            raise ConfigError(
                f"GGUF cannot store the matching rules of the added token {added}; convert the model with "
                "--to hf or native."
            )
        tokens[added.id], types[added.id] = added.content, _CONTROL if added.special else _USER_DEFINED
    named = {
        key: tokenizer.special_tokens[token]
        for key, token in ((key, task.get("chat_tokens", {}).get(name)) for name, key in GGUF_TOKENS.items())
        if token in tokenizer.special_tokens
    }
    begin = tokenizer.begin_of_text_id
    return {
        "model": "gpt2",
        "pre": names[0],
        "tokens": tokens,
        "token_type": types,
        "merges": [f"{to_symbols(left)} {to_symbols(right)}" for left, right in tokenizer.merges],
        "bos_token_id": ends[0] if begin is None else begin,  # GPT-2: the same token begins and ends a text
        **named,
        **dict(zip(GGUF_ENDS, ends)),
        "add_bos_token": begin is not None,
    }


def tokenizer_from_settings(metadata: Mapping[str, Any], *, where: str) -> BPETokenizer:
    """Build the tokenizer from a GGUF file's settings.

    Raises: CheckpointError when it is not byte-level BPE with a known pre-tokenizer; TokenizerError when its tables do
        not fit together.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    variants = dict(reversed(_VARIANTS))
    pre = _ALIASES.get(pre, pre) if isinstance(pre, str) else pre
    if kind != "gpt2" or not isinstance(pre, str) or pre not in variants:
        raise CheckpointError(
            f"{where} must have a tokenizer of type gpt2 with the pre-tokenizer {', '.join(variants)}, got "
            f"{kind!r:.40} with {pre!r:.40}; use a file with another tokenizer."
        )
    variant = variants[pre]
    if metadata.get("scratchlm.normalization") == "none":
        variant = dataclasses.replace(variant, normalizers=())
    tokens = _texts(metadata, "tokens", where)
    types = metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens):
        raise CheckpointError(
            f"{where} must have one token type for each of its {len(tokens)} tokens; download it again."
        )
    symbols: dict[str, int] = {}
    added_tokens: list[AddedToken] = []
    for id_, (token, type_) in enumerate(zip(tokens, types)):
        if type_ in (_CONTROL, _USER_DEFINED):
            added_tokens.append(AddedToken(content=token, id=id_, special=type_ == _CONTROL))
        else:
            from_symbols(token if type_ != _UNUSED else "", where=where)
        if type_ != _UNUSED:
            symbols[token] = id_
    merges = []
    for merge in _texts(metadata, "merges", where):
        left, _, right = merge.partition(" ")
        merges.append((from_symbols(left, where=where), from_symbols(right, where=where)))
    begin = metadata.get("tokenizer.ggml.bos_token_id")
    adds_begin = metadata.get("tokenizer.ggml.add_bos_token", pre in _BEGINS_BY_DEFAULT)
    begins = [token.content for token in added_tokens if adds_begin is True and token.id == begin]
    variant = dataclasses.replace(variant, begin_of_text=begins[0] if begins else None)
    vocab = ordinary_tokens(symbols, added_tokens, merges, where=where)
    return BPETokenizer(merges, vocab=vocab, added_tokens=added_tokens, variant=variant)


def _texts(metadata: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = metadata.get(f"tokenizer.ggml.{key}", [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise CheckpointError(
            f"{where} must hold tokenizer.ggml.{key} as a list of texts; download it again."
        )
    return found
