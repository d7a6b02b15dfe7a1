"""Relative errors of quantized weight matrices beside bitsandbytes' NF4 and torchao, and the rise of the loss.

    python -m benchmarks.quantization_errors --model runs/quickstart
    python -m benchmarks.quantization_errors --model SmolLM2-135M-Instruct.Q4_1.gguf --loss-tokens 2048

The error of a matrix is the norm of the difference over the norm of the matrix; the median over the blocks' matrices is
printed, and the loss on the built-in validation stories with the head in 8 bits. gptq is calibrated on training
stories. Other programs that are not installed are left out, by name; their losses are not measured.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.open_model import open_model
from scratchlm.data.samples.stories import sample_stories
from scratchlm.evaluation.loss import text_loss
from scratchlm.model import GPTModel
from scratchlm.quantization.apply import dequantize_model, quantize_model
from scratchlm.quantization.config import QuantizationConfig

OURS = {
    "8 bits": QuantizationConfig(bits=8),
    "4 bits, rounded": QuantizationConfig(bits=4),
    "4 bits, gptq": QuantizationConfig(bits=4, kind="gptq"),
    "4 bits, rounded, symmetric": QuantizationConfig(bits=4, symmetric=True),
    "4 bits, nf4": QuantizationConfig(bits=4, kind="nf4"),
}
CALIBRATION = (32, 256)  # windows and tokens of each, at most the context


def error(weight: Tensor, rounded: Tensor) -> float:
    """The relative error of a matrix."""
    return float((rounded - weight).norm() / weight.norm())


def matrices(model: GPTModel) -> dict[str, Tensor]:
    """The weight matrices of the blocks, by name."""
    layers = model.trf_blocks.named_modules()
    return {name: layer.weight.detach() for name, layer in layers if isinstance(layer, nn.Linear)}


def bitsandbytes_nf4(weight: Tensor) -> Tensor:
    """bitsandbytes' NF4 in groups of 64."""
    import bitsandbytes.functional as bnb

    codes, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    rounded: Tensor = bnb.dequantize_4bit(codes, state)
    return rounded


def torchao(bits: int) -> Callable[[Tensor], Tensor]:
    """torchao's rounding: groups of 64 for 4 bits, rows for 8."""

    def rounded(weight: Tensor) -> Tensor:
        from torchao.quantization import IntxWeightOnlyConfig, quantize_
        from torchao.quantization.granularity import PerAxis, PerGroup

        holder = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
        holder[0].weight = nn.Parameter(weight.clone())
        granularity = PerGroup(64) if bits == 4 else PerAxis(0)
        quantize_(
            holder, IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=granularity)
        )
        return holder[0].weight.dequantize()

    return rounded


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--loss-tokens", type=int, default=8192)
    options = parser.parse_args(arguments)
    loaded = open_model(options.model)
    model, encode = dequantize_model(loaded.model), loaded.tokenizer.encode
    n_windows, width = CALIBRATION[0], min(CALIBRATION[1], loaded.config.context_length)
    ids = encode("\n\n".join(sample_stories(n=300)))[: n_windows * width]
    calibration = torch.tensor(ids).view(n_windows, width)
    text = encode("\n\n".join(sample_stories(split="val")))[: options.loss_tokens]
    weights = matrices(model)
    before = text_loss(model, text, n_bytes=1, start_id=None).loss
    print(f"{'float32':34s} loss {before:.4f} over {len(text):,} tokens")
    for name, config in OURS.items():
        rounded = copy.deepcopy(model)
        quantize_model(rounded, config, calibration=calibration if config.kind == "gptq" else None)
        loss = text_loss(rounded, text, n_bytes=1, start_id=None).loss
        dense = matrices(dequantize_model(rounded))
        median = statistics.median(error(weights[one], dense[one]) for one in weights)
        print(f"{name:34s} loss {loss:.4f} ({loss / before - 1:+.2%}), error {median:.4f}", flush=True)
    peers = {"bitsandbytes nf4": bitsandbytes_nf4, "torchao int4": torchao(4), "torchao int8": torchao(8)}
    for name, peer in peers.items():
        try:
            median = statistics.median(error(weight, peer(weight)) for weight in weights.values())
            print(f"{name:34s} error {median:.4f}")
        except ImportError as reason:
            print(f"{name} is left out: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
