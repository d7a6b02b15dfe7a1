"""Time one step of Muon: ours, which batches matrices of one shape, and `torch.optim.Muon`, one matrix at a time.

    python -m benchmarks.muon_step --json out.json
    python -m benchmarks.muon_step --size gpt2-small

The weights are the matrices in the blocks of a random model; the gradients are random too. Both start from the same
weights and take turns of a few steps in one process; the median of all turns is reported. The largest difference
between their final weights, relative to the distance moved, shows that they compute the same.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scratchlm.core.files import write_json
from scratchlm.model import GPTModel
from scratchlm.model.config import CONFIGS, named_config
from scratchlm.training.muon import Muon

N_TURNS, STEPS_A_TURN = 7, 3


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and with --json write the figures."""
    parser = argparse.ArgumentParser(description="A step of Muon beside torch's.")
    parser.add_argument(
        "--size", choices=CONFIGS, default="tiny", help="of the model whose matrices are updated"
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    figures = measure(options.size)
    print(
        f"{figures['matrices']} matrices: ours {figures['ours_ms']:.1f} ms a step, torch {figures['torch_ms']:.1f} ms: "
        f"{figures['ratio']:.2f} of the time; weights differ by {figures['difference']:.2%} of their way "
        f"({figures['machine']})"
    )
    if options.json:
        write_json(options.json, figures)


def measure(size: str) -> dict[str, Any]:
    """Run both optimizers in turns."""
    torch.manual_seed(0)
    model = GPTModel(named_config(size, vocab_size=64))
    start = [p.detach() for name, p in model.named_parameters() if p.ndim == 2 and "trf_blocks" in name]
    sides = {name: [nn.Parameter(p.clone()) for p in start] for name in ("ours", "torch")}
    for weights in zip(*sides.values()):
        gradient = torch.randn(weights[0].shape)
        for weight in weights:
            weight.grad = gradient
    optimizers = {
        "ours": Muon(sides["ours"], lr=0.02, weight_decay=0.1),
        "torch": torch.optim.Muon(sides["torch"], lr=0.02, weight_decay=0.1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(N_TURNS):
        for name, optimizer in optimizers.items():
            started_at_s = time.perf_counter()
            for _ in range(STEPS_A_TURN):
                optimizer.step()
            seconds[name].append((time.perf_counter() - started_at_s) / STEPS_A_TURN)
    ours_ms, torch_ms = (1000 * statistics.median(seconds[name]) for name in ("ours", "torch"))
    apart = max(
        ((one - other).norm() / (other - first).norm()).item()
        for one, other, first in zip(sides["ours"], sides["torch"], start)
    )
    threads = torch.get_num_threads()
    return {
        "size": size,
        "matrices": len(start),
        "ours_ms": ours_ms,
        "torch_ms": torch_ms,
        "ratio": ours_ms / torch_ms,
        "difference": apart,
        "machine": f"{platform.machine()}, {threads} threads, torch {torch.__version__}",
    }


if __name__ == "__main__":
    main(sys.argv[1:])
