"""Before it starts, `scratchlm run` says what it will do and about how long it takes."""

import dataclasses
from pathlib import Path

import pytest
import torch

from scratchlm.cli import run_plan
from scratchlm.cli.run_plan import plan_lines, pretraining_seconds
from scratchlm.recipes.recipe import DataSettings, Recipe, load_recipe
from scratchlm.training.config import TrainingConfig

CPU = torch.device("cpu")


def test_the_quickstart_names_its_stages_its_data_and_its_measured_time():
    recipe = load_recipe("quickstart")[1]
    lines = plan_lines("quickstart", recipe, Path("runs/quickstart"), CPU)
    text = "\n".join(lines)
    assert lines[0].startswith("quickstart: ")
    assert "1. pretrain: train a language model on built-in sample data, 1,400 steps" in text
    assert "2. classify: fine-tune it as a classifier on built-in sample data, 3 epochs" in text
    assert "about 3 minutes on two CPU cores" in text
    assert "Ctrl-C saves and stops; the same command resumes." in text
    assert "runs/quickstart/report.html" in text


def test_a_measured_time_is_that_of_the_unchanged_recipe():
    recipe = load_recipe("quickstart")[1]
    other_seed = dataclasses.replace(recipe, pretrain=dataclasses.replace(recipe.pretrain, seed=5))
    assert "about 3 minutes" in "".join(plan_lines("quickstart", other_seed, Path("out"), CPU))
    longer = dataclasses.replace(recipe, pretrain=dataclasses.replace(recipe.pretrain, max_steps=3))
    text = "".join(plan_lines("quickstart", longer, Path("out"), CPU))
    assert "about 3 minutes" not in text
    assert "Pre-training takes " in text


def test_twice_the_steps_take_twice_as_long(monkeypatch):
    monkeypatch.setattr(run_plan, "matrix_flops_per_s", lambda **_: 1e11)
    recipe = load_recipe("shakespeare")[1]
    twice = dataclasses.replace(recipe, pretrain=dataclasses.replace(recipe.pretrain, max_steps=1600))
    once_s = pretraining_seconds(recipe, CPU)
    assert 20 < once_s < 400
    assert pretraining_seconds(twice, CPU) == pytest.approx(2 * once_s)


@pytest.mark.parametrize(
    ("flops_per_s", "time"),
    [
        (1e15, "less than a minute"),
        (5e12, "about a minute"),
        (1e11, "about 60 minutes"),
        (1e10, "about 10 hours"),
        (1e8, "about 42 days"),
    ],
)
def test_the_estimate_is_given_in_a_fitting_unit(monkeypatch, flops_per_s, time):
    monkeypatch.setattr(run_plan, "matrix_flops_per_s", lambda **_: flops_per_s)
    recipe = Recipe(data=DataSettings(text=("a.txt",)), pretrain=TrainingConfig(max_steps=10_000))
    seconds = pretraining_seconds(recipe, CPU)
    assert f"Pre-training takes {time} on this machine" in "".join(
        plan_lines("mine", recipe, Path("out"), CPU)
    ), seconds


def test_without_an_estimate_the_bar_is_named():
    recipe = Recipe(stages=("classify",), base="x", data=DataSettings(messages=("m.tsv",)))
    assert "the progress bar shows what is left" in "".join(plan_lines("mine", recipe, Path("out"), CPU))
