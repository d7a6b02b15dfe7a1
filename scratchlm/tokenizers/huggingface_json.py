"""Read and write `tokenizer.json`, the file format of Hugging Face `tokenizers`.

The format describes many kinds of tokenizers. This module writes byte-level BPE and word-level tokenizers, and reads
byte-level BPE from any program. An unsupported part that affects ids raises an error. `truncation` and
`padding` are kept when a file is read and written again; `encode` applies neither.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.added_tokens import AddedToken
from scratchlm.tokenizers.byte_symbols import from_symbols, is_spelt_in_symbols, to_symbols
from scratchlm.tokenizers.json_steps import read_steps, unsupported, write_steps
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.normalizers import NORMALIZERS, Normalizer, Replace
from scratchlm.tokenizers.pretokenizer import STEPS, ByteLevel, Step
from scratchlm.tokenizers.special_tokens import UNKNOWN

_DECODER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_MAX_GROWTH = 1000  # of a text by successive replacements, whose growth multiplies
_KEPT = ("truncation", "padding", "post_processor")


@dataclass(frozen=True, kw_only=True, slots=True)
class BPEVariant:
    """How a family's byte-level BPE differs from GPT-2's."""

    normalizers: tuple[Normalizer, ...] = ()  # changes to the text before it is split, such as NFC in Qwen
    steps: tuple[Step, ...] = (ByteLevel(),)  # steps that split text before merging
    ignore_merges: bool = False  # a piece that is a token becomes that token, as in Llama 3
    unk_token: str | None = None  # replaces a byte that the vocabulary lacks; None drops such a byte
    fuse_unk: bool = False  # one unk_token for a run of such bytes
    byte_fallback: bool = False  # tokens such as <0x0A> replace such bytes, where the vocabulary has them
    begin_of_text: str | None = None  # the special token that the family's template puts first, as in Llama 3
    kept: Mapping[str, Any] = field(default_factory=dict, compare=False)  # what `encode` does not use


class BPEParts(NamedTuple):
    """The arguments from which a BPETokenizer is built."""

    merges: list[Merge]
    vocab: dict[bytes, int]
    added_tokens: list[AddedToken]
    variant: BPEVariant


def bpe_to_json(
    merges: Sequence[Merge],
    vocab: Mapping[bytes, int],
    added_tokens: Sequence[AddedToken],
    variant: BPEVariant,
) -> dict[str, Any]:
    """The content of `tokenizer.json` for a BPE tokenizer.

    Raises: TokenizerError when an added token is spelt like an ordinary one with another id, which the format cannot
        express.
    """
    symbols = {to_symbols(token): id_ for token, id_ in vocab.items()}
    for token in added_tokens:
        if symbols.setdefault(token.content, token.id) != token.id:
            raise TokenizerError(
                f"the added token {token.content!r} is spelt like an ordinary token, which tokenizer.json cannot "
                "express; rename it."
            )
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": variant.unk_token,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": variant.fuse_unk,
        "byte_fallback": variant.byte_fallback,
        "ignore_merges": variant.ignore_merges,
        "vocab": _by_id(symbols),
        "merges": [[to_symbols(left), to_symbols(right)] for left, right in merges],
    }
    pre_tokenizer = write_steps(variant.steps, section="pre_tokenizer")
    document = _document(model, added_tokens, pre_tokenizer, decoder=_DECODER)
    document["normalizer"] = write_steps(variant.normalizers, section="normalizer")
    if (first := variant.begin_of_text) is not None:
        document["post_processor"] = _begins_with(first, symbols[first])
    return document | dict(variant.kept)


def bpe_from_json(value: Mapping[str, Any], *, where: str) -> BPEParts:
    """Read the parts of a byte-level BPE tokenizer from the content of a `tokenizer.json`.

    Raises: TokenizerError naming the file and the part that is damaged or not supported.
    """
    model = _get(value, "model", dict, where)
    for key, allowed in (
        ("dropout", (None, 0.0)),
        ("continuing_subword_prefix", (None, "")),
        ("end_of_word_suffix", (None, "")),
        ("byte_fallback", (None, False, True)),
        ("fuse_unk", (None, False, True)),
        ("ignore_merges", (None, False, True)),
    ):
        if model.get(key) not in allowed:
            raise unsupported(where, key, model[key])
    _check_decoder(value.get("decoder"), where)
    symbols = _get(model, "vocab", dict, where)
    added_tokens = number_added_tokens(value.get("added_tokens"), symbols, where=where)
    merges = _merges(_get(model, "merges", list, where), where)
    splitting = value.get("pre_tokenizer")
    steps: tuple[Step, ...] = read_steps(splitting, STEPS, section="pre_tokenizer", where=where)
    if not steps or not isinstance(steps[-1], ByteLevel):
        raise unsupported(where, "pre_tokenizer", splitting)
    normalizers = read_steps(value.get("normalizer"), NORMALIZERS, section="normalizer", where=where)
    growth = math.prod(len(step.content) or 1 for step in normalizers if isinstance(step, Replace))
    if growth > _MAX_GROWTH:
        raise TokenizerError(
            f"{where}: the replacements may make a text {growth:,} times as long, and {_MAX_GROWTH} is the limit; "
            "use another copy."
        )
    unk_token = model.get("unk_token") or None
    variant = BPEVariant(
        normalizers=normalizers,
        steps=steps,
        ignore_merges=model.get("ignore_merges") is True,
        unk_token=unk_token if unk_token is None else _get(model, "unk_token", str, where),
        fuse_unk=model.get("fuse_unk") is True,
        byte_fallback=model.get("byte_fallback") is True,
        begin_of_text=_begin_of_text(value.get("post_processor"), where),
        kept={key: value[key] for key in _KEPT if value.get(key) is not None},
    )
    vocab = ordinary_tokens(symbols, added_tokens, merges, where=where)
    return BPEParts(merges, vocab, added_tokens, variant)


def ordinary_tokens(
    symbols: Mapping[str, int], added_tokens: Sequence[AddedToken], merges: Sequence[Merge], *, where: str
) -> dict[bytes, int]:
    """The bytes and ids of the ordinary tokens; an added token is one only as a single byte or if merges need it.

    A token with characters that are no byte symbols is never produced by encoding; its id still decodes to them.
    Raises: TokenizerError for a token that is not valid Unicode, and for two with the same bytes.
    """
    added = {token.content for token in added_tokens}
    spelt = {from_symbols(token, where="") for token in added if is_spelt_in_symbols(token)}
    needed = {part for left, right in merges for part in (left, right, left + right) if part in spelt}
    vocab: dict[bytes, int] = {}
    for token, id_ in symbols.items():
        is_spelt = is_spelt_in_symbols(token)
        try:
            text = from_symbols(token, where=where) if is_spelt else token.encode()
        except UnicodeEncodeError as cause:
            raise TokenizerError(
                f"{where} has the token {token!r:.80}, which is not valid Unicode; download it again."
            ) from cause
        if token not in added or (is_spelt and (len(text) == 1 or text in needed)):
            if text in vocab:
                raise TokenizerError(
                    f"{where} has {text!r} twice, with ids {vocab[text]!r} and {id_!r}, once in byte symbols "
                    "and once as it is; list the latter among the added tokens."
                )
            vocab[text] = id_
    return vocab


def number_added_tokens(entries: Any, symbols: Mapping[str, int], *, where: str) -> list[AddedToken]:
    """Number the added tokens as `tokenizers` does: by the vocabulary, or else with the next ids after it.

    Where a gap in the vocabulary's ids would make two ids equal, the entry's own id is used.
    entries: objects with content, id and flags, as the file lists them.

    Raises: TokenizerError when an entry contradicts the vocabulary.
    """
    tokens: dict[str, AddedToken] = {}
    next_id, taken = len(symbols), {id_ for id_ in symbols.values() if isinstance(id_, int)}
    for entry in _get({"added_tokens": entries or []}, "added_tokens", list, where):
        if not isinstance(entry, dict):
            raise TokenizerError(
                f"{where}: added_tokens must be objects, got {entry!r}; the file is damaged."
            )
        flags = {key: flag for key, flag in entry.items() if key not in ("content", "id")}
        for key, flag in flags.items():
            if key not in AddedToken.__slots__ or not isinstance(flag, bool):
                raise unsupported(where, f"added_tokens: {key}", flag)
        content, id_ = _get(entry, "content", str, where), _get(entry, "id", int, where)
        if content in symbols and symbols[content] != id_:
            raise TokenizerError(
                f"{where} gives {content!r} two ids, {id_} and {symbols[content]!r}; the file is damaged."
            )
        if content in tokens or not content:
            continue
        if content not in symbols and next_id not in taken:
            id_, next_id = next_id, next_id + 1
        tokens[content] = AddedToken(content=content, id=id_, **flags)
    return list(tokens.values())


def words_to_json(
    class_name: str,
    vocab: Mapping[str, int],
    special_tokens: Mapping[str, int],
    *,
    split: str,
    keep_space: bool,
) -> dict[str, Any]:
    """The content of `tokenizer.json` for a word tokenizer; `class_name` is stored to read it back."""
    patterns = {split: "Isolated"} | ({} if keep_space else {r"\s+": "Removed"})
    cuts = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}
        for pattern, behavior in patterns.items()
    ]
    model = {
        "type": "WordLevel",
        "vocab": _by_id(vocab),
        "unk_token": UNKNOWN if class_name == "WordTokenizer" else "",
        "scratchlm": {"class": class_name},  # `tokenizers` ignores an unknown key here
    }
    decoder = {"type": "Fuse"} if keep_space else None
    added = [AddedToken(content=token, id=id_, special=True) for token, id_ in special_tokens.items()]
    return _document(model, added, {"type": "Sequence", "pretokenizers": cuts}, decoder=decoder)


def words_from_json(value: Mapping[str, Any], *, where: str) -> tuple[str, dict[str, int], dict[str, int]]:
    """Class name, vocabulary and special tokens of a word tokenizer written by `words_to_json`."""
    model = _get(value, "model", dict, where)
    mark = model.get("scratchlm")
    class_name = mark.get("class") if isinstance(mark, dict) else None
    if not isinstance(class_name, str):
        raise TokenizerError(
            f"{where} has no model.scratchlm.class, which names the kind of word tokenizer; "
            "word-level files of other programs cannot be read."
        )
    vocab = _get(model, "vocab", dict, where)
    added = number_added_tokens(value.get("added_tokens"), vocab, where=where)
    return class_name, vocab, {token.content: token.id for token in added}


def _document(
    model: Mapping[str, Any],
    added_tokens: Sequence[AddedToken],
    pre_tokenizer: Mapping[str, Any] | None,
    *,
    decoder: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [asdict(token) for token in sorted(added_tokens, key=lambda token: token.id)],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _by_id(ids: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _merges(values: list[Any], where: str) -> list[Merge]:
    """A merge is `["Ġ", "t"]`, or `"Ġ t"` in older files, which may also contain the header of merges.txt."""
    merges = []
    spelt: dict[str, bytes] = {}  # most parts occur in several merges
    for number, pair in enumerate(values):
        if isinstance(pair, str) and pair.startswith("#version"):
            continue
        parts = pair.split(" ") if isinstance(pair, str) else pair
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) and p for p in parts):
            raise TokenizerError(
                f"{where}: merges must be pairs of tokens, got {pair!r} at number {number}; the file is damaged."
            )
        for part in parts:
            if part not in spelt:
                spelt[part] = from_symbols(part, where=where)
        merges.append((spelt[parts[0]], spelt[parts[1]]))
    return merges


def _check_decoder(decoder: Any, where: str) -> None:
    """Check that ids decode by their bytes; joining the text afterwards changes nothing."""
    match decoder:
        case None | {"type": "ByteLevel"} | {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}:
            return
        case {"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Fuse"}]}:
            return
    raise unsupported(where, "decoder", decoder)


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


def _begin_of_text(post_processor: Any, where: str) -> str | None:
    """The special token that a template puts before every text, or None; tokens after the text are ignored."""
    steps: list[Any] = [] if post_processor is None else [post_processor]
    if isinstance(post_processor, dict) and post_processor.get("type") == "Sequence":
        steps = _get(post_processor, "processors", list, where)
    first: str | None = None
    for step in steps:
        match step:
            case {"type": "ByteLevel"} | {"type": "TemplateProcessing", "single": [{"Sequence": _}, *_]}:
                pass  # changes offsets only, or puts nothing first
            case {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": str(token)}}, {"Sequence": _}, *_],
            } | {
                "type": "RobertaProcessing" | "BertProcessing",
                "cls": [str(token), int()],
                "sep": [str(), int()],
            }:
                first = token
            case _:
                raise unsupported(where, "post_processor", post_processor)
    return first


def _get(holder: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = holder.get(key)
    if not isinstance(value, kind):
        raise TokenizerError(
            f"{where}: {key!r} must be of type {kind.__name__}, got {value!r:.80}; the file is damaged or not a "
            "tokenizer.json."
        )
    return value
