"""The files for clusters are valid, and start commands and recipes that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from scratchlm.cli.commands import COMMANDS
from scratchlm.recipes.recipe import load_recipe

FOLDER = Path(__file__).parents[2] / "guide" / "cluster"
TORCHRUN = re.compile(r"torchrun\b(?:.*\\\n)*.*")


def checked_by_bash(script: str) -> None:
    """The script has no syntax error."""
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def assert_starts_our_command(words: list[str]) -> None:
    """`torchrun OPTIONS -m scratchlm COMMAND ...` with options that torchrun has and a command of ours."""
    start = words.index("scratchlm")
    values = {"$SLURM_JOB_NUM_NODES": "2", "${SLURM_GPUS_ON_NODE:-1}": "4", "$SKYPILOT_NUM_NODES": "2"}
    values |= {"$SKYPILOT_NUM_GPUS_PER_NODE": "4", "$SKYPILOT_NODE_RANK": "1"}
    options = get_args_parser().parse_args([values.get(word, word) for word in words[1 : start + 1]])
    assert options.module
    assert options.training_script == "scratchlm"
    assert tuple(words[start + 1 : start + 2]) in COMMANDS
    assert "--out" in words


def test_the_slurm_script_is_valid_and_starts_torchrun():
    script = (FOLDER / "slurm.sh").read_text(encoding="utf-8")
    checked_by_bash(script)
    command = TORCHRUN.search(script.split("set -euo pipefail")[1].replace("# One torchrun", ""))
    assert command is not None
    assert_starts_our_command(shlex.split(command[0].replace("\\\n", " ")))
    assert load_recipe("gpt2-124m")[0] == "gpt2-124m"


def test_the_skypilot_task_is_valid_and_starts_torchrun():
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text(encoding="utf-8"))
    # the fields of https://docs.skypilot.co/en/latest/reference/yaml-spec.html that are used
    assert set(task) == {"name", "num_nodes", "resources", "workdir", "envs", "file_mounts", "setup", "run"}
    assert task["file_mounts"]["/runs"]["mode"] in {"MOUNT", "COPY", "MOUNT_CACHED"}
    for part in ("setup", "run"):
        checked_by_bash(task[part])
    command = TORCHRUN.search(task["run"])
    assert command is not None
    assert_starts_our_command(shlex.split(command[0].replace("\\\n", " ")))
    assert load_recipe(task["envs"]["RECIPE"])[0] == "gpt2-124m"


def test_the_trainjob_has_the_fields_of_kubeflow_trainer():
    yaml = pytest.importorskip("yaml")
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="pip install kubeflow-trainer-api")
    runtime, job = yaml.safe_load_all((FOLDER / "trainjob.yaml").read_text(encoding="utf-8"))
    for document, kind in (
        (runtime, models.TrainerV1alpha1TrainingRuntime),
        (job, models.TrainerV1alpha1TrainJob),
    ):
        assert without_none(kind.from_dict(document).to_dict()) == document  # an unknown field would be lost
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert_starts_our_command([*job["spec"]["trainer"]["command"], *job["spec"]["trainer"]["args"]])


def without_none(value):
    """A document without empty fields, and as plain values."""
    if isinstance(value, dict):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_none(one) for one in value]
    return value
