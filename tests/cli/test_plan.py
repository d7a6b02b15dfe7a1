"""`scratchlm plan` predicts a run from the flags that `pretrain` has."""

import json

import pytest

from scratchlm.model.config import CONFIGS
from scratchlm.recipes.recipe import load_recipe
from scratchlm.training.planner import n_parameters
from tests.cli.conftest import scratchlm

TINY = "--model.n-layers 2 --model.emb-dim 16 --model.n-heads 2 --model.context-length 32 --batch-size 2"


def test_the_json_object_has_the_keys_that_scripts_rely_on():
    outcome = scratchlm(f"plan {TINY} --vocab-size 300 --max-steps 600 --json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    memory = found["memory"]
    assert (
        found["parameters"] == 300 * 16 + 32 * 16 + 2 * (12 * 16**2 + 10 * 16) + 32
    )  # by hand, with a tied head
    assert found["steps"] == 600
    assert found["minutes"] == pytest.approx(600 * found["seconds_per_step"] / 60)
    assert memory["weights"] + memory["program"] < found["memory_bytes"] < sum(memory.values())


def test_the_sizes_and_recipes_are_those_of_pretrain():
    small = json.loads(scratchlm("plan --config small --vocab-size 4096 --no-measure --json").out)
    assert small["parameters"] == n_parameters(CONFIGS["small"])
    assert (small["steps"], small["minutes"]) == (1000, None)
    quick = json.loads(scratchlm("plan --recipe quickstart --no-measure --json").out)
    recipe = load_recipe("quickstart")[1]
    config = recipe.model.resolve(vocab_size=1024)
    assert (quick["parameters"], quick["steps"]) == (n_parameters(config), recipe.pretrain.max_steps)


def test_epochs_are_counted_in_the_tokens_that_are_named():
    flags = f"plan {TINY} --epochs 2 --no-measure --json"
    assert json.loads(scratchlm(f"{flags} --tokens 6401").out)["steps"] == 200  # 200 windows, 2 in a batch
    outcome = scratchlm(flags)
    assert outcome.code == 2
    assert "give --tokens or --max-steps" in outcome.err


def test_minutes_that_are_a_limit_are_not_exceeded():
    found = json.loads(scratchlm(f"plan {TINY} --max-minutes 3 --json").out)
    assert (found["steps"], found["minutes"]) == (None, 3)


def test_a_model_larger_than_the_memory_is_planned_but_not_measured():
    outcome = scratchlm("plan --config gpt2-xl --batch-size 4096")
    assert outcome.code == 0
    assert (
        "1,637,792,000 parameters" in outcome.out
    )  # 1,557,611,200 and an untied head, less 48 x 3 x 1,600 biases
    assert "MiB are free, so its time is not measured" in outcome.err


def test_the_plan_of_a_rank_says_what_the_rank_holds():
    flags = f"plan {TINY} --batch-size 6 --ranks 2 --no-measure"
    whole, sharded = (scratchlm(f"{flags} --sharding {name}").out for name in ("none", "fsdp"))
    share = "weights, gradients and moments, and with 3 of the 6 examples of a batch"
    assert f"of rank 0, which needs most of 2; below it is for this rank, with all {share}" in whole
    assert f"with 1/2 of {share}" in sharded
    found = json.loads(scratchlm(f"{flags} --sharding fsdp --json").out)
    assert found["memory"]["weights"] == 2 * found["parameters"]
    outcome = scratchlm(f"plan {TINY} --ranks 0")
    assert (outcome.code, "ranks must be at least 1, got 0" in outcome.err) == (2, True)


def test_a_recipe_that_does_not_pre_train_is_refused():
    outcome = scratchlm("plan --recipe book")
    assert (outcome.code, outcome.out) == (2, "")
    assert "this recipe has only classify, instruct; name another" in outcome.err


@pytest.mark.parametrize("command", ["plan", "pretrain --data missing.txt"])
@pytest.mark.parametrize("name", ["emb-dim", "context-length", "ff-dim"])
def test_a_size_beyond_what_torch_can_count_is_one_line(command, name):
    outcome = scratchlm(f"{command} --model.n-heads 1 --model.{name} {10**18}")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{name.replace('-', '_')} must be at most 268435456, got {10**18}" in outcome.err
    assert "vocab_size must be at most" in scratchlm(f"plan --vocab-size {10**22}").err


def test_two_sizes_are_refused():
    outcome = scratchlm("plan --config small --model.size tiny")
    assert outcome.code == 2
    assert "--config is short for --model.size" in outcome.err
