"""`tokenizer.json`, the file format of Hugging Face `tokenizers`: what our tokenizers become in it, and back.

Such a file can describe many kinds of tokenizers. We write byte-level BPE and word-level ones, and read
byte-level BPE of anyone; a setting that would change ids and that we do not have is an error, never ignored.
`truncation` and `padding` are left to whoever builds batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.byte_symbols import from_symbols, to_symbols
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.pretokenizer import GPT2_PATTERN
from scratchlm.tokenizers.special_tokens import UNKNOWN

_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


class BPEVariant(NamedTuple):
    """Where later families' byte-level BPE differs from GPT-2's."""

    pattern: str = GPT2_PATTERN  # how text is cut before merging
    splits_digits: bool = False  # every digit is a piece of its own, as in SmolLM 2
    ignores_merges: bool = False  # a piece that is a token is that token, as in Llama 3
    normalization: str | None = None  # "NFC": letters with accents are put together first, as in Qwen
    begin_of_text: str | None = None  # the special token that their templates put first, as in Llama 3


class BPEParts(NamedTuple):
    """What a BPE tokenizer is made of."""

    merges: list[Merge]
    vocab: dict[bytes, int]
    special_tokens: dict[str, int]
    variant: BPEVariant


def bpe_to_json(
    merges: Sequence[Merge],
    vocab: Mapping[bytes, int],
    special_tokens: Mapping[str, int],
    variant: BPEVariant,
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
    steps: list[dict[str, Any]] = [_DIGITS] if variant.splits_digits else []
    if variant.pattern == GPT2_PATTERN:
        steps.append(_BYTE_LEVEL)
    else:
        cut = {"type": "Split", "pattern": {"Regex": variant.pattern}, "behavior": "Isolated"}
        steps += [cut | {"invert": False}, _BYTE_LEVEL | {"use_regex": False}]
    pre_tokenizer = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": variant.ignores_merges,
        "vocab": _by_id(symbols | dict(special_tokens)),
        "merges": [[to_symbols(left), to_symbols(right)] for left, right in merges],
    }
    document = _document(model, special_tokens, pre_tokenizer, decoder=_BYTE_LEVEL)
    if variant.normalization is not None:
        document["normalizer"] = {"type": variant.normalization}
    if (token := variant.begin_of_text) is not None:
        document["post_processor"] = _begins_with(token, special_tokens[token])
    return document


def bpe_from_json(value: Mapping[str, Any], *, where: str) -> BPEParts:
    """The parts of a byte-level BPE tokenizer from the value of a `tokenizer.json`.

    Raises: TokenizerError naming the file and the setting that is damaged or that we do not have.
    """
    model = _get(value, "model", dict, where)
    for holder, key, allowed in (
        (model, "dropout", (None, 0.0)),
        (model, "continuing_subword_prefix", (None, "")),
        (model, "end_of_word_suffix", (None, "")),
        (model, "byte_fallback", (None, False)),
        (model, "ignore_merges", (None, False, True)),
    ):
        if holder.get(key) not in allowed:
            raise _unsupported(where, key, holder[key])
    if value.get("decoder") is not None and _get(value, "decoder", dict, where).get("type") != "ByteLevel":
        raise _unsupported(where, "decoder", value["decoder"])
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
    pattern, splits_digits = _cuts(value.get("pre_tokenizer"), where)
    variant = BPEVariant(
        pattern,
        splits_digits=splits_digits,
        ignores_merges=model.get("ignore_merges") is True,
        normalization=_normalization(value.get("normalizer"), where),
        begin_of_text=_begin_of_text(value.get("post_processor"), special_tokens, where),
    )
    return BPEParts(merges, vocab, special_tokens, variant)


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


def _cuts(pre_tokenizer: Any, where: str) -> tuple[str, bool]:
    """GPT-2's pattern, or that of a Split in front of the byte level; and whether digits are cut off first."""
    steps: list[Any] = [pre_tokenizer]
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        steps = _get(pre_tokenizer, "pretokenizers", list, where)
    splits_digits = len(steps) > 1 and steps[0] == _DIGITS
    match steps[1:] if splits_digits else steps:
        case [{"type": "ByteLevel", "add_prefix_space": False} as last] if (
            last.get("use_regex", True) is True
        ):
            return GPT2_PATTERN, splits_digits
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern, splits_digits
    raise _unsupported(where, "pre_tokenizer", pre_tokenizer)


def _normalization(normalizer: Any, where: str) -> str | None:
    if normalizer is None:
        return None
    if normalizer != {"type": "NFC"}:
        raise _unsupported(where, "normalizer", normalizer)
    return "NFC"


def _begins_with(token: str, id_: int) -> dict[str, Any]:
    """The template that puts a special token before every text."""
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": n}} for n, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [first, a],
        "pair": [first, a, {"SpecialToken": {"id": token, "type_id": 1}}, b],
        "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]}},
    }


def _begin_of_text(post_processor: Any, special_tokens: Mapping[str, int], where: str) -> str | None:
    """The special token that a template puts before every text, or None."""
    steps: list[Any] = [] if post_processor is None else [post_processor]
    if isinstance(post_processor, dict) and post_processor.get("type") == "Sequence":
        steps = _get(post_processor, "processors", list, where)
    first: str | None = None
    for step in steps:
        match step:
            case {"type": "ByteLevel"} | {"type": "TemplateProcessing", "single": [{"Sequence": _}]}:
                pass  # changes offsets only, or nothing
            case {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": str(token)}}, {"Sequence": _}],
            } if token in special_tokens:
                first = token
            case _:
                raise _unsupported(where, "post_processor", post_processor)
    return first


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
