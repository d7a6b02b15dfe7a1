"""`--track` is checked before anything is trained, covers every stage, and never prints among the results."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from scratchlm.training import trackers

TINY = (
    "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 32 "
    "--tokenizer.vocab-size 300 --batch-size 4 --max-steps 3 --device cpu --json"
)


class Recorder:
    """A service that keeps what it receives."""

    opened: list[Recorder]

    def __init__(self, name, settings, folder):
        print("chatter")
        self.name, self.settings, self.folder = name, settings, folder
        self.steps, self.exit_code = [], None
        type(self).opened.append(self)

    def log(self, values, step):
        self.steps += [step] if "train/loss" in values else []

    def finish(self, exit_code):
        self.exit_code = exit_code


def start(module, *arguments):
    recorder = Recorder(*arguments)
    return recorder.log, recorder.finish


@pytest.fixture
def opened(monkeypatch) -> list[Recorder]:
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    monkeypatch.setitem(trackers.START, "wandb", start)
    Recorder.opened = []
    return Recorder.opened


def test_a_training_is_tracked_from_its_first_to_its_last_step(life, run, opened):
    code, out, _ = run(f"pretrain --data {life['text.txt']} --out mine --track wandb {TINY}")
    assert code == 0
    assert json.loads(out)["step"] == 3, "one JSON object and no chatter"
    (service,) = opened
    assert (service.name, service.steps, service.exit_code) == ("mine/pretrain", [1, 2, 3], 0)
    assert service.settings["model.emb_dim"] == 16
    assert service.folder == Path("mine")


def test_every_finetune_command_can_be_tracked(life, run, opened):
    for command in (
        f"finetune classify --data {life['messages.tsv']} --no-compare-raw-split",
        f"finetune instruct --data {life['entries.json']} --template plain --max-new-tokens 2",
    ):
        name = command.split()[1]
        code, _, err = run(f"{command} --base {life['base']} --out {name} --max-steps 2 --track wandb --json")
        assert code == 0, err
    assert [(service.name, service.steps[-1]) for service in opened] == [
        ("classify/classify", 2),
        ("instruct/instruct", 2),
    ]


def test_nothing_is_tracked_unless_it_is_asked_for(life, run, opened):
    assert run(f"pretrain --data {life['text.txt']} --out mine {TINY}")[0] == 0
    assert opened == []


def test_a_missing_package_is_reported_before_anything_is_made(life, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    code, out, err = run(f"pretrain --data {life['text.txt']} --out mine --track mlflow {TINY}")
    assert (code, out) == (5, "")
    assert "scratchlm[track]" in err
    assert not Path("mine").exists()


def test_an_unknown_tracker_is_refused(life, run):
    code, _, err = run(f"pretrain --data {life['text.txt']} --out mine --track comet {TINY}")
    assert code == 2
    assert "wandb" in err
