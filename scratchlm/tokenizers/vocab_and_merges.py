"""Read a tokenizer from `vocab.json` and `merges.txt`, the older format of Hugging Face.

The files do not say how text is split or which tokens are special. That follows from the family, which
`tokenizer_config.json` or `config.json` names; tokens beyond the vocabulary are in `added_tokens.json` and
`tokenizer_config.json`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from scratchlm.core.errors import TokenizerError
from scratchlm.core.files import MAX_SETTINGS_BYTES, MAX_TOKENIZER_BYTES, read_json
from scratchlm.tokenizers.families import GPT2, QWEN2
from scratchlm.tokenizers.gpt2 import read_merges
from scratchlm.tokenizers.huggingface_json import BPEParts, BPEVariant, number_added_tokens, ordinary_tokens
from scratchlm.tokenizers.pretokenizer import ByteLevel
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

VOCAB_FILE, MERGES_FILE = "vocab.json", "merges.txt"
# Names in tokenizer_config.json, and in config.json.
_BY_CLASS = {"GPT2Tokenizer": GPT2, "CodeGenTokenizer": GPT2, "Qwen2Tokenizer": QWEN2}
_BY_MODEL = {"gpt2": GPT2, "starcoder2": GPT2, "qwen2": QWEN2, "qwen3": QWEN2}
_ANY_CLASS = (None, "PreTrainedTokenizer", "TokenizersBackend")  # these do not name the family
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTED = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_vocab_and_merges(folder: Path) -> BPEParts:
    """Read the parts of a BPE tokenizer from a folder with `vocab.json` and `merges.txt`.

    Raises: TokenizerError naming the file and the part that is damaged, or an unknown family.
    """
    symbols = _settings(folder / VOCAB_FILE, max_bytes=MAX_TOKENIZER_BYTES)
    merges = read_merges(folder / MERGES_FILE, limit=len(symbols))
    settings = _optional(folder / "tokenizer_config.json")
    variant = _variant(folder, settings)
    if settings.get("add_prefix_space") is True:
        *first, last = variant.steps
        assert isinstance(last, ByteLevel)
        variant = replace(variant, steps=(*first, replace(last, add_prefix_space=True)))
    entries = _added(folder, settings, symbols)
    added_tokens = number_added_tokens(entries, symbols, where=str(folder))
    if settings.get("add_bos_token") is True:
        variant = replace(variant, begin_of_text=_content(settings.get("bos_token", END_OF_TEXT)))
    vocab = ordinary_tokens(symbols, added_tokens, merges, where=str(folder))
    _check_complete(folder, vocab, merges)
    return BPEParts(merges, vocab, added_tokens, variant)


def _variant(folder: Path, settings: dict[str, Any]) -> BPEVariant:
    name = settings.get("tokenizer_class")
    name = name.removesuffix("Fast") if isinstance(name, str) else None
    if name in _BY_CLASS:
        return _BY_CLASS[name]
    model_type = _optional(folder / "config.json").get("model_type")
    if name in _ANY_CLASS and (model_type is None or str(model_type) in _BY_MODEL):
        return GPT2 if model_type is None else _BY_MODEL[model_type]
    raise TokenizerError(
        f"{folder} has no tokenizer.json and names none of the families {', '.join(_BY_CLASS)} (tokenizer_class "
        f"{name!r:.60}, model_type {model_type!r:.60}); load it with transformers and save it again, which writes "
        "tokenizer.json."
    )


def _added(folder: Path, settings: dict[str, Any], symbols: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries as in the added_tokens of a tokenizer.json, ordered by id."""
    entries: dict[str | None, dict[str, Any]] = {}
    for name, id_ in _optional(folder / "added_tokens.json").items():
        entries[name] = {"content": name, "id": id_, "normalized": True}
    decoder = settings.get("added_tokens_decoder")
    for id_, token in decoder.items() if isinstance(decoder, dict) else ():
        if not id_.isdecimal() or len(id_) > 9 or not isinstance(token, dict):
            raise TokenizerError(
                f"{folder}/tokenizer_config.json: added_tokens_decoder must map ids to tokens, got {id_!r:.60}; "
                "the file is damaged."
            )
        entries[_content(token)] = {"content": _content(token), "id": int(id_)} | _flags(token)
    named = _optional(folder / "special_tokens_map.json") | settings
    listed = [token for key in _LISTED if isinstance(named.get(key), list) for token in named[key]]
    for token in (END_OF_TEXT, *(named.get(key) for key in _NAMED), *listed):
        if (content := _content(token)) is None:
            continue
        id_ = entries[content]["id"] if content in entries else symbols.get(content)
        if id_ is not None:
            flags = entries.get(content, {})
            if not flags.get("special"):
                flags = {"normalized": False} | _flags(token) | {"special": True}
            entries[content] = {"content": content, "id": id_} | flags
    return sorted(entries.values(), key=lambda entry: entry["id"] if isinstance(entry["id"], int) else -1)


def _content(token: Any) -> str | None:
    """The string of a token, which in these files is a string or an object with flags."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _flags(token: Any) -> dict[str, Any]:
    return {key: token[key] for key in _FLAGS if key in token} if isinstance(token, dict) else {}


def _check_complete(folder: Path, vocab: dict[bytes, int], merges: list[tuple[bytes, bytes]]) -> None:
    made = {left + right for left, right in merges}
    unmade = [token for token in vocab if len(token) > 1 and token not in made]
    if not vocab or len(unmade) > len(vocab) // 20:  # a few tokens added by hand are fine
        raise TokenizerError(
            f"{folder}/{VOCAB_FILE} and {MERGES_FILE} do not belong together: no merge makes {len(unmade)} of the "
            f"{len(vocab)} tokens; one of the files is truncated: get both again."
        )


def _optional(path: Path) -> dict[str, Any]:
    return _settings(path) if path.is_file() else {}


def _settings(path: Path, *, max_bytes: int = MAX_SETTINGS_BYTES) -> dict[str, Any]:
    value = read_json(path, max_bytes=max_bytes, error=TokenizerError)
    if not isinstance(value, dict):
        raise TokenizerError(
            f"{path} must hold a JSON object, got {type(value).__name__}; download it again."
        )
    return value
