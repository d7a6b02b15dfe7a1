"""Write a model as GGUF, one file with settings, tokenizer and weights.

Settings that GGUF lacks, such as dropout, are stored under `scratchlm.`, so writing a model as f32 and
reading it back preserves it exactly.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scratchlm.checkpoints.gguf.blocks import BLOCK
from scratchlm.checkpoints.gguf.gguf_file import gguf_library
from scratchlm.checkpoints.gguf.tokenizer import tokenizer_settings
from scratchlm.checkpoints.gguf.weights import POSITIONS, ROPE_FACTORS, architecture, rope_factors, weights
from scratchlm.checkpoints.store import own_weights
from scratchlm.core.config import to_dict
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import new_file
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dense_model
from scratchlm.tokenizers.bpe import BPETokenizer

GGUFType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"]
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "bf16": 32}  # llama.h, enum llama_ftype
QUANTIZED_TYPES = ("q8_0", "q4_0", "q4_1")  # the gguf library does not write the k-quants


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
