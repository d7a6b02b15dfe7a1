"""Describe a model to the C kernel, and call it."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.core.errors import OutOfMemoryError
from scratchlm.generation.native.compile import NoKernelError, kernel_library
from scratchlm.generation.work import Scores, Work
from scratchlm.model.attention import MultiHeadAttention
from scratchlm.model.block import TransformerBlock
from scratchlm.model.feed_forward import FeedForward
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache
from scratchlm.model.layer_norm import LayerNorm
from scratchlm.model.linear import is_plain_linear
from scratchlm.model.rms_norm import RMSNorm
from scratchlm.model.rotary import rotation
from scratchlm.model.swiglu import SwiGLU
from scratchlm.model.token_embedding import TokenEmbedding
from scratchlm.quantization.layers import QuantizedWeight

MAX_TOKENS = 256  # of one call: they share each pass over the weights
FLOAT32 = 1  # kinds of matrices, as in decode.c
QUANTIZED = {"int8": 2, "int4": 3, "int4_asymmetric": 4, "nf4": 5}
FEED_FORWARDS = ("gelu", "gelu_exact", "swiglu")


class _Matrix(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("kind", "n_out", "n_in", "group")),
        *((name, c_void_p) for name in ("codes", "scale", "offset", "table", "bias")),
        ("order", c_int32),  # set by the kernel
    ]


class _Norm(Structure):
    _fields_ = [("scale", c_void_p), ("shift", c_void_p)]


class _Layer(Structure):
    _fields_ = [
        *((name, _Matrix) for name in ("query", "key", "value", "out", "gate", "up", "down")),
        *((name, _Norm) for name in ("norm1", "norm2", "query_norm", "key_norm")),
        *((name, c_void_p) for name in ("keys", "values")),
    ]


class _Model(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("n_layers", "emb_dim", "n_heads", "n_kv_heads", "head_dim", "ff_dim")),
        *((name, c_int32) for name in ("vocab_size", "capacity", "norm_is_rms", "feed_forward")),
        ("norm_eps", c_float),
        *((name, c_int32) for name in ("max_tokens", "n_threads")),
        *((name, c_void_p) for name in ("positions", "cosines", "sines")),
        *((name, _Matrix) for name in ("embedding", "head")),
        ("final_norm", _Norm),
        ("layers", POINTER(_Layer)),
    ]


class _Token(Structure):
    _fields_ = [(name, c_int32) for name in ("id", "slot", "position", "wants_logits")]


class NativeForward:
    """The forward pass of one model over one cache, in C.

    It reads the model's own weights, without a copy: keep the model as it is while this object lives.

    `is_exact`: every sum has the same order in every call, so scores do not depend on what else is in it.

    Raises: NoKernelError for a model that the kernel does not know, or without a compiler; OutOfMemoryError.
    """

    is_exact = True

    def __init__(self, model: GPTModel, cache: KVCache, *, n_threads: int | None = None) -> None:
        if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            raise NoKernelError("the kernel does not call the model's hooks")
        config = model.config
        self._library = library = kernel_library()
        library.engine_new.restype = c_void_p
        library.engine_free.argtypes = [c_void_p]
        library.engine_forward.argtypes = [c_void_p, c_void_p, c_int32, c_void_p, c_void_p, c_void_p]
        self._cache = cache
        self._kept: list[Any] = [model]  # memory that the kernel reads
        layers = (_Layer * config.n_layers)(*map(self._layer, model.trf_blocks))
        cosines = sines = None
        if config.positions == "rotary":
            positions = torch.arange(cache.capacity)
            cosines, sines = (part.contiguous() for part in rotation(config, positions))
        embedding = self._matrix(model.tok_emb, is_embedding=True)
        described = _Model(
            n_layers=config.n_layers,
            emb_dim=config.emb_dim,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads or config.n_heads,
            head_dim=config.head_dim,
            ff_dim=config.feed_forward_dim,
            vocab_size=config.vocab_size,
            capacity=cache.capacity,
            norm_is_rms=config.norm == "rms",
            feed_forward=FEED_FORWARDS.index(config.feed_forward),
            norm_eps=config.norm_eps,
            max_tokens=MAX_TOKENS,
            n_threads=n_threads or torch.get_num_threads(),
            positions=self._floats(model.pos_emb.weight) if config.positions == "learned" else None,
            cosines=self._floats(cosines),
            sines=self._floats(sines),
            embedding=embedding,
            head=self._matrix(model.out_head),
            final_norm=self._norm(model.final_norm),
            layers=layers,
        )
        # Last, since PyTorch's path takes the cache as it is for a model that is unknown here.
        keys, values = cache.allocate(torch.float32, torch.device("cpu"))
        for layer, own_keys, own_values in zip(layers, keys, values):
            layer.keys, layer.values = own_keys.data_ptr(), own_values.data_ptr()
        self._kept += [layers, keys, values]
        self._vocab_size = config.vocab_size
        self._engine = library.engine_new(ctypes.byref(described))
        if not self._engine:
            raise OutOfMemoryError("the decoding kernel could not get its memory; lower the number of slots.")

    def __call__(self, works: Sequence[Work], /) -> list[Scores | None]:
        """Run the model: MAX_TOKENS tokens of all works together share each pass over the weights."""
        lengths = self._cache.lengths
        tokens: list[tuple[int, int, int, bool]] = []
        for work in works:
            start, first_wanted = lengths[work.slot], len(work.ids) - work.n_last
            lengths[work.slot] = start + len(work.ids)
            tokens += [(one, work.slot, start + i, i >= first_wanted) for i, one in enumerate(work.ids)]
        n_wanted = sum(work.n_last for work in works)
        logits = torch.empty(n_wanted, self._vocab_size)
        best, probs = (c_int32 * n_wanted)(), (c_float * n_wanted)()
        n_done = 0
        for first in range(0, len(tokens), MAX_TOKENS):
            part = tokens[first : first + MAX_TOKENS]
            self._library.engine_forward(
                self._engine,
                (_Token * len(part))(*part),  # type: ignore[misc]  # ctypes takes tuples, too
                len(part),
                logits.data_ptr() + 4 * n_done * self._vocab_size,
                ctypes.byref(best, 4 * n_done),
                ctypes.byref(probs, 4 * n_done),
            )
            n_done += sum(token[3] for token in part)
        scores: list[Scores | None] = []
        end = 0
        for work in works:
            end += work.n_last
            rows = logits[end - work.n_last : end]
            scores.append(Scores(rows, (best[end - 1], probs[end - 1])) if work.n_last else None)
        return scores

    def close(self) -> None:
        """End the threads and free the memory."""
        engine, self._engine = self._engine, None
        if engine:
            self._library.engine_free(engine)

    def __del__(self) -> None:
        if getattr(self, "_engine", None):
            self.close()

    def _layer(self, block: nn.Module) -> _Layer:
        if type(block) is not TransformerBlock or type(block.att) is not MultiHeadAttention:
            raise NoKernelError(f"the kernel has no {type(block).__name__}")
        att, feed_forward = block.att, block.ff
        gate: nn.Module | None = None
        up: nn.Module
        down: nn.Module
        if type(feed_forward) is SwiGLU:
            gate, up, down = feed_forward.gate, feed_forward.up, feed_forward.down
        elif type(feed_forward) is FeedForward:
            up, down = feed_forward.layers[0], feed_forward.layers[2]
        else:
            raise NoKernelError(f"the kernel has no {type(feed_forward).__name__}")
        return _Layer(
            query=self._matrix(att.W_query),
            key=self._matrix(att.W_key),
            value=self._matrix(att.W_value),
            out=self._matrix(att.out_proj),
            gate=_Matrix() if gate is None else self._matrix(gate),
            up=self._matrix(up),
            down=self._matrix(down),
            norm1=self._norm(block.norm1),
            norm2=self._norm(block.norm2),
            query_norm=self._norm(att.query_norm),
            key_norm=self._norm(att.key_norm),
        )

    def _matrix(self, layer: nn.Module, *, is_embedding: bool = False) -> _Matrix:
        """Describe a linear layer (n_out, n_in), or an embedding, whose rows are looked up."""
        if isinstance(layer, QuantizedWeight):
            return self._quantized(layer)
        is_plain = type(layer) in (nn.Embedding, TokenEmbedding) if is_embedding else is_plain_linear(layer)
        if not is_plain:
            raise NoKernelError(f"the kernel has no {type(layer).__name__}")
        assert isinstance(layer.weight, Tensor)
        n_out, n_in = layer.weight.shape
        return _Matrix(
            kind=FLOAT32,
            n_out=n_out,
            n_in=n_in,
            group=n_in,
            codes=self._floats(layer.weight),
            bias=self._floats(getattr(layer, "bias", None)),
        )

    def _quantized(self, layer: QuantizedWeight) -> _Matrix:
        n_out, n_in = layer.matrix.shape
        kept = [layer.codes, layer.scale, layer.offset, layer.table, getattr(layer, "bias", None)]
        self._kept += kept
        if any(tensor is not None and not (tensor.is_contiguous() and tensor.is_cpu) for tensor in kept):
            raise NoKernelError("the kernel reads contiguous matrices in memory")
        return _Matrix(
            kind=QUANTIZED[layer.kind],
            n_out=n_out,
            n_in=n_in,
            group=layer.group_size,
            codes=layer.codes.data_ptr(),
            scale=self._floats(layer.scale),
            offset=self._floats(layer.offset),
            table=self._floats(layer.table),
            bias=self._floats(getattr(layer, "bias", None)),
        )

    def _norm(self, norm: nn.Module | None) -> _Norm:
        if norm is None:
            return _Norm()
        if not isinstance(norm, (LayerNorm, RMSNorm)):
            raise NoKernelError(f"the kernel has no {type(norm).__name__}")
        return _Norm(scale=self._floats(norm.scale), shift=self._floats(getattr(norm, "shift", None)))

    def _floats(self, tensor: Tensor | None) -> int | None:
        """The address of a tensor's numbers; None stays None."""
        if tensor is None:
            return None
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32 or not tensor.is_contiguous():
            raise NoKernelError(
                f"the kernel reads float32 weights in memory, not {str(tensor.dtype).removeprefix('torch.')} on "
                f"{tensor.device.type}"
            )
        self._kept.append(tensor)
        return tensor.data_ptr()
