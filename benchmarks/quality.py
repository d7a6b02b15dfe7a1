"""Quality per minute: bits per byte of a recipe and of variants of it, after equal time, over several seeds.

    python -m benchmarks.quality --data tinyshakespeare.txt --minutes 1 --threads 1 \
        rotary:model.positions=rotary normuon:lever=normuon both:lever=normuon+zero,model.qk_norm=true
    python -m benchmarks.quality --recipe quickstart --step-ms 47 polar:pretrain.muon_iteration=polar-express

A variant is NAME:KEY=VALUE,..., where KEY is a setting of the recipe, or `lever`: changes that are no settings, see
`benchmarks.quality_levers`. Wall-clock time says little while other programs run, so minutes become steps: all variants
first take turns of a few steps, which gives the cost of a step of each relative to the recipe's own, and
`--step-ms` is the recipe's on the machine that the minutes are meant for (default: as measured here). A variant whose
steps cost 5 % more takes 5 % fewer of them, and its schedule ends there.

Validation text, initial seed and sample order are the same for all variants, so differences are taken seed by seed.
Their interval is Student's t over the seeds; where it excludes zero, the line says so.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality_levers import change_model, change_optimizers, levers_of
from scratchlm.core.config import from_dict
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import write_json
from scratchlm.core.toml_tables import parse_toml
from scratchlm.evaluation.intervals import mean_over_runs
from scratchlm.evaluation.loss import TextLoss
from scratchlm.recipes.inputs import fine_tuning_texts
from scratchlm.recipes.recipe import Recipe, recipe_values
from scratchlm.recipes.stages import StageRun, pretrain_settings
from scratchlm.training.config import TrainingConfig
from scratchlm.training.pretraining import Prepared, PretrainingTask, prepare_pretraining, validation_losses
from scratchlm.training.progress import Progress
from scratchlm.training.trainer import Trainer

N_TURNS, STEPS_A_TURN = 5, 6
Settings = dict[str, str]  # a variant's changes: dotted setting or `lever` -> value


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and with --json write the figures."""
    parser = argparse.ArgumentParser(description="Bits per byte after equal time.")
    parser.add_argument("--recipe", default="shakespeare", help="name or .toml file")
    parser.add_argument("--data", help="text file, in place of the recipe's")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training, without evaluation")
    parser.add_argument("--step-ms", type=float, help="milliseconds of the recipe's own step")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each variant")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("variants", nargs="*", help="NAME:KEY=VALUE,...")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    base = {"data.text": f'["{options.data}"]'} if options.data else {}
    variants = {"recipe": base} | {
        name: base | dict(pair.split("=", 1) for pair in changes.split(","))
        for name, _, changes in (text.partition(":") for text in options.variants)
    }
    step_s = measure_steps(options.recipe, variants)
    base_s = options.step_ms / 1000 if options.step_ms else step_s["recipe"]
    rows: dict[str, dict[str, Any]] = {}
    for name, changes in variants.items():
        cost = step_s[name] / step_s["recipe"]
        n_steps = round(options.minutes * 60 / base_s / cost)
        bits = [train(options.recipe, changes, seed, n_steps) for seed in range(options.seeds)]
        rows[name] = {"cost_of_a_step": cost, "steps": n_steps, "bits_per_byte": bits}
        print(describe(name, rows[name], rows["recipe"]["bits_per_byte"]), flush=True)
    if options.json:
        write_json(options.json, {"minutes": options.minutes, "step_ms": 1000 * base_s, "variants": rows})


def describe(name: str, row: dict[str, Any], base: list[float]) -> str:
    """One line: the mean, and its difference from the recipe in percent with the interval over the seeds."""
    bits = row["bits_per_byte"]
    cost = row["cost_of_a_step"]
    line = f"{name:>16}: {statistics.fmean(bits):.4f} bits per byte, {row['steps']} steps, a step costs {cost:.2f}"
    if name == "recipe" or len(bits) < 2:
        return line
    found = mean_over_runs([100 * (one / other - 1) for one, other in zip(bits, base)])
    verdict = "better" if found.high < 0 else "worse" if found.low > 0 else "no significant difference"
    return f"{line}; {found.mean:+.2f} % ({found.low:+.2f} to {found.high:+.2f}): {verdict}"


def measure_steps(recipe: str, variants: dict[str, Settings]) -> dict[str, float]:
    """Seconds of a step of each variant: the least of several turns, in which other programs disturbed it least."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        ready = {name: prepare(recipe, changes, 0, Path(folder)) for name, changes in variants.items()}
        for _ in range(N_TURNS):
            for name, changes in variants.items():
                progress = fit(ready[name], changes, STEPS_A_TURN)
                seconds[name].append((progress.steps_s - progress.first_step_s) / (progress.step - 1))
    return {name: min(found) for name, found in seconds.items()}


def train(recipe: str, changes: Settings, seed: int, n_steps: int) -> float:
    """Train one variant; returns the bits per byte of its validation text."""
    with tempfile.TemporaryDirectory() as folder:
        ready = prepare(recipe, changes, seed, Path(folder))
        fit(ready, changes, n_steps)
    prepared, _ = ready
    parts = validation_losses(prepared.model, prepared.data, prepared.tokenizer, within_documents=False)
    return TextLoss.together(parts).bits_per_byte


def prepare(name: str, changes: Settings, seed: int, folder: Path) -> tuple[Prepared, TrainingConfig]:
    """The data and the new model of a variant of a recipe."""
    _, values = recipe_values(name)
    for dotted, value in changes.items():
        if dotted != "lever":
            table, _, key = dotted.partition(".")
            values[table] = values[table] | {key: plain(value)}
    recipe = from_dict(Recipe, values, where=name)
    run = StageRun(
        recipe=recipe, out=folder, device=torch.device("cpu"), callbacks=(), notify=lambda message: None
    )
    settings, _ = pretrain_settings(run)
    settings = replace(settings, training=replace(settings.training, seed=seed))
    texts = fine_tuning_texts(recipe)
    ready = prepare_pretraining(settings, folder, device=run.device, extra_tokenizer_texts=texts)
    change_model(ready.model, levers_of(changes.get("lever", "")))
    return ready, settings.training


def fit(ready: tuple[Prepared, TrainingConfig], changes: Settings, n_steps: int) -> Progress:
    """Train for so many steps, without evaluation and checkpoints."""
    prepared, config = ready
    config = replace(config, max_steps=n_steps, epochs=None, max_minutes=None, eval_every_steps=0, use="last")
    trainer = Trainer(prepared.model, PretrainingTask(label_smoothing=config.label_smoothing), config)
    change_optimizers(trainer.optimizers, levers_of(changes.get("lever", "")))
    return trainer.fit(prepared.train)


def plain(text: str) -> Any:
    """A value as TOML reads it; a word is a string."""
    try:
        return parse_toml(f"value = {text}", where=text)["value"]
    except ConfigError:
        return text


if __name__ == "__main__":
    main(sys.argv[1:])
