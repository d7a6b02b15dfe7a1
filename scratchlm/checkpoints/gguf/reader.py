"""Read a GGUF file as one of our models: config, weights, tokenizer and prompt format."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scratchlm.checkpoints.gguf.gguf_file import MAX_GGUF_ENTRIES, GGUFFile
from scratchlm.checkpoints.gguf.tokenizer import tokenizer_from_settings
from scratchlm.checkpoints.gguf.weights import (
    POSITIONS,
    ROPE_FACTORS,
    Weight,
    architecture,
    rope_factors,
    weights,
)
from scratchlm.checkpoints.store import LoadedModel, build_model
from scratchlm.checkpoints.usage import check_usage, usage_of_gguf
from scratchlm.core.config import from_dict
from scratchlm.core.errors import CheckpointError, ConfigError, TokenizerError
from scratchlm.core.files import parse_json
from scratchlm.model.config import GPTConfig, RopeScaling
from scratchlm.model.empty import empty_weights
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.matrix import PARTS, QuantizedMatrix

_BLOCK_NAME = re.compile(r"blk\.(\d{1,5})\.")
_LLAMA3_FACTORS = (8.0, 16.0, 32.0)  # of Llama 3.1, 3.2 and others; GGUF stores only the resulting divisors


def read_gguf(path: str | Path) -> LoadedModel:
    """Open a GGUF file as one of our models, in evaluation mode on the CPU.

    Matrices of the types q8_0, q4_0 and q4_1 become quantized layers with the same weights, all others float32.

    Reads what `export_gguf` writes, and files of llama.cpp with the architectures gpt2, llama, qwen2 and qwen3.
    Raises: CheckpointError naming the file and what is damaged or not supported.
    """
    file = GGUFFile(path)
    try:
        config = _read_config(file)
        task = parse_json(_get(file, "scratchlm.task", str, "{}"), where=str(path), error=CheckpointError)
        if not isinstance(task, dict):
            raise file.wrong(f"scratchlm.task is {task!r:.40}")
        check_usage(task, where=f"{path}: scratchlm.task")
        tokenizer = tokenizer_from_settings(file.metadata, where=str(path))
        n_ids = config.vocab_size
        task = usage_of_gguf(file.metadata, tokenizer, n_ids=n_ids, where=str(path)) | task
        model = build_model(config, _read_state(file, config), where=file.path)
    except (ConfigError, TokenizerError) as cause:
        raise CheckpointError(f"{path} cannot be read as a model: {cause}") from cause
    if tokenizer.vocab_size > config.vocab_size:
        raise file.wrong(f"it has {tokenizer.vocab_size} tokens but weights for {config.vocab_size}")
    kind = file.metadata["general.architecture"]
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        task=task,
        manifest={"format": "GGUF", "architecture": kind, "weights": [str(file.path)]},
        folder=file.path.parent,
    )


def _read_state(file: GGUFFile, config: GPTConfig) -> dict[str, Tensor]:
    parts = {part.name: part for part in weights(config)}
    found = file.shapes()
    wrong = sorted(parts.keys() ^ (found.keys() - {ROPE_FACTORS}))
    if wrong:
        raise file.wrong(f"{wrong[0]!r:.80} is {'unexpected' if wrong[0] in found else 'missing'}")
    with empty_weights():
        expected = GPTModel(config).state_dict()
    state: dict[str, Tensor] = {}
    for name, part in parts.items():
        shape = tuple(part.gather(expected, config).shape)
        if shape != found[name]:
            raise file.wrong(f"{name} has the shape {found[name]} instead of {shape}")
        matrix = None if name == POSITIONS else file.quantized(name)
        if matrix is not None:
            state |= _quantized_state(part, matrix, config)
            continue
        for ours, tensor in part.scatter(file.tensor(name), config).items():
            if ours in expected:
                state[ours] = tensor
            elif ours != "out_head.weight" and bool(tensor.any()):
                raise file.wrong(f"{name} is not zero, but scratchlm.config has no bias")
    return state


def _quantized_state(part: Weight, matrix: QuantizedMatrix, config: GPTConfig) -> dict[str, Tensor]:
    """The tensors of our quantized layers in one of llama.cpp's matrices; rows are moved with their scales."""
    stored = {name: getattr(matrix, name) for name in PARTS}
    return {
        f"{ours.removesuffix('weight')}{name}": rows
        for name, tensor in stored.items()
        if tensor is not None
        for ours, rows in part.scatter(tensor, config).items()
    }


def _read_config(file: GGUFFile) -> GPTConfig:
    """The config from settings and shapes; our own record, if the file has one and the two agree."""
    config = _standard_config(file)
    saved = _get(file, "scratchlm.config", str, "")
    if saved:
        values = parse_json(saved, where=f"{file.path}: scratchlm.config", error=CheckpointError)
        if not isinstance(values, dict):
            raise file.wrong(f"scratchlm.config is {values!r:.40}")
        ours = from_dict(GPTConfig, values, where=f"{file.path}: scratchlm.config")
        if _gguf_settings(ours) != _gguf_settings(config):
            raise file.wrong("scratchlm.config contradicts its other settings")
        config = ours
    if config.rope_scaling is None and ROPE_FACTORS not in file.shapes():
        return config
    return _with_rope_scaling(file, config)


def _standard_config(file: GGUFFile) -> GPTConfig:
    kind, shapes = _get(file, "general.architecture", str), file.shapes()
    if kind not in ("gpt2", "llama", "qwen2", "qwen3"):
        raise file.unsupported(
            f"it has the architecture {kind!r:.40}; gpt2, llama, qwen2 and qwen3 can be read"
        )
    embedding, feed_forward = shapes.get("token_embd.weight", ()), shapes.get("blk.0.ffn_up.weight", ())
    if len(embedding) != 2 or len(feed_forward) != 2:
        raise file.wrong("token_embd.weight or blk.0.ffn_up.weight with two dimensions is missing")
    n_layers = 1 + max(int(match[1]) for match in map(_BLOCK_NAME.match, shapes) if match)
    for key, size in (("embedding_length", embedding[1]), ("block_count", n_layers)):
        if _get(file, f"{kind}.{key}", int) != size or size > MAX_GGUF_ENTRIES:
            raise file.wrong(f"{kind}.{key} differs from its tensors' {size}")
    n_heads = _get(file, f"{kind}.attention.head_count", int)
    norm = "layer_norm_epsilon" if kind == "gpt2" else "layer_norm_rms_epsilon"
    shared: dict[str, Any] = {
        "vocab_size": embedding[0],
        "context_length": _get(file, f"{kind}.context_length", int),
        "emb_dim": embedding[1],
        "n_heads": n_heads,
        "n_layers": n_layers,
        "drop_rate": 0.0,
        "qkv_bias": kind in ("gpt2", "qwen2"),
        "tie_embeddings": "output.weight" not in shapes,
        "norm_eps": _shortest(_get(file, f"{kind}.attention.{norm}", float)),
        "ff_dim": None if feed_forward[0] == 4 * embedding[1] else feed_forward[0],
    }
    if kind == "gpt2":
        return GPTConfig(**shared)
    head_dim = _get(file, f"{kind}.attention.key_length", int, embedding[1] // max(1, n_heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if _get(file, f"{kind}.{key}", int, head_dim) != head_dim:
            raise file.unsupported(f"{kind}.{key} differs from the head size {head_dim}")
    scaling = file.metadata.get(f"{kind}.rope.scaling.type")
    if scaling not in (None, "none"):
        raise file.unsupported(f"{kind}.rope.scaling.type is {scaling!r:.40}, and only Llama 3's can be")
    for key in ("rope.scaling.factor", "rope.scale_linear"):  # without a type llama.cpp takes them for linear
        if scaling is None and (factor := file.metadata.get(f"{kind}.{key}", 1.0)) not in (0, 1):
            raise file.unsupported(f"{kind}.{key} is {factor!r:.40}, and only Llama 3's scaling can be")
    return GPTConfig(
        **shared,
        norm="rms",
        positions="rotary",
        rope_base=_shortest(_get(file, f"{kind}.rope.freq_base", float, 10000.0)),
        feed_forward="swiglu",
        n_kv_heads=_get(file, f"{kind}.attention.head_count_kv", int, n_heads),
        head_size=None if head_dim * n_heads == embedding[1] else head_dim,
        qk_norm=kind == "qwen3",
        linear_bias=False,
    )


def _with_rope_scaling(file: GGUFFile, config: GPTConfig) -> GPTConfig:
    """Add the RoPE scaling that gives the file's divisors to the config."""
    if file.shapes().get(ROPE_FACTORS) != (config.head_dim // 2,):
        raise file.wrong(f"{ROPE_FACTORS} does not fit the head size {config.head_dim}")
    factors = file.tensor(ROPE_FACTORS)
    guesses = [RopeScaling(factor=factor) for factor in _LLAMA3_FACTORS]
    for scaling in guesses if config.rope_scaling is None else [config.rope_scaling]:
        candidate = dataclasses.replace(config, rope_scaling=scaling)
        if torch.allclose(rope_factors(candidate), factors, rtol=1e-4, atol=0):
            return candidate
    raise file.unsupported(f"{ROPE_FACTORS} has a scaling other than Llama 3's")


def _gguf_settings(config: GPTConfig) -> tuple[Any, ...]:
    """The settings that GGUF stores, numbers as float32, to compare two configs."""
    same = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "tie_embeddings")
    return (
        architecture(config),
        *(getattr(config, name) for name in (*same, "feed_forward_dim", "head_dim")),
        config.n_kv_heads or config.n_heads,
        np.float32(config.norm_eps),
        np.float32(config.rope_base) if config.positions == "rotary" else None,
    )


def _get(file: GGUFFile, key: str, kind: type, default: Any = None) -> Any:
    value = file.metadata.get(key, default)
    if type(value) is not kind:
        raise file.wrong(f"{key} is {value!r:.40}, not {kind.__name__}")
    return value


def _shortest(number: float) -> float:
    """The shortest decimal with this float32 value: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))
