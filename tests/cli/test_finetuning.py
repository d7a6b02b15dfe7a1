"""The finetune commands share their first flags, refuse to run without base or data, and resume earlier runs."""

import dataclasses
import importlib

import pytest

from scratchlm.cli.finetuning import FineTuning
from scratchlm.cli.main import main

COMMANDS = {"classify": "FinetuneClassify", "instruct": "FinetuneInstruct", "prefer": "FinetunePrefer"}


@pytest.mark.parametrize("stage", COMMANDS)
def test_each_command_begins_with_the_shared_flags_and_adds_its_settings(stage):
    command = getattr(importlib.import_module(f"scratchlm.cli.finetune_{stage}"), COMMANDS[stage])
    shared = [field.name for field in dataclasses.fields(FineTuning)]
    assert [field.name for field in dataclasses.fields(command)] == [*shared, "settings"]


@pytest.mark.parametrize("stage", COMMANDS)
def test_without_a_base_each_names_an_example(stage, capsys):
    assert main(["finetune", stage, "--data", "some.json"]) == 2
    message = capsys.readouterr().err
    assert "needs a base model; name one with --base (e.g. " in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("stage", COMMANDS)
def test_without_data_each_names_the_flag(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", stage, "--base", "random:tiny"]) == 2
    assert f"{stage} needs data; name files" in capsys.readouterr().err


@pytest.mark.parametrize("stage", COMMANDS)
def test_resuming_a_run_that_does_not_exist_is_refused(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", stage, "--resume", "--out", "runs/none"]) == 2
    assert "there is no run to resume in runs/none" in capsys.readouterr().err
