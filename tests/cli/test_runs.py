"""`scratchlm report` and `scratchlm runs`: what was run, shown, compared and deleted."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scratchlm.core.run_lock import run_lock


@pytest.fixture
def runs(life) -> Path:
    """A runs folder: two assistants, a base, a classifier, a damaged run and a folder of something else."""
    folder = Path("runs")
    for name, source in (
        ("base", "base"),
        ("one", "assistant"),
        ("two", "assistant"),
        ("spam", "classifier"),
    ):
        shutil.copytree(life[source], folder / name)
    shutil.copytree(life["assistant"], folder / "broken")
    (folder / "broken" / "figures" / "instruct.json").write_text("{")
    (folder / "notes").mkdir()
    recipe = folder / "two" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("max_new_tokens = 3", "max_new_tokens = 4"))
    return folder


def test_the_list_names_every_folder_with_its_state(runs, run_json, run):
    found = {one["name"]: one for one in run_json("runs list")["runs"]}
    assert {name: one["state"] for name, one in found.items()} == {
        "base": "complete",
        "broken": "damaged",
        "notes": "foreign",
        "one": "complete",
        "spam": "complete",
        "two": "complete",
    }
    assert found["base"]["step"] == 4
    assert found["base"]["made_by"] == "pretrain"
    assert found["spam"]["figures"]["classify"] is not None
    assert found["one"]["size_bytes"] > 10_000
    _, out, _ = run("runs list")
    assert out.count("\n") == 7
    assert "is not valid JSON" in out


def test_an_empty_runs_folder_says_how_to_fill_it(run):
    Path("runs").mkdir()
    assert "scratchlm run" in run("runs list")[1]


def test_show_tells_settings_figures_and_whether_checkpoints_are_whole(runs, run_json, run):
    found = run_json("runs show base")
    assert found["settings"]["model"]["emb_dim"] == 16
    assert found["figures"]["pretrain"]["step"] == 4
    assert [one["is_good"] for one in found["checkpoints"]] == [True]
    weights = next((runs / "base").glob("checkpoints/*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    assert [one["is_good"] for one in run_json("runs show runs/base")["checkpoints"]] == [False]
    _, out, _ = run("runs show base")
    assert re.search(r"model\.safetensors has \d+ bytes instead of \d+", out)
    assert "model.emb_dim" in out
    assert "classify.learning_rate" not in out, "a stage that was not run has no settings"


def test_compare_shows_only_what_differs_unless_all_is_asked_for(runs, run_json, run):
    found = run_json("runs compare one two")
    assert [(row["name"], row["values"]) for row in found["settings"]] == [
        ("instruct.max_new_tokens", [3, 4])
    ]
    assert [run["label"] for run in found["runs"]] == ["one", "two"]
    assert found["differences"][0]["mean"] == 0
    assert not found["differences"][0]["is_clear"]
    exact = next(row for row in found["figures"] if row["name"] == "Exact match")
    assert exact["cells"][0]["interval"]
    assert len(run_json("runs compare one two --all-settings")["settings"]) > 10
    _, out, _ = run("runs compare one two")
    assert "they do not differ significantly" in out


def test_compare_needs_two(runs, run):
    assert run("runs compare one")[0] == 2


def test_rm_deletes_what_it_is_told_to_and_nothing_else(runs, run_json):
    found = run_json("runs rm one runs/broken --yes")
    assert found["deleted"] == ["runs/one", "runs/broken"]
    assert sorted(path.name for path in runs.iterdir()) == ["base", "notes", "spam", "two"]


def test_rm_asks_and_takes_only_yes_for_yes(runs, run, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    code, out, err = run("runs rm one")
    assert (code, out) == (0, "nothing was deleted.\n")
    assert "Delete runs/one" in err
    assert (runs / "one").exists()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run("runs rm one")[1] == "deleted runs/one\n"
    assert not (runs / "one").exists()


def test_rm_leaves_alone_what_links_point_to(runs, run_json, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (runs / "one" / "link").symlink_to(tmp_path / "precious")
    run_json("runs rm one --yes")
    assert (tmp_path / "precious" / "file").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("notes", "is not a run: recipe.toml is missing"),
        ("missing", "does not exist"),
        ("..", "is not in runs but in"),
        ("runs", "does not exist"),
        ("runs/one/../../elsewhere", "is not in runs but in"),
        ("linked", "is a link, not a run folder"),
    ],
)
def test_rm_refuses_what_is_no_run_of_that_folder(runs, run, name, told):
    shutil.copytree(runs / "one", "elsewhere")
    (runs / "linked").symlink_to(Path("elsewhere").resolve())
    code, _, err = run(f"runs rm {name} --yes")
    assert code == 2
    assert told in err
    assert (runs / "notes").exists()
    assert Path("elsewhere").exists()


def test_rm_needs_a_yes_where_nobody_can_be_asked(runs, run):
    code, _, err = run("runs rm one", stdin="y\n")
    assert code == 2
    assert "add --yes" in err
    assert (runs / "one").exists()


def test_rm_leaves_a_run_in_progress_alone(runs, run):
    with run_lock(runs / "one"):
        code, _, err = run("runs rm one two --yes")
    assert code == 2
    assert f"is in use by process {os.getpid()}" in err
    assert (runs / "two").exists(), "either all go or none"


def test_report_of_three_runs_is_written_beside_the_runs(runs, run_json):
    found = run_json("report one two spam --plots svg")
    assert found["out"] == "reports/one+two+spam"
    assert found["runs"] == ["one", "two", "spam"]
    names = {Path(file).name for file in found["files"]}
    assert {
        "report.html",
        "report.json",
        "items.csv",
        "figures.csv",
        "instruct.svg",
        "classify_loss.svg",
    } <= names
    page = Path("reports/one+two+spam/report.html").read_text(encoding="utf-8")
    assert "instruct.max_new_tokens" in page
    assert found["items"] == found["shared_items"] > 0


def test_report_of_a_run_whose_figures_and_samples_are_of_wrong_types(runs, run):
    (runs / "base" / "samples.jsonl").write_text('{"step": 1, "prompt": 3}\n{"step": 2}\n')
    assert run("report base --format json")[0] == 0
    figures = runs / "base" / "figures" / "pretrain.json"
    figures.write_text(json.dumps(json.loads(figures.read_text()) | {"stage_seconds": None}))
    code, _, err = run("report base --format json --out again")
    assert code == 3
    assert "pretrain.json must hold a number as stage_seconds, got None" in err


def test_report_reads_a_file_of_answers_beside_a_run(runs, run_json):
    entries = [json.loads(line) for line in (runs / "one" / "answers.jsonl").read_text().splitlines()]
    Path("peer.json").write_text(
        json.dumps([{**entry, "model_response": entry["output"]} for entry in entries])
    )
    found = run_json("report peer.json one --format json")
    report = json.loads(Path(found["out"], "report.json").read_text())
    assert all(item["answers"][0]["right"] for item in report["items"])
    assert report["differences"][0]["one"] == "one"
    assert report["differences"][0]["mean"] < 0


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("report", 2, "needs at least one run"),
        ("report missing", 2, "does not exist"),
        ("report broken", 2, "is damaged"),
        ("report one one", 2, "is named twice"),
        ("report one --out runs", 2, "already holds other files"),
        ("report one --plots gif", 2, "gif"),
        ("runs list --runs-dir missing", 2, "does not exist"),
        ("runs show", 2, "needs a run"),
        ("runs show notes", 2, "is not a run: recipe.toml is missing"),
        ("runs rm", 2, "needs the name of a run"),
        ("runs", 2, "needs a subcommand"),
    ],
)
def test_wrong_commands_end_with_one_line_that_helps(runs, run, command, code, told):
    found, out, err = run(command)
    assert (found, out) == (code, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_second_command_may_not_join_a_run_in_progress(runs, run, monkeypatch):
    code = "import sys; from pathlib import Path; from scratchlm.core.run_lock import run_lock\n"
    code += "with run_lock(Path('runs/base')): print('in', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"in\n"
        for command in ("run runs/base", "runs rm base --yes"):
            found, _, err = run(command)
            assert found == 2
            assert f"runs/base is in use by process {other.pid}; stop it" in err
        other.kill()
    assert run("run runs/base")[0] == 0


def test_compare_says_so_when_no_setting_differs_and_has_none_for_files(runs, run):
    shutil.copytree(runs / "one", runs / "again")
    _, out, _ = run("runs compare one again")
    assert re.search(r"\nnone of \d+ settings differs\n$", out)
    entries = [json.loads(line) for line in (runs / "one" / "answers.jsonl").read_text().splitlines()]
    for name in ("a.json", "b.json"):
        Path(name).write_text(json.dumps(entries))
    _, out, _ = run("runs compare a.json b.json")
    assert "do not differ significantly" in out
    assert "settings" not in out
