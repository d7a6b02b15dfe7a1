"""Infer a model's config from a weight file: from names and shapes, and from settings in or beside it."""

import dataclasses
import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scratchlm.checkpoints.huggingface_config import config_from_huggingface
from scratchlm.checkpoints.names import BOOK_LLAMA, GPT2, LLAMA, OURS, NameTable
from scratchlm.checkpoints.tensorflow.openai import HEAD_SIZE
from scratchlm.checkpoints.weight_files import Weights
from scratchlm.core.config import from_dict, nearest, to_dict
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.json_table import read_json_table
from scratchlm.model.config import CONFIGS, GPTConfig

_BLOCK = re.compile(r"(?:trf_blocks|(?:transformer\.)?h|(?:model\.)?layers)\.(\d{1,5})\.")
BOOK_NAMES = {  # key in the book's Llama and Qwen dictionaries -> field of GPTConfig
    "hidden_dim": "ff_dim",
    "n_kv_groups": "n_kv_heads",
    "head_dim": "head_size",
    "rope_freq": "rope_scaling",
}
_NANOGPT_NAMES = {
    "block_size": "context_length",
    "n_embd": "emb_dim",
    "n_head": "n_heads",
    "n_layer": "n_layers",
    "dropout": "drop_rate",
    "vocab_size": "vocab_size",
}
LLAMA_32_ROPE = {
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_context_length": 8192,
}
_PUBLISHED: Mapping[tuple[int, int, int], Mapping[str, Any]] = {  # (vocab_size, emb_dim, n_layers)
    (32000, 4096, 32): {"n_heads": 32, "context_length": 4096, "rope_base": 1e4},  # Llama 2 7B
    (128256, 2048, 16): {
        "n_heads": 32, "context_length": 131072, "rope_base": 5e5, "rope_scaling": LLAMA_32_ROPE  # Llama 3.2 1B
    },
    (128256, 3072, 28): {
        "n_heads": 24, "context_length": 131072, "rope_base": 5e5, "rope_scaling": LLAMA_32_ROPE  # Llama 3.2 3B
    },
    **{
        (151936, *size): {"context_length": 40960, "rope_base": 1e6}  # Qwen 3, dense: 0.6B to 32B
        for size in ((1024, 28), (2048, 28), (2560, 36), (4096, 36), (5120, 40), (5120, 64))
    },
}  # fmt: skip
_EXAMPLES = {"n_heads": 12, "context_length": 1024, "rope_base": 10000.0}


def config_of_weights(weights: Weights, path: Path) -> GPTConfig:
    """Infer the config of the model in a weight file.

    Vocabulary, widths, layers, biases and tied embeddings follow from names and shapes; the number of heads is known
    for published sizes. Other settings are read from nanoGPT's `model_args` in the file or from a
    config.json beside it, which may hold any of GPTConfig's fields, the book's settings, or transformers' own.

    Raises: CheckpointError for weights of another model, for damaged settings, and, with an example config.json, for
        settings that are neither in the weights nor beside them.
    """
    table = table_of(weights, path)
    facts = _facts(weights, table, path)
    settings = _nanogpt_settings(weights.settings, path) | _settings_beside(path)
    try:
        values = _with_heads(facts | settings)
        needed = ("n_heads", "context_length", *(("rope_base",) if facts["positions"] == "rotary" else ()))
        missing = [name for name in needed if name not in values]
        if missing:
            example = json.dumps({name: _EXAMPLES[name] for name in missing})
            scaling = ", and rope_scaling if the model has one" if "rope_base" in missing else ""
            raise CheckpointError(
                f"{path} does not give {', '.join(missing)}, and {values['n_layers']} blocks of width "
                f"{values['emb_dim']} are not a published size; put a config.json with the model's own values beside "
                f"it, such as {example}{scaling}."
            )
        return from_dict(GPTConfig, values, where=f"the settings of {path}")
    except ConfigError as cause:
        message = str(cause)
        raise CheckpointError(message if str(path) in message else f"{path}: {message}") from cause


def table_of(weights: Mapping[str, Tensor], path: Path) -> NameTable:
    """Find the naming scheme of the weights.

    Raises: CheckpointError for names of an unsupported model.
    """
    if "tok_emb.weight" in weights:
        return BOOK_LLAMA if any(".ff.fc1." in name for name in weights) else OURS
    for table in (GPT2, LLAMA):
        if any(prefix + table.whole[0].theirs in weights for prefix in table.prefixes):
            return table
    raise CheckpointError(
        f"{path} must hold weights of GPT-2, of the Llama family or of the book's models, got the names "
        f"{', '.join(sorted(weights)[:3])!s:.200}; open the folder of the model with its config.json, or save the "
        "model's state_dict()."
    )


def _facts(weights: Mapping[str, Tensor], table: NameTable, path: Path) -> dict[str, Any]:
    """The settings that follow from names and shapes, as fields of GPTConfig."""
    names = {
        ours: row.theirs for row in table.rows(1) for ours in row.ours if _name_in(weights, table, row.theirs)
    }

    def shape(ours: str) -> tuple[int, ...]:
        """The shape of the weight that contains ours; () when there is none."""
        name = _name_in(weights, table, names.get(ours, ours))
        return () if name is None else tuple(weights[name].shape)

    tokens, positions = shape("tok_emb.weight"), shape("pos_emb.weight")
    numbers = [int(match[1]) for name in weights if (match := _BLOCK.match(name))]
    if len(tokens) != 2 or len(positions) not in (0, 2) or not numbers or (table is GPT2 and not positions):
        raise CheckpointError(
            f"{path} must hold embedding matrices and the blocks of a GPT, got {len(weights)} tensors without "
            "them; it is damaged or of another model."
        )
    size = (tokens[0], tokens[1], 1 + max(numbers))
    facts: dict[str, Any] = {
        **dict(zip(("vocab_size", "emb_dim", "n_layers"), size)),
        "qkv_bias": bool(shape("trf_blocks.0.att.W_query.bias")),
        "tie_embeddings": _is_tied(weights, table),
        "init": "gpt2",
        "positions": "learned" if positions else "rotary",
    }
    if positions:
        facts["context_length"] = positions[0]
        known = {config.emb_dim: config.n_layers for config in CONFIGS.values() if config.vocab_size == 50257}
        if known.get(size[1]) == size[2]:
            facts["n_heads"] = size[1] // HEAD_SIZE
    if table is not GPT2:  # nanoGPT's may lack all biases, including LayerNorm's; they count as zeros
        gate, head = shape("trf_blocks.0.ff.gate.weight"), shape("trf_blocks.0.att.query_norm.scale")
        facts |= {
            "norm": "layer" if shape("final_norm.shift") else "rms",
            "feed_forward": "swiglu" if gate else "gelu",
            "qk_norm": bool(head),
            "linear_bias": bool(shape("trf_blocks.0.att.out_proj.bias")),
            _QUERY_ROWS: shape("trf_blocks.0.att.W_query.weight")[:1],
            _KEY_ROWS: shape("trf_blocks.0.att.W_key.weight")[:1],
        }
        if head:
            facts["head_size"] = head[0]
        if not positions:
            facts |= {"norm_eps": 1e-6 if head else 1e-5, "drop_rate": 0.0}  # of Qwen 3, of Llama
    if table is BOOK_LLAMA:
        facts |= _PUBLISHED.get(size, {})
    wide = shape("trf_blocks.0.ff.layers.0.bias") or shape("trf_blocks.0.ff.gate.weight")
    return facts | ({"ff_dim": wide[0]} if wide else {})


_QUERY_ROWS, _KEY_ROWS = "rows of queries", "rows of keys"


def _with_heads(values: dict[str, Any]) -> dict[str, Any]:
    """Compute the numbers of heads from the head size, or the head size from the number of heads."""
    queries, keys = values.pop(_QUERY_ROWS, ()), values.pop(_KEY_ROWS, ())
    head, n_heads = values.get("head_size"), values.get("n_heads")
    if not queries or not keys:
        return values
    if "n_heads" not in values and isinstance(head, int) and head > 0:
        values["n_heads"] = queries[0] // head
    elif head is None and isinstance(n_heads, int) and n_heads > 0:
        head = queries[0] // n_heads
        values["head_size"] = None if head * n_heads == values["emb_dim"] else head
    if "n_kv_heads" not in values and isinstance(head, int) and head > 0:
        values["n_kv_heads"] = keys[0] // head
    return values


def _name_in(weights: Mapping[str, Tensor], table: NameTable, name: str) -> str | None:
    return next((full for prefix in table.prefixes if (full := prefix + name) in weights), None)


def _is_tied(weights: Mapping[str, Tensor], table: NameTable) -> bool:
    """Whether the head shares the embedding matrix; the book's Llama and Qwen 3 save it twice."""
    head = "lm_head.weight" if table in (GPT2, LLAMA) else "out_head.weight"
    if head not in weights or table is OURS:
        return head not in weights
    tokens = _name_in(weights, table, table.whole[0].theirs)
    return tokens is not None and weights[head].equal(weights[tokens])


def _nanogpt_settings(saved: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """nanoGPT's `model_args`. Its GELU is the exact one; a `bias` of False shows in the weights themselves."""
    args = saved.get("model_args")
    if args is None:
        return {}
    if not isinstance(args, dict):
        raise CheckpointError(
            f"{path} must hold model_args as a table, got {reprlib.repr(args)}; it is damaged, save it again."
        )
    settings = {ours: args[theirs] for theirs, ours in _NANOGPT_NAMES.items() if args.get(theirs) is not None}
    return {"feed_forward": "gelu_exact", **settings}


def _settings_beside(path: Path) -> dict[str, Any]:
    """The settings in a config.json beside the file, as fields of GPTConfig."""
    file = path.parent / "config.json"
    if not file.is_file():
        return {}
    values = read_json_table(file, error=CheckpointError).values
    if "model_type" in values:
        return to_dict(config_from_huggingface(values, where=str(file)))
    settings: dict[str, Any] = {
        BOOK_NAMES.get(name) or name: value for name, value in values.items() if value is not None
    }
    settings.pop("dtype", None)  # inferred from the weights
    fields = [field.name for field in dataclasses.fields(GPTConfig)]
    for name in settings:
        if name not in fields:
            raise CheckpointError(f"{file} has no setting {name!r:.80}; {nearest(name, fields)}")
    return settings
