"""Whole runs: complete, interrupted, extended, started over."""

import contextlib
import json
import re
from html.parser import HTMLParser

import pytest

from scratchlm.checkpoints.store import load_model
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.recipes import run as run_module
from scratchlm.recipes.recipe import DataSettings, Recipe, load_recipe
from scratchlm.recipes.run import prepare_folder
from scratchlm.training.interrupts import StoppedBySignal

CLOCKS = {
    "earlier_seconds",
    "seconds", "stage_seconds", "tokens_per_s", "peak_memory_bytes", "finished_at", "resumed_from"
}  # fmt: skip
PRETRAIN_ONLY = {"stages": ["pretrain"], "data": {"messages": [], "instructions": []}}


def without_clocks(figures):
    return {stage: {k: v for k, v in found.items() if k not in CLOCKS} for stage, found in figures.items()}


def snapshot(folder):
    """Every file with its time and content."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


@contextlib.contextmanager
def killed_before_the_report(monkeypatch):
    """Within the block a run ends when it would write its report."""

    def kill(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_text", kill)
        yield


class Loads(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self):
        super().__init__()
        self.urls = []

    def handle_starttag(self, tag, attrs):
        loading = {"src", "srcset", "poster", "data"} | (
            {"href"} if tag in ("link", "image", "use") else set()
        )
        self.urls += [value for name, value in attrs if name.removeprefix("xlink:") in loading]


# --- a complete run


def test_all_three_stages_leave_models_that_load(finished):
    _, result = finished
    assert list(result.figures) == ["pretrain", "classify", "instruct"]
    assert not result.was_complete
    kinds = [
        load_model(folder).task.get("kind")
        for folder in (result.out, result.out / "classify", result.out / "instruct")
    ]
    assert kinds == [None, "classification", "instruction"]


def test_the_recipe_is_saved_in_full(finished):
    recipe, result = finished
    assert load_recipe(str(result.out)) == ("finished", recipe)


def test_figures_are_those_of_the_saved_models_and_files(finished, data_files):
    _, result = finished
    pretrain, classify, instruct = (result.figures[stage] for stage in ("pretrain", "classify", "instruct"))
    assert pretrain["step"] == classify["step"] == instruct["step"] == 6
    assert pretrain["parameters"] == load_model(result.out).model.n_parameters()
    n_rows = len((data_files / "messages.tsv").read_text().splitlines())
    assert classify["rows"] == n_rows
    assert classify["duplicates"] >= 5
    assert classify["groups"] == n_rows - classify["duplicates"]
    confusion = classify["confusion"]
    assert sum(map(sum, confusion)) == classify["test_n"]
    assert classify["test_accuracy"] == pytest.approx(
        sum(confusion[i][i] for i in range(2)) / classify["test_n"]
    )
    assert classify["n_mistakes"] == classify["test_n"] - sum(confusion[i][i] for i in range(2))
    assert classify["low"] <= classify["test_accuracy"] <= classify["high"]
    majority = max(sum(row) for row in confusion) / classify["test_n"]  # rows are the true classes
    assert classify["baseline_majority"] == pytest.approx(majority)
    assert (instruct["rows"], instruct["train_n"], instruct["test_n"]) == (40, 34, 4)
    answers = [
        json.loads(line) for line in (result.out / "instruct" / "answers.jsonl").read_text().splitlines()
    ]
    assert [a["model_response"] for a in answers] == [a["answer"] for a in instruct["answers"]]
    assert instruct["exact_match"] == sum(a["correct"] for a in instruct["answers"]) / 4
    assert instruct["token_f1_low"] <= instruct["token_f1"] <= instruct["token_f1_high"]
    if pretrain["val_loss_low"] is not None:  # a short text has too few windows
        assert pretrain["val_loss_low"] <= pretrain["val_loss"] <= pretrain["val_loss_high"]


def test_figures_are_kept_as_files(finished):
    _, result = finished
    for stage, figures in result.figures.items():
        assert json.loads((result.out / "figures" / f"{stage}.json").read_text()) == figures


def test_the_report_loads_nothing_from_elsewhere(finished):
    _, result = finished
    page = result.report.read_text(encoding="utf-8")
    loads = Loads()
    loads.feed(page)
    assert [url for url in loads.urls if url and not url.startswith(("data:", "#"))] == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", page)
    assert "ann has" in page


def test_the_second_call_says_complete_and_touches_nothing(finished, run_it):
    recipe, result = finished
    before = snapshot(result.out)
    told = []
    again = run_it(recipe, result.out, notify=told.append)
    assert again.was_complete
    assert again.figures == result.figures
    assert told == [f"[{i}/3] {stage}: complete" for i, stage in enumerate(result.figures, start=1)]
    assert snapshot(result.out) == before


# --- interrupted runs


@pytest.mark.parametrize(("stage", "step"), [("pretrain", 3), ("classify", 1), ("instruct", 5)])
def test_a_stage_that_was_stopped_goes_on_and_the_figures_are_the_same(
    finished, run_it, tmp_path, stop_in, stage, step
):
    recipe, undisturbed = finished
    out = tmp_path / "run"
    with pytest.raises(StoppedBySignal):
        run_it(recipe, out, callbacks_for=stop_in(stage, step))
    earlier = {path.name: path.read_bytes() for path in (out / "figures").glob("*")}
    assert f"{stage}.json" not in earlier
    assert not (out / "report.html").exists()
    result = run_it(recipe, out)
    assert result.figures[stage]["resumed_from"] == step
    assert without_clocks(result.figures) == without_clocks(undisturbed.figures)
    assert all((out / "figures" / name).read_bytes() == data for name, data in earlier.items())
    assert (out / "report.html").exists()
    assert run_it(recipe, out).was_complete


def test_a_kill_before_the_report_leaves_only_the_report_to_write(recipe_of, run_it, tmp_path, monkeypatch):
    recipe, out = recipe_of(**PRETRAIN_ONLY), tmp_path / "run"
    with killed_before_the_report(monkeypatch), pytest.raises(KeyboardInterrupt):
        run_it(recipe, out)
    figures = snapshot(out / "figures")
    result = run_it(recipe, out)
    assert not result.was_complete
    assert result.report.exists()
    assert snapshot(out / "figures") == figures


def test_a_report_of_a_shorter_run_does_not_outlive_its_extension(recipe_of, run_it, tmp_path, monkeypatch):
    """Killed between the extended run's figures and its report, the old report must not pass for the new one."""
    out = tmp_path / "run"
    run_it(recipe_of(**PRETRAIN_ONLY), out)
    old = (out / "report.html").read_bytes()
    longer = recipe_of(**PRETRAIN_ONLY, pretrain={"max_steps": 8})
    with killed_before_the_report(monkeypatch), pytest.raises(KeyboardInterrupt):
        run_it(longer, out, extend=True)
    result = run_it(longer, out, extend=True)
    assert result.figures["pretrain"]["step"] == 8
    assert (out / "report.html").read_bytes() != old


def test_what_a_kill_left_in_a_new_folder_does_not_block_the_next_call(recipe_of, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".recipe.toml.partial-4711").write_text("half a rec")
    prepare_folder(out, recipe_of(), fresh=False, extend=False)
    assert [path.name for path in out.iterdir()] == ["recipe.toml"]


# --- the folder


def test_other_settings_are_refused_by_name_and_nothing_is_touched(finished, recipe_of):
    _, result = finished
    before = snapshot(result.out)
    with pytest.raises(ConfigError, match=r"other settings \(model\.n_layers\).*--fresh"):
        prepare_folder(result.out, recipe_of(model={"n_layers": 2}), fresh=False, extend=False)
    assert snapshot(result.out) == before


@pytest.mark.parametrize(
    "change",
    [{"pretrain": {"learning_rate": 1.0}}, {"pretrain": {"max_steps": 9, "batch_size": 2}}, {"base": "x"}],
)
def test_extending_allows_another_end_and_nothing_else(finished, recipe_of, change):
    _, result = finished
    with pytest.raises(ConfigError, match="other settings"):
        prepare_folder(result.out, recipe_of(**change), fresh=False, extend=True)


def test_another_end_needs_to_be_asked_for(finished, recipe_of):
    _, result = finished
    with pytest.raises(ConfigError, match=r"pretrain\.max_steps"):
        prepare_folder(result.out, recipe_of(pretrain={"max_steps": 9}), fresh=False, extend=False)


def test_another_description_is_no_other_run(finished, recipe_of, run_it):
    _, result = finished
    assert run_it(recipe_of(description="other words"), result.out).was_complete
    run_it(recipe_of(), result.out)  # as it was


def test_an_extended_run_goes_on_from_where_it_ended(recipe_of, run_it, tmp_path):
    out = tmp_path / "run"
    run_it(recipe_of(**PRETRAIN_ONLY), out)
    result = run_it(recipe_of(**PRETRAIN_ONLY, pretrain={"max_steps": 8}), out, extend=True)
    assert not result.was_complete
    assert (result.figures["pretrain"]["resumed_from"], result.figures["pretrain"]["step"]) == (6, 8)
    assert load_recipe(str(out))[1].pretrain.max_steps == 8


def test_fresh_starts_over(recipe_of, run_it, tmp_path):
    out = tmp_path / "run"
    run_it(recipe_of(**PRETRAIN_ONLY), out)
    (out / "figures" / "pretrain.json").write_text("{}")
    result = run_it(recipe_of(**PRETRAIN_ONLY, pretrain={"max_steps": 2}), out, fresh=True)
    assert result.figures["pretrain"]["step"] == 2
    assert [folder.name for folder in (out / "checkpoints").iterdir()] == ["step-00000002"]


def test_folders_of_something_else_are_never_emptied(recipe_of, tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    for fresh in (False, True):
        with pytest.raises(ConfigError, match="holds files that are not of a run"):
            prepare_folder(tmp_path, recipe_of(), fresh=fresh, extend=False)
    assert (tmp_path / "thesis.tex").exists()


def test_a_file_is_no_run_folder(recipe_of, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="is a file, not a folder; choose another --out"):
        prepare_folder(tmp_path / "run", recipe_of(), fresh=False, extend=False)


def test_a_recipe_that_cannot_run_leaves_no_folder(recipe_of, run_it, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.messages"):
        run_it(recipe_of(data={"messages": []}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- other shapes of runs


def test_a_single_stage_lives_in_the_run_folder_itself(recipe_of, run_it, tmp_path):
    result = run_it(
        recipe_of(
            stages=["classify"], base="random:tiny", classify={"max_steps": 1, "compare_raw_split": False}
        ),
        tmp_path / "run",
    )
    assert load_model(tmp_path / "run").task["kind"] == "classification"
    assert result.figures["classify"]["test_accuracy_raw"] is None
    assert result.report.exists()


def test_an_outside_base_serves_instead_of_pre_training(finished, recipe_of, run_it, tmp_path):
    _, earlier = finished
    result = run_it(recipe_of(stages=["instruct"], base=str(earlier.out)), tmp_path / "run")
    assert without_clocks(result.figures)["instruct"] == without_clocks(earlier.figures)["instruct"]


def test_seconds_are_those_of_all_stages(finished):
    _, result = finished
    assert result.seconds == pytest.approx(sum(f["stage_seconds"] for f in result.figures.values()))
    assert all(f["stage_seconds"] >= f["seconds"] > 0 for f in result.figures.values())


@pytest.mark.parametrize("prompt", ["", "ann has a very long story to tell, 0123456789"])
def test_any_prompt_can_be_reported_on(recipe_of, run_it, tmp_path, prompt):
    recipe = recipe_of(
        **PRETRAIN_ONLY, sample_prompt=prompt, model={"context_length": 8}, pretrain={"max_steps": 1}
    )
    assert run_it(recipe, tmp_path / "run").report.exists()


def test_fresh_never_deletes_what_the_new_run_needs(tmp_path):
    out = tmp_path / "run"
    recipe = Recipe(stages=("classify",), base=str(out), data=DataSettings(messages=("m.tsv",)))
    out.mkdir()
    (out / "recipe.toml").write_text("")
    with pytest.raises(ConfigError, match="would delete"):
        prepare_folder(out, recipe, fresh=True, extend=False)
    assert (out / "recipe.toml").exists()


def test_the_role_marks_of_the_assistant_are_special_tokens_from_the_start(recipe_of, run_it, tmp_path):
    recipe = recipe_of(
        stages=["pretrain", "instruct"], instruct={"template": "chatml"}, model={"context_length": 64}
    )
    result = run_it(recipe, tmp_path / "run")
    for folder in (result.out, result.out / "instruct"):
        assert {"<|im_start|>", "<|im_end|>"} <= load_model(folder).tokenizer.special_tokens.keys()


# --- a run whose checkpoint was damaged afterwards


def damage_newest_checkpoint(run_folder):
    weights = sorted(run_folder.glob("checkpoints/step-*"))[-1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def test_a_damaged_newest_checkpoint_is_made_again_from_the_one_before(recipe_of, run_it, tmp_path):
    recipe = recipe_of(**PRETRAIN_ONLY)
    first = run_it(recipe, tmp_path / "run")
    damage_newest_checkpoint(tmp_path / "run")
    again = run_it(recipe, tmp_path / "run")
    assert not again.was_complete
    assert again.figures["pretrain"]["resumed_from"] == 4
    assert without_clocks(again.figures) == without_clocks(first.figures)


def test_a_run_with_only_damaged_checkpoints_is_not_complete(recipe_of, run_it, tmp_path):
    recipe = recipe_of(**PRETRAIN_ONLY, pretrain={"max_steps": 1})
    run_it(recipe, tmp_path / "run")
    damage_newest_checkpoint(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"all checkpoints in .* are damaged"):
        run_it(recipe, tmp_path / "run")
