"""`tokenizer.json`, the file format of Hugging Face `tokenizers`: what our tokenizers become in it, and back.

Such a file can describe many kinds of tokenizers. We write byte-level BPE and word-level ones, and read
byte-level BPE of anyone; a setting that would change ids and that we do not have is an error, never ignored.
`truncation` and `padding` are left to whoever builds batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.byte_symbols import from_symbols, to_symbols
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.pretokenizer import GPT2_PATTERN
from scratchlm.tokenizers.special_tokens import UNKNOWN

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


class BPEParts(NamedTuple):
    """What a BPE tokenizer is made of."""

    merges: list[Merge]
    vocab: dict[bytes, int]
    special_tokens: dict[str, int]
    pattern: str


def bpe_to_json(
    merges: Sequence[Merge], vocab: Mapping[bytes, int], special_tokens: Mapping[str, int], pattern: str
) -> dict[str, Any]:
    """The value to write as `tokenizer.json`.

    Raises: TokenizerError when a special token is spelt like an ordinary one, which the format cannot tell
    apart.
    """
    symbols = {to_symbols(token): id_ for token, id_ in vocab.items()}
    for special in special_tokens:
        if special in symbols:
            raise TokenizerError(
                f"tokenizer.json spells every token once, found the special token {special!r} equal to the "
                "spelling of an ordinary token; rename it."
            )
    pre_tokenizer: dict[str, Any] = _BYTE_LEVEL
    if pattern != GPT2_PATTERN:
        cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [cut, _BYTE_LEVEL | {"use_regex": False}]}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": _by_id(symbols | dict(special_tokens)),
        "merges": [[to_symbols(left), to_symbols(right)] for left, right in merges],
    }
    return _document(model, special_tokens, pre_tokenizer, decoder=_BYTE_LEVEL)


def bpe_from_json(value: Mapping[str, Any], *, where: str) -> BPEParts:
    """The parts of a byte-level BPE tokenizer from the value of a `tokenizer.json`.

    Raises: TokenizerError naming the file and the setting that is damaged or that we do not have.
    """
    model = _get(value, "model", dict, where)
    for holder, key, allowed in (
        (value, "normalizer", (None,)),
        (model, "dropout", (None, 0.0)),
        (model, "continuing_subword_prefix", (None, "")),
        (model, "end_of_word_suffix", (None, "")),
        (model, "byte_fallback", (None, False)),
        (model, "ignore_merges", (None, False)),
    ):
        if holder.get(key) not in allowed:
            raise _unsupported(where, key, holder[key])
    for key in ("post_processor", "decoder"):
        if value.get(key) is not None and _get(value, key, dict, where).get("type") != "ByteLevel":
            raise _unsupported(where, key, value[key])
    special_tokens = _special_tokens(value, where)
    symbols = _get(model, "vocab", dict, where)
    for token, id_ in special_tokens.items():
        if symbols.get(token, id_) != id_:
            raise TokenizerError(
                f"{where} must give {token!r} one id, found {id_} and {symbols[token]!r}; the file is "
                "damaged."
            )
    vocab = {
        from_symbols(token, where=where): id_ for token, id_ in symbols.items() if token not in special_tokens
    }
    merges = [_merge(pair, number, where) for number, pair in enumerate(_get(model, "merges", list, where))]
    return BPEParts(merges, vocab, special_tokens, _pattern(value.get("pre_tokenizer"), where))


def words_to_json(
    class_name: str,
    vocab: Mapping[str, int],
    special_tokens: Mapping[str, int],
    *,
    split: str,
    keep_space: bool,
) -> dict[str, Any]:
    """The value to write for a word tokenizer; `class_name` tells us later which one it was."""
    cuts: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
    ]
    if not keep_space:
        cuts.append({"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Removed", "invert": False})
    model = {
        "type": "WordLevel",
        "vocab": _by_id(vocab),
        "unk_token": UNKNOWN if class_name == "WordTokenizer" else "",
        "scratchlm": {"class": class_name},  # `tokenizers` passes over a key it does not know here
    }
    decoder = {"type": "Fuse"} if keep_space else None
    return _document(model, special_tokens, {"type": "Sequence", "pretokenizers": cuts}, decoder=decoder)


def words_from_json(value: Mapping[str, Any], *, where: str) -> tuple[str, dict[str, int], dict[str, int]]:
    """Class name, vocabulary and special tokens of a word tokenizer that we wrote."""
    model = _get(value, "model", dict, where)
    mark = model.get("scratchlm")
    class_name = mark.get("class") if isinstance(mark, dict) else None
    if not isinstance(class_name, str):
        raise TokenizerError(
            f"{where} must say which of our word tokenizers it holds, found no model.scratchlm.class; "
            "word-level files of other programs cannot be read."
        )
    return class_name, _get(model, "vocab", dict, where), _special_tokens(value, where)


def _document(
    model: Mapping[str, Any],
    special_tokens: Mapping[str, int],
    pre_tokenizer: Mapping[str, Any],
    *,
    decoder: Mapping[str, Any] | None,
) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": id_, "content": token, **plain} for token, id_ in _by_id(special_tokens).items()]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _by_id(ids: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _special_tokens(value: Mapping[str, Any], where: str) -> dict[str, int]:
    special_tokens: dict[str, int] = {}
    for entry in _get(value, "added_tokens", list, where) if value.get("added_tokens") is not None else []:
        if not isinstance(entry, dict):
            raise TokenizerError(
                f"{where} must hold added_tokens as objects, found {entry!r}; the file is damaged."
            )
        for key in ("single_word", "lstrip", "rstrip"):
            if entry.get(key):
                raise _unsupported(where, f"added_tokens: {key}", entry[key])
        special_tokens[_get(entry, "content", str, where)] = _get(entry, "id", int, where)
    return special_tokens


def _merge(pair: Any, number: int, where: str) -> Merge:
    """A merge is `["Ġ", "t"]`, or `"Ġ t"` in older files."""
    parts = pair.split(" ") if isinstance(pair, str) else pair
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) and p for p in parts):
        raise TokenizerError(
            f"{where} must hold pairs of tokens as merges, found {pair!r} at number {number}."
        )
    return from_symbols(parts[0], where=where), from_symbols(parts[1], where=where)


def _pattern(pre_tokenizer: Any, where: str) -> str:
    """GPT-2's pattern, or that of a Split in front of the byte level."""
    steps: Iterable[Any] = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        steps = _get(pre_tokenizer, "pretokenizers", list, where)
    match list(steps):
        case [{"type": "ByteLevel", "add_prefix_space": False} as last] if (
            last.get("use_regex", True) is True
        ):
            return GPT2_PATTERN
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
    raise _unsupported(where, "pre_tokenizer", pre_tokenizer)


def _get(holder: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = holder.get(key)
    if not isinstance(value, kind):
        raise TokenizerError(
            f"{where} must hold {key!r} as {kind.__name__}, found {value!r:.80}; the file is damaged or no "
            "tokenizer.json."
        )
    return value


def _unsupported(where: str, key: str, value: Any) -> TokenizerError:
    return TokenizerError(
        f"{where} must describe byte-level BPE as in GPT-2, found {key} = {value!r:.120}, which would "
        "change the ids; use the `tokenizers` package for this file."
    )
