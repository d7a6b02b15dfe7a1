"""Read a model's stop ids and its chat template from its files.

They become part of the model's task: `stop_ids`, `chat_template` (Jinja text), and `chat_tokens`, the special
tokens under the names that templates use.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import read_utf8
from scratchlm.core.json_table import JSONTable, read_json_table
from scratchlm.core.protocols import Tokenizer
from scratchlm.tokenizers.special_tokens import end_ids

USAGE_KEYS = ("stop_ids", "chat_template", "chat_tokens")
MAX_TEMPLATE_BYTES = 1 << 20  # the longest known have 20 kB
MAX_STOP_IDS = 1000
TEMPLATE_FILE = "chat_template.jinja"
TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MARKS = (  # tokens that end an assistant's turn if the template uses them; llama.cpp has the same list
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>",
    "<|endofturn|>", "<|end_of_role|>", "<|return|>", "<|eot|>", "<|eom|>", "<EOT>", "</s>",
)  # fmt: skip
GGUF_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
GGUF_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # llama.cpp's spelling
    "pad_token": "padding_token_id",
}


def usage_of_folder(folder: Path, tokenizer: Tokenizer, *, n_ids: int) -> dict[str, Any]:
    """Stop ids and chat template of a Hugging Face folder.

    n_ids: the model's vocabulary size; stop ids beyond it are dropped.
    Raises: CheckpointError naming the file and the value that has the wrong type.
    """
    files = ("generation_config.json", "config.json", "tokenizer_config.json", "special_tokens_map.json")
    settings = {name: _table(folder / name) for name in files}
    tokens: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for name in TOKEN_NAMES:
            value = settings[file].get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if value is not None:
                tokens[name] = _text(value, where=f"{folder / file}: {name}")
    stops: list[int] = []
    for file in ("generation_config.json", "config.json"):
        stops += _ids(settings[file].get("eos_token_id"), where=f"{folder / file}: eos_token_id")
    if not stops and (eos := _named_ids(tokenizer).get(tokens.get("eos_token", ""))) is not None:
        stops = [eos]
    chat = settings["tokenizer_config.json"].get("chat_template")
    where = f"{folder / 'tokenizer_config.json'}: chat_template"
    if (folder / TEMPLATE_FILE).is_file():
        where = str(folder / TEMPLATE_FILE)
        chat = read_utf8(folder / TEMPLATE_FILE, max_bytes=MAX_TEMPLATE_BYTES, error=CheckpointError)
    if isinstance(chat, list):  # several with names; "default" is for conversations without tools
        defaults = [e for e in chat if isinstance(e, dict) and e.get("name") == "default"]
        chat = defaults[-1].get("template") if defaults else None
    chat = None if chat is None else _text(chat, where=where)
    return _usage(tokenizer, stops, chat, tokens, n_ids=n_ids)


def usage_of_gguf(
    metadata: Mapping[str, Any], tokenizer: Tokenizer, *, n_ids: int, where: str
) -> dict[str, Any]:
    """Stop ids and chat template of a GGUF file.

    Raises: CheckpointError for a value of the wrong type.
    """
    stops: list[int] = []
    for key in GGUF_ENDS:
        stops += _ids(metadata.get(f"tokenizer.ggml.{key}"), where=f"{where}: tokenizer.ggml.{key}")
    names = {id_: token for token, id_ in tokenizer.special_tokens.items()}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}") for name, key in GGUF_TOKENS.items()}
    tokens = {name: names[id_] for name, id_ in ids.items() if isinstance(id_, int) and id_ in names}
    chat = metadata.get("tokenizer.chat_template")
    chat = None if chat is None else _text(chat, where=f"{where}: tokenizer.chat_template")
    return _usage(tokenizer, stops, chat, tokens, n_ids=n_ids)


def saved_task(file: Path, *, n_scores: int) -> dict[str, Any]:
    """Read a model folder's `task.json`; {} when it has none.

    Raises: CheckpointError as `check_usage`, and when the number of classes differs from the number of scores.
    """
    task = dict(_table(file))
    check_usage(task, where=str(file))
    if task.get("kind") == "classification" and len(task["classes"]) != n_scores:
        wanted = f"one name for each of the model's {n_scores} scores"
        raise _wrong(f"{file}: classes", wanted, task["classes"])
    return task


def check_usage(task: Mapping[str, Any], *, where: str) -> None:
    """Check the values of our own task, which may have been edited.

    Raises: CheckpointError for a value of the wrong type.
    """
    table = JSONTable(task, where=where, error=CheckpointError)
    for name in ("kind", "template", "system", "position"):
        table.get(name, str)
    for name in ("max_length", "width"):
        table.get(name, int)
    if table.get("kind", str) == "classification":
        classes = table.need("classes", list)
        if not all(isinstance(name, str) for name in classes):
            raise table.wrong("classes", "a list of texts")
    _ids(task.get("stop_ids"), where=f"{where}: stop_ids")
    _text(task.get("chat_template", ""), where=f"{where}: chat_template")
    tokens = task.get("chat_tokens", {})
    if not isinstance(tokens, dict):
        raise _wrong(f"{where}: chat_tokens", "special tokens by name", tokens)
    for name, token in tokens.items():
        _text(token, where=f"{where}: chat_tokens: {name!s:.40}")


def _usage(
    tokenizer: Tokenizer, stops: Iterable[int], chat: str | None, tokens: Mapping[str, str], *, n_ids: int
) -> dict[str, Any]:
    """The entries of a task for stop ids and chat template; empty if end-of-text is the only stop id."""
    named = _named_ids(tokenizer)
    marks = [named[mark] for mark in _MARKS if mark in (chat or "") and mark in named]
    ids = dict.fromkeys([*stops, *marks])
    own = [id_ for id_ in ids if id_ < n_ids]  # transformers writes GPT-2's 50256 for every vocabulary
    usage: dict[str, Any] = {} if tuple(own) in ((), end_ids(tokenizer, {})) else {"stop_ids": own}
    if chat is not None:
        usage |= {"chat_template": chat, "chat_tokens": dict(tokens)}
    return usage


def _named_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of special and added tokens; some files list the end of a turn without marking it special."""
    return {
        token.content: token.id for token in getattr(tokenizer, "added_tokens", ())
    } | tokenizer.special_tokens


def _table(path: Path) -> Mapping[str, Any]:
    return read_json_table(path, error=CheckpointError).values if path.is_file() else {}


def _ids(value: Any, *, where: str) -> list[int]:
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if len(ids) > MAX_STOP_IDS or not all(type(id_) is int for id_ in ids):
        raise _wrong(where, "the ids that end a text", value)
    return [id_ for id_ in ids if id_ >= 0]  # -1: none


def _text(value: Any, *, where: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEMPLATE_BYTES:
        raise _wrong(where, f"a text of at most {MAX_TEMPLATE_BYTES:,} characters", value)
    return value


def _wrong(where: str, wanted: str, found: Any) -> CheckpointError:
    return CheckpointError(
        f"{where} must be {wanted}, got {found!r:.80}; correct the file or fetch it again."
    )
