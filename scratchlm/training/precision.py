"""Mixed precision: matrix products in bfloat16, while weights, gradients and optimizer stay in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from scratchlm.core.matrix_speed import seconds_of
from scratchlm.model.attention_context import AttentionContext, attention_context
from scratchlm.model.block import TransformerBlock
from scratchlm.model.config import GPTConfig

PrecisionName = Literal["float32", "bf16", "auto"]
WORTHWHILE = 1.1  # `auto` needs a block that is so many times as fast
TOKENS_MEASURED = 1024  # number of tokens in that measurement
# Of Intel and AMD, and of ARM processors; without them bfloat16 is emulated.
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")
BF16_CAPABILITY = (8, 0)  # the first NVIDIA generation (Ampere) with bfloat16 products


@dataclass(frozen=True)
class Precision:
    """The precision of a training run's products, and why it was chosen.

    bfloat16 has the range of float32 and 8 bits of precision, so no loss scaling is needed. The weights are float32:
    updates of less than 0.4 % of a weight would be lost otherwise.
    Source: Micikevicius et al. 2018, "Mixed Precision Training", for the float32 copy of the weights; Kalamkar et al.
        2019, "A Study of BFLOAT16 for Deep Learning Training".
    """

    name: Literal["float32", "bf16"]
    device_type: str
    reason: str = ""  # of an automatic choice

    def announce(self, notify: Callable[[str], None]) -> None:
        """Say what an automatic choice has chosen, and why."""
        if self.reason:
            notify(f"precision {self.name}: {self.reason}")

    def shared(self, of_main: Callable[[float], float]) -> Precision:
        """The precision that the main process chose; of_main returns its value of a number."""
        return replace(self, name="bf16" if of_main(self.name == "bf16") else "float32")

    def context(self) -> AbstractContextManager[Any]:
        """The context in which losses, metrics and text samples are computed."""
        if self.name == "float32":
            return nullcontext()
        return torch.autocast(self.device_type, dtype=torch.bfloat16)


def choose_precision(
    wanted: PrecisionName,
    device: torch.device,
    config: GPTConfig,
    batch_size: int,
    *,
    earlier: str | None = None,
) -> Precision:
    """The wanted precision; for `auto`, bf16 if the processor has it and a block of this model is faster with it.

    A resumed run keeps the choice of its first start, `earlier`: a measurement could differ, and with it the result.
    """
    if wanted != "auto":
        return Precision(wanted, device.type)
    if earlier is not None:
        named: Literal["bf16", "float32"] = "bf16" if earlier == "bf16" else "float32"
        return Precision(named, device.type, "as before the interruption")
    problem = _missing(device)
    if problem:
        return Precision("float32", device.type, problem)
    ratio = _speedup(config, batch_size, device)
    found = f"a block of the model runs at {ratio:.1f} times the speed of float32 in bfloat16"
    return Precision("bf16" if ratio >= WORTHWHILE else "float32", device.type, found)


def _speedup(config: GPTConfig, batch_size: int, device: torch.device) -> float:
    """How many times as fast forward and backward pass of one block are in bf16; casts cost small models more."""
    n_tokens = min(config.context_length, TOKENS_MEASURED)
    n_rows = max(1, min(batch_size, TOKENS_MEASURED // n_tokens))
    fastest_s = []
    with torch.random.fork_rng():  # the run's own random numbers stay the same
        block = TransformerBlock(config).to(device).train()
        x = torch.randn(n_rows, n_tokens, config.emb_dim, device=device, requires_grad=True)
        context = attention_context(x, config)
        for precision in (Precision("float32", device.type), Precision("bf16", device.type)):
            passes = functools.partial(run_passes, block, x, context, precision)
            fastest_s.append(min(seconds_of(passes, device)))
    return fastest_s[0] / fastest_s[1]


def run_passes(block: TransformerBlock, x: Tensor, context: AttentionContext, precision: Precision) -> None:
    """Run forward and backward pass of one block, to measure their time."""
    with precision.context():
        y = block(x, context)
    y.sum().backward()


def _missing(device: torch.device) -> str:
    """Why bfloat16 cannot pay on this device; "" if it may."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        too_old = f"the GPU has compute capability {capability}, bfloat16 products need {BF16_CAPABILITY}"
        return "" if capability >= BF16_CAPABILITY else too_old
    if device.type != "cpu":
        return f"bfloat16 is not used on {device.type}"
    # PyTorch before 2.13 does not say; then the speed decides.
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if has and not any(has.get(name) for name in BF16_INSTRUCTIONS):
        return "the processor has no bfloat16 instructions"
    return ""
