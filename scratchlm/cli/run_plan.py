"""Show the stages of a recipe and their estimated time before it starts."""

from pathlib import Path

import torch

from scratchlm.core.matrix_speed import matrix_flops_per_s
from scratchlm.recipes.recipe import (
    SAMPLES,
    STAGE_DATA,
    Recipe,
    builtin_recipes,
    differing_settings,
    load_recipe,
)
from scratchlm.training.config import TrainingConfig
from scratchlm.training.planner import flops_per_step

MEASURED = {"quickstart": "3 minutes", "shakespeare": "1 minute"}  # on two CPU cores; see README.md
EFFICIENCY = 0.4  # speed of training relative to the products of its feed-forward, measured with shakespeare
WHAT = {
    "pretrain": "train a language model",
    "classify": "fine-tune it as a classifier",
    "instruct": "fine-tune it to follow instructions",
    "prefer": "tune the assistant on pairs of answers",
}


def plan_lines(name: str, recipe: Recipe, out: Path, device: torch.device) -> list[str]:
    """Describe the recipe, its stages, the expected time, and how to stop and resume."""
    lines = [f"{name}: {recipe.description}" if recipe.description else name]
    for number, stage in enumerate(recipe.stages, start=1):
        data = getattr(recipe.data, STAGE_DATA[stage])
        source = "built-in sample data" if data == (SAMPLES,) else ", ".join(data)
        lines.append(f"  {number}. {stage}: {WHAT[stage]} on {source}, {_length(getattr(recipe, stage))}")
    lines.append(f"  {_duration(name, recipe, device)}. Ctrl-C saves and stops; the same command resumes.")
    return [*lines, f"  Everything is written to {out}/, the report to {out / 'report.html'}."]


def _length(config: TrainingConfig) -> str:
    ends = {"steps": config.max_steps, "epochs": config.epochs, "minutes": config.max_minutes}
    return " or ".join(f"{value:,g} {unit}" for unit, value in ends.items() if value is not None)


def _duration(name: str, recipe: Recipe, device: torch.device) -> str:
    """The measured time of an unchanged built-in recipe, or an estimate of its pre-training."""
    if name in MEASURED and name in builtin_recipes():
        changed = differing_settings(load_recipe(name)[1], recipe)
        if all(setting.rpartition(".")[2] == "seed" for setting in changed):
            return f"This takes about {MEASURED[name]} on two CPU cores"
    if recipe.stages[0] == "pretrain" and recipe.pretrain.max_steps is not None:
        return f"Pre-training takes {_time(pretraining_seconds(recipe, device))} on this machine"
    return "The time depends on the model and the data; the progress bar shows what is left"


def pretraining_seconds(recipe: Recipe, device: torch.device) -> float:
    """Estimate the time of pre-training from the FLOPs of its steps and the speed of this device's matrix products."""
    config = recipe.model.resolve(vocab_size=recipe.tokenizer.vocab_size)
    n_flops = (recipe.pretrain.max_steps or 0) * flops_per_step(config, recipe.pretrain)
    shape = (recipe.pretrain.batch_size * config.context_length, config.emb_dim, config.feed_forward_dim)
    return n_flops / (EFFICIENCY * matrix_flops_per_s(device=device, shape=shape))


def _time(seconds: float) -> str:
    if seconds < 90:
        return "about a minute" if seconds > 45 else "less than a minute"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.0f} hours" if seconds < 172_800 else f"about {seconds / 86_400:.0f} days"
