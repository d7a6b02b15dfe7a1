"""Files for every stage, and a recipe that runs through them in seconds."""

import json

import pytest
import torch

from scratchlm.core.config import from_dict
from scratchlm.recipes.recipe import Recipe
from scratchlm.recipes.run import run_recipe
from scratchlm.reports.run_data import run_report

NAMES = ("ann", "bob", "cem", "dot", "eve", "fox", "gus", "hal", "ida", "jon", "kim", "lea", "max", "ned")
THINGS = ("cup", "hat", "map", "pen", "toy", "jar", "key", "bag", "net", "saw", "rug", "pot")


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory):
    """Tests write nowhere else; one token cache serves them all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCRATCHLM_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_files(tmp_path_factory):
    """Paths of a text, a table of messages, a list of instructions and one of preferences."""
    folder = tmp_path_factory.mktemp("data")
    story = " ".join(f"{name} has a {thing}." for name in NAMES for thing in THINGS)
    (folder / "text.txt").write_text(story, encoding="utf-8")
    rows = [f"spam\twin a {thing} prize {name} now" for name in NAMES[:9] for thing in THINGS[:7]]
    rows += [f"ham\t{name} took your {thing} home" for name in NAMES[5:] for thing in THINGS[3:]]
    rows += [row.upper().replace("SPAM\t", "spam\t").replace("HAM\t", "ham\t") + "!" for row in rows[:5]]
    (folder / "messages.tsv").write_text("\n".join(rows), encoding="utf-8")
    entries = [
        {"instruction": "who has it", "input": f"{name} {thing}", "output": name, "skill": "names"}
        for name in NAMES[:8] for thing in THINGS[:5]
    ]  # fmt: skip
    (folder / "entries.json").write_text(json.dumps(entries), encoding="utf-8")
    pairs = [
        {"prompt": f"who has the {thing}", "chosen": f"{name} has", "rejected": name}
        for name in NAMES[:8] for thing in THINGS[:5]
    ]  # fmt: skip
    pairs.insert(3, {"prompt": "who is it", "chosen": "ann", "rejected": "ann"})
    (folder / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def values(data_files):
    """A function that gives a tiny recipe's plain values, some of them changed."""

    def make(**changes):
        training = {
            "max_steps": 6, "batch_size": 8, "warmup_steps": 1, "learning_rate": 5e-3, "eval_every_steps": 3,
            "checkpoint_every_steps": 2,
        }  # fmt: skip
        plain = {
            "sample_prompt": "ann has",
            "data": {
                "text": [str(data_files / "text.txt")],
                "messages": [str(data_files / "messages.tsv")],
                "instructions": [str(data_files / "entries.json")],
                "preferences": [str(data_files / "pairs.json")],
            },
            "tokenizer": {"vocab_size": 300},
            "model": {"context_length": 32, "emb_dim": 16, "n_heads": 2, "n_layers": 1},
            "pretrain": {**training, "sample_every_steps": 3},
            "classify": {**training, "train": "all"},
            "instruct": {**training, "template": "plain", "max_new_tokens": 4},
            "prefer": {**training, "max_new_tokens": 4},
        }
        for name, change in changes.items():
            plain[name] = {**plain[name], **change} if isinstance(change, dict) else change
        return plain

    return make


@pytest.fixture(scope="session")
def recipe_of(values):
    return lambda **changes: from_dict(Recipe, values(**changes), where="tiny")


@pytest.fixture(scope="session")
def run_it():
    """Run a recipe on the CPU."""

    def run(recipe, out, **arguments):
        return run_recipe("tiny", recipe, out, device=torch.device("cpu"), render=run_report, **arguments)

    return run


@pytest.fixture(scope="session")
def finished(recipe_of, run_it, tmp_path_factory):
    """A complete run of all three stages: its recipe and its result; nobody may change its folder."""
    recipe = recipe_of()
    return recipe, run_it(recipe, tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def stop_in(stop_at):
    """A function for `callbacks_for` that stops a stage after a step."""
    return lambda stage, step: lambda now: [stop_at(step)] if now == stage else []
