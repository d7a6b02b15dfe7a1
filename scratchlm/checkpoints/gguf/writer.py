"""Write a model as GGUF, one file with settings, tokenizer and weights, and read GGUF files as our models.

Settings that GGUF lacks, such as dropout, are stored under `scratchlm.`, so writing a model as f32 and
reading it back preserves it exactly.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scratchlm.checkpoints.gguf.blocks import BLOCK
from scratchlm.checkpoints.gguf.reader import MAX_GGUF_ENTRIES, GGUFFile, gguf_library
from scratchlm.checkpoints.gguf.tokenizer import tokenizer_from_settings, tokenizer_settings
from scratchlm.checkpoints.gguf.weights import (
    POSITIONS,
    ROPE_FACTORS,
    Weight,
    architecture,
    rope_factors,
    weights,
)
from scratchlm.checkpoints.store import LoadedModel, build_model, own_weights
from scratchlm.checkpoints.usage import check_usage, usage_of_gguf
from scratchlm.core.config import from_dict, to_dict
from scratchlm.core.errors import CheckpointError, ConfigError, TokenizerError
from scratchlm.core.files import new_file, parse_json
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.config import GPTConfig, RopeScaling
from scratchlm.model.empty import empty_weights
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dense_model
from scratchlm.quantization.matrix import PARTS, QuantizedMatrix
from scratchlm.tokenizers.bpe import BPETokenizer

GGUFType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"]
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "bf16": 32}  # llama.h, enum llama_ftype
QUANTIZED_TYPES = ("q8_0", "q4_0", "q4_1")  # the gguf library does not write the k-quants
_BLOCK_NAME = re.compile(r"blk\.(\d{1,5})\.")
_LLAMA3_FACTORS = (8.0, 16.0, 32.0)  # of Llama 3.1, 3.2 and others; GGUF stores only the resulting divisors


def export_gguf(
    path: str | Path,
    model: GPTModel,
    tokenizer: Tokenizer,
    *,
    dtype: GGUFType = "f32",
    task: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
) -> Path:
    """Write a language model as GGUF, atomically, copying one tensor at a time.

    dtype: number type of matrices. Norms, biases and positions stay f32; with q8_0, q4_0 and q4_1 rows that do not
        split into blocks of 32 become f16. With q4_0 and q4_1 token embedding and output head become q8_0. The weights
        of a quantized model are rounded again.
    chat_template: Jinja template with which llama.cpp turns a conversation into a prompt; default: the task's.
    Raises: ConfigError for a model or tokenizer that llama.cpp does not support; CheckpointError for a head other than
        a language model's; MissingDependencyError without the `gguf` package.
    """
    if dtype not in _FILE_TYPES:
        raise ConfigError(f"a GGUF dtype must be one of {', '.join(_FILE_TYPES)}, got {dtype!r}; choose one.")
    config, model = model.config, dense_model(model)
    kind = architecture(config)
    task = dict(task or {})
    settings = tokenizer_settings(tokenizer, vocab_size=config.vocab_size, task=task)
    chat_template = chat_template or task.get("chat_template")
    state = {name: tensor.detach() for name, tensor in own_weights(model).items()}
    head = state.get("out_head.weight")
    if "out_head.bias" in state or (head is not None and head.shape[0] != config.vocab_size):
        raise CheckpointError(
            "GGUF holds language models, got a model with a head for another task, such as a classifier's; convert it "
            "with --to native or book."
        )
    config = dataclasses.replace(config, tie_embeddings=head is None)
    gguf = gguf_library()
    parts = list(weights(config))
    with new_file(path, error=CheckpointError) as partial:
        writer = gguf.GGUFWriter(partial, kind)
        try:
            _write_settings(writer, config, kind, dtype)
            _write_tokenizer(writer, settings)
            if chat_template is not None:
                writer.add_chat_template(chat_template)
            if isinstance(tokenizer, BPETokenizer) and not tokenizer.variant.normalizers:
                writer.add_string("scratchlm.normalization", "none")
            writer.add_string("scratchlm.config", json.dumps(to_dict(config)))
            writer.add_string("scratchlm.task", json.dumps(task))
            shapes = {name: tensor.to("meta") for name, tensor in state.items()}
            kinds = {}
            for part in parts:
                shape = tuple(part.gather(shapes, config).shape)
                kinds[part.name] = packing = _packing(gguf, part.name, shape, dtype)
                block, block_bytes = gguf.GGML_QUANT_SIZES[packing]
                n_bytes = int(np.prod(shape)) // block * block_bytes
                writer.add_tensor_info(part.name, shape, np.dtype(np.float32), n_bytes, raw_dtype=packing)
            if config.rope_scaling is not None:
                writer.add_tensor_info(
                    ROPE_FACTORS, (config.head_dim // 2,), np.dtype(np.float32), config.head_dim * 2
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for part in parts:
                numbers = part.gather(state, config).float().cpu().contiguous().numpy()
                writer.write_tensor_data(gguf.quants.quantize(numbers, kinds[part.name]))
            if config.rope_scaling is not None:
                writer.write_tensor_data(rope_factors(config).numpy())
        finally:
            writer.close()
    return Path(path)


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
        config=config,
        tokenizer=tokenizer,
        task=task,
        manifest={"format": "GGUF", "architecture": kind, "weights": [str(file.path)]},
        folder=file.path.parent,
    )


def _write_settings(writer: Any, config: GPTConfig, kind: str, dtype: str) -> None:
    writer.add_name("scratchlm model")
    writer.add_file_type(_FILE_TYPES[dtype])
    writer.add_quantization_version(2)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.emb_dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.feed_forward_dim)
    writer.add_head_count(config.n_heads)
    if kind == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_head_count_kv(config.n_kv_heads or config.n_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)


def _write_tokenizer(writer: Any, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        name = f"tokenizer.ggml.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif value:  # the library writes no empty arrays
            writer.add_array(name, value)


def _packing(gguf: Any, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    kinds = gguf.GGMLQuantizationType
    if dtype == "f32" or len(shape) == 1 or name == POSITIONS:
        return kinds.F32
    if dtype in QUANTIZED_TYPES:
        wanted = "q8_0" if name in ("token_embd.weight", "output.weight") else dtype
        return kinds[wanted.upper()] if shape[-1] % BLOCK == 0 else kinds.F16
    return kinds.F16 if dtype == "f16" else kinds.BF16


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
        raise file.wrong(f"it has the architecture {kind!r:.40}; gpt2, llama, qwen2 and qwen3 can be read")
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
            raise file.wrong(f"{kind}.{key} differs from the head size {head_dim}")
    if file.metadata.get(f"{kind}.rope.scaling.type", "none") != "none":
        raise file.wrong(f"{kind}.rope.scaling.type is not supported")
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
    raise file.wrong(f"{ROPE_FACTORS} has a scaling other than Llama 3's")


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
