"""Training speed and memory of our Trainer beside transformers, nanoGPT, litgpt and the book's code, in one run.

    python -m benchmarks.train_speed --config 124m --peer nanogpt=PATH --peer nanogpt-compiled=PATH --json out.json
    python -m benchmarks.train_speed --config small-50257 --peer book=FOLDER_WITH_gpt.py --bf16 --steps 4 --rounds 3

Every side is a process of its own, which gives its peak memory. After two steps that are not counted, the sides take
turns, `--steps` steps at a time, so that other load on the machine affects all of them equally. Ours is the real
Trainer with its loader, checks and records; the others run the loop of their own training script: forward pass, loss,
backward pass, clipping, AdamW, loss read. All have the same data and order, and those of GPT-2's architecture the same
initial weights, so that their losses can be compared: over the first steps they differ by rounding only.

The speed of a matrix product is measured between the turns; the share is that of the products in a step (see
`flops_per_step`) at the median step time. transformers' own model is a peer whenever the package is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training_peers import PEERS, peer_step
from scratchlm.core.batch import Batch
from scratchlm.core.device import peak_memory_bytes
from scratchlm.core.files import write_json
from scratchlm.core.matrix_speed import matrix_flops_per_s
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.windows import TokenWindows
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.training.batches import endless_batches
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.config import TrainingConfig
from scratchlm.training.planner import flops_per_step
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.trainer import Trainer

N_WARM_UP = 2  # steps that are not counted
GPT2_LIKE: dict[str, Any] = {"drop_rate": 0.0, "qkv_bias": True, "tie_embeddings": True, "init": "gpt2"}
SIX = {"context_length": 256, "emb_dim": 384, "n_heads": 6, "n_layers": 6}
CONFIGS = {  # the model and the batch size
    "124m": (GPTConfig(context_length=256, **GPT2_LIKE), 4),
    "small-50257": (GPTConfig(vocab_size=50257, **SIX, **GPT2_LIKE), 16),
    "small-4096": (GPTConfig(vocab_size=4096, **SIX, **GPT2_LIKE), 16),
    "quickstart": (
        GPTConfig(vocab_size=1024, context_length=128, emb_dim=128, n_heads=4, n_layers=4, **GPT2_LIKE), 8
    ),
    "tiny": (GPTConfig(vocab_size=64, context_length=16, emb_dim=16, n_heads=2, n_layers=1, **GPT2_LIKE), 2),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and with --json write the figures."""
    parser = argparse.ArgumentParser(description="Training speed and memory beside other programs.")
    parser.add_argument(
        "--config", choices=CONFIGS, default="small-4096", help="model, context and batch size"
    )
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PATH",
        help=f"another program and its local checkout: {', '.join(PEERS)}",
    )  # fmt: skip
    parser.add_argument("--bf16", action="store_true", help="also measure ours in bf16")
    parser.add_argument(
        "--recompute", action="store_true", help="also measure ours in float32 with recompute_cheap"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--steps", type=int, default=4, help="steps in a turn")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads of each side"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # the process of one side
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.side:
        run_side(options.side, *CONFIGS[options.config])
        return
    figures = measure(options)
    for name, row in figures["sides"].items():
        print(
            f"{name:>16}: {row['tokens_per_s']:>9,.0f} tokens/s, peak {row['peak_mb']:>7,.0f} MB, "
            f"{row['share_of_products']:.0%} of the matrix products' speed, first losses within "
            f"{row['loss_difference']:.1e} of ours"
        )
    print(f"{options.config}, {figures['machine']}, {figures['instructions']}")
    if options.json:
        write_json(options.json, figures)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start every side, let them take turns, and collect speeds, losses and peaks."""
    config, batch_size = CONFIGS[options.config]
    names = [
        "ours",
        *(["ours-bf16"] if options.bf16 else []),
        *(["ours-recompute"] if options.recompute else []),
    ]
    names += ["transformers="] if importlib.util.find_spec("transformers") else []
    sides = {name.partition("=")[0]: Side(name, options) for name in [*names, *options.peer]}
    speeds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for side in sides.values():
        side.take_turn(N_WARM_UP)
        side.seconds.clear()
    for _ in range(options.rounds):
        for side in sides.values():
            side.take_turn(options.steps)
        for dtype in speeds if options.bf16 else [torch.float32]:
            speeds[dtype].append(matrix_flops_per_s(dtype))
    training = settings(batch_size)
    n_tokens, n_flops = batch_size * config.context_length, flops_per_step(config, training)
    rows = {}
    for name, side in sides.items():
        step_s = statistics.median(side.seconds)
        differences = [abs(one - other) for one, other in zip(side.losses[:20], sides["ours"].losses[:20])]
        peak = max(speeds[torch.bfloat16 if name.endswith("bf16") else torch.float32])
        rows[name] = {
            "tokens_per_s": n_tokens / step_s,
            "step_s": side.seconds,
            "peak_mb": side.finish() / 1e6,
            "share_of_products": n_flops / step_s / peak,
            "loss_difference": max(differences),
        }
    return {
        "config": options.config,
        "sides": rows,
        "matrix_gflops_per_s": {str(dtype): max(found) / 1e9 for dtype, found in speeds.items() if found},
        "instructions": instructions(),
        "machine": f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}",
    }


class Side:
    """The process of one program; it runs steps when it is told to."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        command = [
            sys.executable, "-m", "benchmarks.train_speed", "--side", name, "--config", options.config,
            "--threads", str(options.threads),
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def take_turn(self, n_steps: int) -> None:
        """Run some steps."""
        found = self._ask(n_steps)
        self.seconds += found["seconds"]
        self.losses += found["losses"]

    def finish(self) -> int:
        """End the process; returns its peak memory in bytes."""
        peak = int(self._ask(0)["peak_bytes"])
        self._process.communicate()
        return peak

    def _ask(self, n_steps: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{n_steps}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:  # other programs print too
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit(f"a side ended with code {self._process.wait()}; its error is shown above")


def run_side(name: str, config: GPTConfig, batch_size: int) -> None:
    """Train in this process, and answer on standard output how long each step took."""
    precision = "bf16" if name == "ours-bf16" else "float32"
    training = settings(batch_size, precision=precision, recompute_cheap=name == "ours-recompute")
    torch.manual_seed(0)
    model = GPTModel(config)
    ids = np.random.default_rng(0).integers(
        config.vocab_size, size=200 * batch_size * config.context_length + 1
    )
    loader = BatchLoader(TokenWindows(ids, context_length=config.context_length), batch_size=batch_size)
    turns = Turns()
    if name.startswith("ours"):
        Trainer(model, PretrainingTask(), training, callbacks=[turns]).fit(loader)
        return
    peer, _, path = name.partition("=")
    step = peer_step(peer, path, config, training, model)
    del model
    for batch in batches(loader):
        started_at_s = time.perf_counter()
        loss = step(batch.inputs, batch.targets)
        turns.record(time.perf_counter() - started_at_s, loss)


def settings(batch_size: int, **changes: Any) -> TrainingConfig:
    """The settings of every side: a constant learning rate, AdamW, clipping."""
    return TrainingConfig(
        max_steps=10**9, batch_size=batch_size, learning_rate=3e-4, schedule="constant", warmup_steps=0,
        eval_every_steps=0, use="last", **changes,
    )  # fmt: skip


def batches(loader: BatchLoader) -> Iterator[Batch]:
    """The batches that our Trainer takes, in its order."""
    return (batch for _, batch in endless_batches(loader))


class Turns(Callback):
    """A callback that reads how many steps to run, and answers when they are done; 0 ends the process."""

    def __init__(self) -> None:
        self._n_steps = self._next()
        self._seconds: list[float] = []
        self._losses: list[float] = []

    def record(self, seconds: float, loss: float) -> None:
        """Count a step; answers and waits at the end of the turn."""
        self._seconds.append(seconds)
        self._losses.append(loss)
        if len(self._seconds) < self._n_steps:
            return
        print(json.dumps({"seconds": self._seconds, "losses": self._losses}), flush=True)
        self._seconds, self._losses = [], []
        self._n_steps = self._next()

    def _next(self) -> int:
        n_steps = int(sys.stdin.readline() or 0)
        if n_steps == 0:
            print(json.dumps({"peak_bytes": peak_memory_bytes()}), flush=True)
            raise SystemExit
        return n_steps

    def on_step(self, record: StepRecord) -> None:
        """Count a step of the Trainer, timed as the others': from the batch to the updated weights."""
        self._tokens, earlier = record.tokens, getattr(self, "_tokens", 0)
        self.record((record.tokens - earlier) / record.tokens_per_s, record.train_loss)


def instructions() -> str:
    """The processor, and the instructions that decide the speed of products."""
    found = getattr(torch.cpu, "get_capabilities", dict)()
    decisive = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "sve", "bf16")
    return f"{found.get('cpu_name')}: {', '.join(name for name in decisive if found.get(name)) or 'other'}"


if __name__ == "__main__":
    main(sys.argv[1:])
