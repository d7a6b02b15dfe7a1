"""The stage of preference tuning in a recipe: what it starts from, its figures, and going on after a stop."""

import json

import pytest

from scratchlm.checkpoints.store import load_model
from scratchlm.core.errors import DataError
from scratchlm.recipes.inputs import read_pairs
from scratchlm.training.interrupts import StoppedBySignal

CLOCKS = {
    "seconds",
    "earlier_seconds",
    "stage_seconds",
    "peak_memory_bytes",
    "finished_at",
    "resumed_from",
    "adapter",
}
STAGES = {"stages": ["pretrain", "instruct", "prefer"]}


@pytest.fixture(scope="module")
def tuned(recipe_of, run_it, tmp_path_factory):
    """A model pre-trained, made an assistant, and tuned on preferences, with corrections only."""
    recipe = recipe_of(**STAGES, prefer={"lora_rank": 2, "beta": 0.5})
    return recipe, run_it(recipe, tmp_path_factory.mktemp("runs") / "tuned")


def test_it_starts_from_the_runs_assistant_and_keeps_its_template(tuned):
    _, result = tuned
    saved = load_model(result.out / "prefer")
    assert saved.task == {"kind": "instruction", "template": "plain"}
    assert saved.manifest["base"] == str(result.out / "instruct")
    assistant = load_model(result.out / "instruct").manifest["files"]["model.safetensors"]["sha256"]
    assert saved.manifest["base_sha256"] == assistant


def test_figures_are_counts_shares_and_both_models_numbers(tuned):
    recipe, result = tuned
    found = result.figures["prefer"]
    assert (found["rows"], found["equal"], found["train_n"], found["test_n"]) == (41, 1, 34, 4)
    assert (found["loss"], found["beta"], found["template"]) == ("dpo", 0.5, "plain")
    assert found["low"] <= found["test_accuracy"] <= found["high"]
    assert found["reward_margin"] == pytest.approx(found["chosen_reward"] - found["rejected_reward"])
    assert found["base_reward_margin"] == pytest.approx(0.0, abs=1e-5)
    assert found["kl"] > 0
    assert found["step"] == recipe.prefer.max_steps
    layers = [(16, 16)] * 4 + [(16, 64), (64, 16)]
    assert found["trained_parameters"] == sum(2 * (n_in + n_out) for n_in, n_out in layers)
    assert found["adapter"] == str(result.out / "prefer" / "adapter")
    assert [answer["chosen"] for answer in found["answers"]] == ["gus has", "hal has", "hal has", "hal has"]
    written = json.loads((result.out / "figures" / "prefer.json").read_text())
    assert written == found


def test_the_report_tells_of_it(tuned):
    _, result = tuned
    page = result.report.read_text(encoding="utf-8")
    assert 'id="prefer"' in page
    assert f"chat --model {result.out / 'prefer'}" in page


def test_stopped_and_run_again_it_gives_the_same_figures(tuned, run_it, tmp_path, stop_in):
    recipe, undisturbed = tuned
    out = tmp_path / "run"
    with pytest.raises(StoppedBySignal):
        run_it(recipe, out, callbacks_for=stop_in("prefer", 3))
    assert not (out / "figures" / "prefer.json").exists()
    found = run_it(recipe, out).figures["prefer"]
    assert found["resumed_from"] == 3
    same = {key for key in found if key not in CLOCKS}
    assert {key: found[key] for key in same} == {key: undisturbed.figures["prefer"][key] for key in same}
    assert run_it(recipe, out).was_complete


def test_a_single_stage_starts_from_the_base_that_is_named(recipe_of, run_it, tuned, tmp_path):
    _, earlier = tuned
    recipe = recipe_of(stages=["prefer"], base=str(earlier.out / "instruct"), prefer={"loss": "orpo"})
    found = run_it(recipe, tmp_path / "run").figures["prefer"]
    assert (found["kl"], found["adapter"]) == (None, None)
    assert load_model(tmp_path / "run").task["kind"] == "instruction"


def test_broken_pairs_are_found_before_anything_is_trained(recipe_of, run_it, tmp_path):
    broken = tmp_path / "pairs.json"
    broken.write_text('[{"prompt": "a", "good": "b", "bad": "c"}]')
    with pytest.raises(
        DataError, match=r"entry 1 must have text under 'chosen', got only 'prompt', 'good', 'bad'"
    ):
        run_it(recipe_of(**STAGES, data={"preferences": [str(broken)]}), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_files_are_joined_and_equal_answers_counted_over_all(data_files):
    split, n_equal, _ = read_pairs([str(data_files / "pairs.json")] * 2)
    assert n_equal == 2
    assert len(split.train) + len(split.val) + len(split.test) == 80
