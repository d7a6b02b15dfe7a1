"""Step time and peak memory as `scratchlm plan` predicts them, beside a training with the same settings.

    python -m benchmarks.plan_accuracy --config 124m --rounds 2 --steps 3

Predictions and steps of training take turns, so that other load on the machine affects both. Planned minutes are the
planned time of a step times the number of steps, so their error is that of the step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.train_speed import CONFIGS, N_WARM_UP, Side, settings
from scratchlm.core.files import write_json
from scratchlm.training.planner import plan_memory
from scratchlm.training.step_time import measure_program_bytes, measure_step_s


def main(arguments: list[str] | None = None) -> None:
    """Predict, train, print the ratios, and with --json write them."""
    parser = argparse.ArgumentParser(description="Step time and memory, planned and measured.")
    parser.add_argument("--config", choices=CONFIGS, action="append", help="one or more of train_speed's")
    parser.add_argument("--bf16", action="store_true", help="train in bf16")
    parser.add_argument("--rounds", type=int, default=3, help="predictions, each followed by a training")
    parser.add_argument("--steps", type=int, default=5, help="steps of a training")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = {}
    for name in options.config or ["quickstart"]:
        options.config = name
        row = found[name] = measure(options)
        print(
            f"{name:>12}: planned {row['planned_s']:.3f} s a step and {row['planned_mb']:,.0f} MB, measured "
            f"{row['measured_s']:.3f} s and {row['measured_mb']:,.0f} MB: {row['planned_s'] / row['measured_s']:.2f} "
            f"of the time, {row['planned_mb'] / row['measured_mb']:.2f} of the memory"
        )
    if options.json:
        write_json(options.json, found)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The planned and the measured figures of one configuration."""
    config, batch_size = CONFIGS[options.config]
    training = settings(batch_size, precision="bf16" if options.bf16 else "float32")
    planned = plan_memory(config, replace(training, max_steps=1), program_bytes=measure_program_bytes())
    side = Side("ours-bf16" if options.bf16 else "ours", options)
    side.take_turn(N_WARM_UP)
    side.seconds.clear()
    predicted = []
    for _ in range(options.rounds):
        predicted.append(measure_step_s(config, training, device=torch.device("cpu")))
        side.take_turn(options.steps)
    return {
        "planned_s": statistics.median(predicted),
        "measured_s": statistics.median(side.seconds),
        "planned_each_s": predicted,
        "measured_each_s": side.seconds,
        "planned_mb": planned.peak / 1e6,
        "measured_mb": side.finish() / 1e6,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
