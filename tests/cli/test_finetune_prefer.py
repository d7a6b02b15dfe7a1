"""`scratchlm finetune prefer`: its object, its words, going on, and one line about every mistake."""

import json
from pathlib import Path

import pytest

from scratchlm.checkpoints.store import load_model
from tests.cli.conftest import scratchlm

QUICK = "--max-steps 3 --batch-size 4 --max-new-tokens 3 --device cpu"
KEYS = "out rows equal val_loss test_accuracy reward_margin kl base_likelier likelier adapter seconds"


def entry(i: int, **changes: str) -> dict[str, str]:
    return {"prompt": f"Say cat {i}", "chosen": "the cat sat", "rejected": "dog", **changes}


@pytest.fixture
def pairs() -> str:
    """A file of 30 pairs, and one of equal answers."""
    entries = [entry(i) for i in range(30)] + [entry(31, rejected="the cat sat")]
    Path("pairs.json").write_text(json.dumps(entries))
    return "pairs.json"


@pytest.fixture
def prefer(life, pairs):
    """The command on the tiny assistant; more flags come behind."""
    return f"finetune prefer --base {life['assistant']} --data {pairs} --out out {QUICK}"


def test_it_prints_one_object_and_leaves_a_run_that_chats(prefer, life):
    outcome = scratchlm(f"{prefer} --json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(KEYS.split()) <= found.keys()
    assert (found["rows"], found["equal"], found["template"]) == (31, 1, "plain")
    assert "answers" not in found
    assert "25 pairs train, 2 validate, 3 test" in outcome.err
    assert load_model("out").task == {"kind": "instruction", "template": "plain"}
    names = {path.name for path in Path("out").iterdir()}
    assert {"recipe.toml", "checkpoints", "metrics.jsonl", "figures", "answers.jsonl", "report.html"} <= names


def test_it_says_what_came_out_and_where_it_is(prefer):
    outcome = scratchlm(f"{prefer} --lora-rank 2 --loss cdpo --label-smoothing 0.1")
    assert outcome.code == 0, outcome.err
    first, last = outcome.out.splitlines()
    assert first.startswith("preferences (cdpo): reward accuracy ")
    assert "nats per token from the reference" in first
    assert f"adapter: {Path('out') / 'adapter'}" in last
    assert "parameters are trained on" in outcome.err


def test_a_finished_run_goes_on_with_its_own_settings(prefer):
    assert scratchlm(f"{prefer} --lora-rank 2 --loss ipo").code == 0
    longer = scratchlm("finetune prefer --out out --resume --max-steps 5 --device cpu --json")
    assert longer.code == 0, longer.err
    found = json.loads(longer.out)
    assert (found["resumed_from"], found["step"], found["loss"]) == (3, 5, "ipo")


def test_fresh_starts_over_and_without_a_word_nothing_is_overwritten(prefer):
    assert scratchlm(prefer).code == 0
    refused = scratchlm(prefer)
    assert refused.code == 2
    assert "--resume to continue it, --fresh to start over" in refused.err
    again = json.loads(scratchlm(f"{prefer} --fresh --loss orpo --json").out)
    assert (again["resumed_from"], again["loss"], again["kl"]) == (None, "orpo", None)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ("--loss dpoo", 2, ("dpoo",)),
        ("--label-smoothing 0.1", 2, ("cdpo", "0.1")),
        ("--beta 0", 2, ("beta must be above 0",)),
        ("--lora-alpha 8", 2, ("lora_rank",)),
        ("--lora-rank 2 --lora-targets W_quary", 2, ("'W_quary'", "did you mean 'W_query'")),
        ("--max-length 2", 3, ("max_length", "got none in 25 pairs")),
        ("--data missing.json", 3, ("missing.json",)),
        ("--data empty.json", 3, ("must hold pairs of different answers, got 0 rows",)),
        ("--data columns.json", 3, ("entry 1", "'chosen'", "'good'")),
        ("--data equal.json", 3, ("chosen is equal to rejected",)),
        ("--base {classifier}", 3, ("classifier", "language model")),
    ],
)
def test_a_mistake_is_one_line_that_helps_and_leaves_no_folder(prefer, life, flags, code, words):
    Path("empty.json").write_text("[]")
    Path("columns.json").write_text('[{"prompt": "a", "good": "b", "bad": "c"}]')
    Path("equal.json").write_text(json.dumps([entry(0, rejected="the cat sat")]))
    outcome = scratchlm(f"{prefer} {flags.format(classifier=life['classifier'])}")
    assert (outcome.code, outcome.out) == (code, "")
    [line] = [line for line in outcome.err.splitlines() if line.startswith("scratchlm: error: ")]
    assert all(word in line for word in words), line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("command", "word"), [("--data {pairs}", "--base"), ("--base {base}", "--data")], ids=["base", "data"]
)
def test_what_is_needed_is_asked_for(life, pairs, command, word):
    outcome = scratchlm(f"finetune prefer {command.format(pairs=pairs, base=life['base'])}")
    assert outcome.code == 2
    assert word in outcome.err.splitlines()[-1]
