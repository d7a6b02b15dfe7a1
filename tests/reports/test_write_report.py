"""Reports as files: of a run, of several, of an interrupted one."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
import torch

from scratchlm.core.errors import ConfigError
from scratchlm.evaluation.judge.items import read_items
from scratchlm.recipes.recipe import load_recipe
from scratchlm.recipes.stages import StageRun
from scratchlm.reports.comparison_data import collect, find_source
from scratchlm.reports.found_runs import look_at_run
from scratchlm.reports.run_data import next_commands
from scratchlm.reports.write_report import as_csv, plain, tables, whole_run, write_report
from scratchlm.training.interrupts import StoppedBySignal


@pytest.fixture
def sources(finished, tmp_path):
    """The same run three times, one with another setting and one interrupted."""
    found = []
    for name in ("one", "two", "three"):
        shutil.copytree(finished[1].out, tmp_path / "runs" / name)
        recipe = tmp_path / "runs" / name / "recipe.toml"
        recipe.write_text(recipe.read_text().replace("n_layers = 1", f"n_layers = {len(name)}"))
    (tmp_path / "runs" / "three" / "figures" / "instruct.json").unlink()
    for name in ("one", "two", "three"):
        found.append(find_source(name, tmp_path / "runs"))
    return found


def test_three_runs_become_a_page_json_tables_and_plots(sources, tmp_path):
    written = write_report(sources, tmp_path / "out", plots=("png", "svg"))
    names = {str(file.relative_to(tmp_path / "out")) for file in written.files}
    assert {"report.html", "report.json", "tables/items.csv", "tables/settings.csv"} <= names
    assert {"plots/pretrain.png", "plots/pretrain.svg", "plots/classify_accuracy.svg"} <= names
    assert all(file.stat().st_size for file in written.files)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [run["label"] for run in report["runs"]] == ["one", "two", "three"]
    assert [run["state"] for run in report["runs"]] == ["complete", "complete", "interrupted"]
    assert len(report["items"]) == written.comparison.paired.n_shared > 0


def test_only_the_setting_that_differs_differs(sources):
    rows = tables(collect(sources))["settings"][1]
    assert [row[0] for row in rows if row[1]] == ["model.n_layers"]
    assert next(row[2:] for row in rows if row[0] == "model.n_layers") == [3, 3, 5]


def test_tables_hold_every_item_and_every_recorded_step(sources, finished):
    found = tables(collect(sources))
    answers = finished[1].figures["instruct"]["answers"]
    assert len(found["items"][1]) == len(answers)
    names, rows = found["curves"]
    assert {row[0] for row in rows} == {"one", "two", "three"}
    last = [row for row in rows if row[:3] == ["one", "pretrain", 6]]
    assert last[0][names.index("val_loss")] > 0


def test_csv_gives_back_what_went_in_and_no_formula():
    text = as_csv((("a", "b"), [["line\nend", "=1+1"], ['quote " here', -3], ["-danger", None]]))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["a", "b"], ["line\nend", "'=1+1"], ['quote " here', "-3"], ["'-danger", ""]]


def test_json_has_no_number_that_json_does_not_know():
    assert plain({"a": (1.5, float("nan")), 2: [float("inf"), None]}) == {"a": [1.5, None], "2": [None, None]}


def test_one_run_is_told_as_at_its_end_with_all_its_answers(finished, tmp_path):
    _, result = finished
    write_report([look_at_run(result.out)], tmp_path / "out", formats=("html",))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    own = result.report.read_text(encoding="utf-8")
    for anchor in ("tokens", "pretrain", "attention", "classify", "instruct", "figures", "run", "next"):
        assert (f'<section id="{anchor}"' in page) == (f'<section id="{anchor}"' in own), anchor
    assert "Item by item" in page
    assert f"scratchlm evaluate judge --answers {result.out} --judge ollama:llama3" in page
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.html"]


def test_an_interrupted_run_has_a_page_too(recipe_of, run_it, stop_in, tmp_path):
    with pytest.raises(StoppedBySignal):
        run_it(recipe_of(), tmp_path / "half", callbacks_for=stop_in("classify", 3))
    run = look_at_run(tmp_path / "half")
    assert run.state == "interrupted"
    told = whole_run(run, torch.device("cpu"))
    assert [stage["status"] for stage in told["stages"]] == ["complete", "interrupted", "interrupted"]
    write_report([run], tmp_path / "out", formats=("html",))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "interrupted" in page
    assert "The stage classify is incomplete" in page
    assert "The whole run took" not in page, "nobody knows how long it will take"
    assert "Classification" in page


def test_a_later_report_tells_of_the_machine_of_the_run_and_not_of_this_one(sources):
    run = sources[0]
    newest = run.checkpoints()[-1] / "manifest.json"
    manifest = json.loads(newest.read_text())
    newest.write_text(json.dumps({**manifest, "device": "an older machine", "versions": {"torch": "1.0"}}))
    told = whole_run(run, torch.device("cpu"))
    assert told["machine"] == {"device": "an older machine"}
    assert told["versions"] == {"torch": "1.0"}
    assert told["created_at"] == run.figures["instruct"]["finished_at"]


def test_an_earlier_report_is_replaced_whole(sources, tmp_path):
    out = tmp_path / "out"
    write_report(sources, out, plots=("svg",))
    (out / "tables" / "left-over.csv").write_text("old")
    write_report(sources[:2], out, plots=("png",))
    assert not (out / "tables" / "left-over.csv").exists()
    assert {file.suffix for file in (out / "plots").iterdir()} == {".png"}


def test_a_folder_of_something_else_is_left_alone(sources, tmp_path):
    with pytest.raises(ConfigError, match="already holds other files"):
        write_report(sources, sources[0].path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file, and a report is a folder"):
        write_report(sources, tmp_path / "file")


def test_runs_of_the_same_name_are_told_apart_by_their_folders(finished, tmp_path):
    for side in ("left", "right"):
        shutil.copytree(finished[1].out, tmp_path / side / "run")
    comparison = collect([look_at_run(tmp_path / side / "run") for side in ("left", "right")])
    assert [run["label"] for run in comparison.data["runs"]] == ["left/run", "right/run"]
    assert comparison.data["title"] == "left/run and right/run"


def test_the_same_run_twice_and_no_run_are_refused(sources):
    with pytest.raises(ConfigError, match="is named twice"):
        collect([sources[0], sources[0]])
    with pytest.raises(ConfigError, match="needs at least one run"):
        collect([])


def test_a_damaged_line_of_a_history_is_named_and_left_out(sources, tmp_path, caplog):
    log = sources[0].path / "metrics.jsonl"
    log.write_text("{broken\n" + log.read_text())
    write_report(sources, tmp_path / "out")
    assert "metrics.jsonl: line 1 is not a complete record" in caplog.text


@pytest.mark.parametrize(
    ("stages", "judged"),
    [
        (("classify", "instruct"), ["runs/book"]),
        (("pretrain", "instruct", "prefer"), ["runs/book", "runs/book/prefer"]),
        (("pretrain", "classify"), []),
    ],
)
def test_runs_with_answers_name_the_judge_among_the_next_commands(stages, judged, tmp_path):
    recipe = dataclasses.replace(load_recipe("book")[1], stages=stages)
    run = StageRun(
        recipe=recipe, out=Path("runs/book"), device=torch.device("cpu"), callbacks=(), notify=print
    )
    commands = [shown["command"] for shown in next_commands(recipe, run)]
    assert [command for command in commands if "evaluate judge" in command] == [
        f"scratchlm evaluate judge --answers {folder} --judge ollama:llama3" for folder in judged
    ]
    assert load_recipe("book")[1].stages == ("classify", "instruct")


@pytest.mark.parametrize("folder", ["", "instruct", "prefer"])
def test_the_judge_finds_the_answers_of_each_kind_of_run(folder, tmp_path):
    (tmp_path / folder).mkdir(exist_ok=True)
    row = {"instruction": "Say hi.", "input": "", "output": "hi", "model_response": "hello"}
    (tmp_path / folder / "answers.jsonl").write_text(json.dumps(row) + "\n")
    assert [item.answer for item in read_items(tmp_path)] == ["hello"]
