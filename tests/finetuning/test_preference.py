"""Preference tuning from pairs to a tested model, interrupted and resumed, of all weights or with LoRA."""

import dataclasses
import json

import pytest
import torch

from scratchlm.checkpoints.store import load_model, newest_good_checkpoint, save_model
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_split import EntrySplit
from scratchlm.data.preference_rows import Preference
from scratchlm.finetuning.peft import import_peft
from scratchlm.finetuning.preference import PreferSettings, finetune_preferences
from scratchlm.finetuning.preference_losses import USUAL_BETA
from scratchlm.training.history import History
from scratchlm.training.interrupts import StoppedBySignal

CPU = torch.device("cpu")
WORDS = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "see", "home")
PAIRS = [
    Preference(instruction="say", input=f"{word} {other}", chosen=f"{word} now", rejected=f"{word} tonight")
    for word in WORDS for other in WORDS[:3]
]  # fmt: skip
SPLIT = EntrySplit(train=PAIRS[:26], val=PAIRS[26:31], test=PAIRS[31:])


def quick(**changes):
    return PreferSettings(
        **{
            "max_steps": 30, "batch_size": 6, "learning_rate": 1e-2, "warmup_steps": 2, "eval_every_steps": 10,
            "checkpoint_every_steps": 0, "template": "plain", "max_new_tokens": 4, **changes,
        }
    )  # fmt: skip


def tune(base_folder, out, *, resume=False, split=SPLIT, callbacks=(), **changes):
    return finetune_preferences(
        split, quick(**changes), out, base=str(base_folder), device=CPU, resume=resume, callbacks=callbacks
    )


def settings_of(kind):
    return {"loss": kind, **({"label_smoothing": 0.1} if kind == "cdpo" else {})}


@pytest.mark.parametrize("lora", [{}, {"lora_rank": 4}], ids=["all weights", "lora"])
@pytest.mark.parametrize("kind", USUAL_BETA)
def test_every_loss_learns_to_prefer_the_chosen_answers(base_folder, tmp_path, kind, lora):
    result = tune(base_folder, tmp_path / "run", **settings_of(kind), **lora)
    assert result.after["accuracy"] == 1.0  # on pairs that it never saw
    assert result.after["likelier"] == 1.0
    assert result.after["reward_margin"] > result.before["reward_margin"]
    assert result.after["loss"] < result.before["loss"]
    assert result.test_n == len(SPLIT.test)
    assert result.after.get("kl", 1.0) > 0


def test_the_first_evaluation_of_dpo_is_log_2(base_folder, tmp_path):
    tune(base_folder, tmp_path / "run", max_steps=1)
    [first, *_] = History(tmp_path / "run" / "metrics.jsonl").records()
    assert first["step"] == 0
    assert round(first["val_loss"], 4) == 0.6931
    assert {
        "val_chosen_reward",
        "val_rejected_reward",
        "val_reward_margin",
        "val_accuracy",
        "val_kl",
    } < first.keys()
    [step] = [r for r in History(tmp_path / "run" / "metrics.jsonl").records() if r["kind"] == "step"]
    assert round(step["train_loss"], 4) == 0.6931


def test_the_saved_model_is_the_measured_assistant_and_its_answers_are_saved(base_folder, tmp_path):
    result = tune(base_folder, tmp_path / "run")
    saved = load_model(tmp_path / "run")
    assert saved.task == {"kind": "instruction", "template": "plain"}
    assert saved.manifest["base"] == str(base_folder)
    assert (
        saved.manifest["base_sha256"]
        == load_model(base_folder).manifest["files"]["model.safetensors"]["sha256"]
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert [line["output"] for line in lines] == [pair.chosen for pair in SPLIT.test]
    assert [line["model_response"] for line in lines] == [answer.text for answer in result.answers]


# --- stopped and resumed


@pytest.mark.parametrize(
    "changes",
    [
        {"drop_rate": 0.2},
        {"drop_rate": 0.2, "lora_rank": 2, "lora_dropout": 0.3},
        {"loss": "orpo", "lora_rank": 2, "lora_targets": ("W_query", "W_value"), "optimizer": "muon"},
    ],
    ids=["all weights", "lora", "orpo with lora of some layers"],
)
def test_an_interrupted_run_ends_with_the_same_bits(base_folder, tmp_path, stop_at, changes):
    chosen = {"max_steps": 7, "checkpoint_every_steps": 2, "eval_every_steps": 2, **changes}
    undisturbed = tune(base_folder, tmp_path / "a", resume=True, **chosen)
    with pytest.raises(StoppedBySignal):
        tune(base_folder, tmp_path / "b", resume=True, callbacks=[stop_at(3)], **chosen)
    assert not (tmp_path / "b" / "answers.jsonl").exists()
    resumed = tune(base_folder, tmp_path / "b", resume=True, **chosen)
    assert resumed.resumed_from == 3
    assert (resumed.before, resumed.after) == (undisturbed.before, undisturbed.after)
    assert resumed.answers == undisturbed.answers
    one, other = (load_model(tmp_path / name).model.state_dict() for name in "ab")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    if "lora_rank" in changes:
        files = [(tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in "ab"]
        assert files[0] == files[1]


def test_a_run_is_not_resumed_with_another_lora_rank(base_folder, tmp_path):
    tune(base_folder, tmp_path / "run", max_steps=1, lora_rank=2)
    with pytest.raises(CheckpointError, match="was trained with lora_rank=2, now it is 3"):
        tune(base_folder, tmp_path / "run", max_steps=2, lora_rank=3, resume=True)


def test_a_run_is_not_resumed_on_another_base(base_folder, tmp_path, tiny_model, base_tokenizer):
    tune(base_folder, tmp_path / "run", max_steps=1, lora_rank=2)
    with torch.no_grad():
        tiny_model.final_norm.scale.mul_(1.01)
    other = save_model(tmp_path / "other", tiny_model, base_tokenizer)
    with pytest.raises(CheckpointError, match="was trained with another base_sha256"):
        tune(other, tmp_path / "run", max_steps=2, lora_rank=2, resume=True)


def test_a_run_is_not_resumed_with_its_pairs_in_another_order_or_other_validation_pairs(
    base_folder, tmp_path
):
    tune(base_folder, tmp_path / "run", max_steps=1)
    turned = EntrySplit(train=SPLIT.train[::-1], val=SPLIT.val, test=SPLIT.test)
    other = EntrySplit(train=SPLIT.train, val=SPLIT.test, test=SPLIT.test)
    for split in (turned, other):
        with pytest.raises(CheckpointError, match="was trained with another data_fingerprint"):
            tune(base_folder, tmp_path / "run", max_steps=2, split=split, resume=True)


def test_a_run_is_not_resumed_when_the_bases_own_template_is_another(tiny_model, base_tokenizer, tmp_path):
    for name in ("plain", "phi3"):
        task = {"kind": "instruction", "template": name}
        save_model(tmp_path / name, tiny_model, base_tokenizer, task=task)
    tune(tmp_path / "plain", tmp_path / "run", max_steps=1, template=None)
    with pytest.raises(CheckpointError, match="was trained with another data_fingerprint"):
        tune(tmp_path / "phi3", tmp_path / "run", max_steps=2, template=None, resume=True)


# --- LoRA


def test_the_dora_adapter_on_the_base_equals_the_saved_model(base_folder, tmp_path):
    result = tune(base_folder, tmp_path / "run", lora_rank=2, lora_kind="dora")
    assert result.after["accuracy"] == 1.0
    ids, base = torch.tensor([[5, 6, 7, 8, 9]]), load_model(base_folder).model
    import_peft(base, result.adapter)
    assert (base(ids) - load_model(tmp_path / "run").model(ids)).abs().max() < 1e-5


def test_lora_trains_updates_only_and_the_checkpoint_holds_merged_weights(base_folder, tmp_path):
    result = tune(base_folder, tmp_path / "run", lora_rank=2, lora_targets=("W_query", "W_value"))
    base, saved = load_model(base_folder), load_model(tmp_path / "run")
    assert result.n_trained == 3 * 2 * (16 * 2 + 2 * 16)
    before, after = base.model.state_dict(), saved.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"trf_blocks.{i}.att.W_{part}.weight" for i in range(3) for part in ("query", "value")}


def test_the_adapter_on_the_base_equals_the_saved_model(base_folder, tmp_path):
    result = tune(base_folder, tmp_path / "run", lora_rank=3, lora_alpha=7, lora_scaling="alpha/sqrt(rank)")
    assert result.adapter == tmp_path / "run" / "adapter"
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    base = load_model(base_folder).model
    plain = base(ids)
    import_peft(base, result.adapter)
    assert (base(ids) - load_model(tmp_path / "run").model(ids)).abs().max() < 1e-5
    assert (base(ids) - plain).abs().max() > 0.01


def test_without_lora_there_is_no_adapter(base_folder, tmp_path):
    assert tune(base_folder, tmp_path / "run", max_steps=1).adapter is None
    assert not (tmp_path / "run" / "adapter").exists()


# --- what the base brings


def test_an_assistants_own_template_is_used_unless_another_is_named(tiny_model, base_tokenizer, tmp_path):
    task = {"kind": "instruction", "template": "plain"}
    assistant = save_model(tmp_path / "assistant", tiny_model, base_tokenizer, task=task)
    plain = save_model(tmp_path / "plain", tiny_model, base_tokenizer)
    assert tune(assistant, tmp_path / "a", max_steps=1, template=None).template == "plain"
    with pytest.raises(
        DataError, match="raise max_length or use a shorter template"
    ):  # alpaca's frame is too long
        tune(plain, tmp_path / "b", max_steps=1, template=None)


def test_a_random_base_can_be_tuned(tmp_path):
    result = tune("random:tiny", tmp_path / "run", max_steps=1, max_new_tokens=1, lora_rank=2, template=None)
    assert result.template == "alpaca"
    assert result.adapter is None  # nobody else could load its random base
    assert not (tmp_path / "run" / "adapter").exists()
    assert load_model(tmp_path / "run").manifest["base"] == "random:tiny"


def test_pairs_are_tuned_under_the_system_prompt_that_chat_will_ask_with(
    tiny_model, base_tokenizer, tmp_path
):
    task = {"kind": "instruction", "template": "plain", "system": "be good"}
    assistant = save_model(tmp_path / "assistant", tiny_model, base_tokenizer, task=task)
    own = dataclasses.replace(SPLIT.test[0], system="be bad")
    split = dataclasses.replace(SPLIT, test=[own, *SPLIT.test[1:]])
    result = tune(assistant, tmp_path / "run", max_steps=1, split=split)
    assert [answer.entry.system for answer in result.answers] == ["be bad"] + ["be good"] * (
        len(split.test) - 1
    )
    assert load_model(tmp_path / "run").task["system"] == "be good"
    seen = {
        json.loads(line)["prompt"] for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()
    }
    assert all(prompt.startswith("be ") for prompt in seen)


def test_an_assistant_tuned_on_conversations_supports_conversations(base_folder, tmp_path):
    train = [dataclasses.replace(pair, history=(Exchange("say", "now"),)) for pair in SPLIT.train]
    tune(base_folder, tmp_path / "run", max_steps=1, split=dataclasses.replace(SPLIT, train=train))
    assert load_model(tmp_path / "run").task["exchanges"] == 2


def test_unknown_role_marks_and_a_length_beyond_the_context_are_reported(base_folder, tmp_path):
    notices = []
    finetune_preferences(
        SPLIT, quick(max_steps=1, template="phi3", max_length=5000), tmp_path / "run", base=str(base_folder),
        device=CPU, notify=notices.append,
    )  # fmt: skip
    assert f"max_length 5000 exceeds the context length of {base_folder}; 48 tokens are used" in notices
    assert any("has no special tokens <|user|>, <|assistant|>, <|system|>" in line for line in notices)


# --- faults


def test_answers_that_are_cut_away_are_counted_and_no_answer_left_is_an_error(base_folder, tmp_path):
    long = Preference(instruction="say " * 60, input="", chosen="now", rejected="tonight")
    split = EntrySplit(train=[*PAIRS[:20], long], val=PAIRS[20:24], test=PAIRS[24:])
    result = tune(base_folder, tmp_path / "a", max_steps=1, split=split)
    assert (result.n_left_out, result.n_truncated) == (1, 1)
    with pytest.raises(DataError, match="got none in 26 pairs cut to 2 tokens"):
        tune(base_folder, tmp_path / "b", max_steps=1, max_length=2)
    assert newest_good_checkpoint(tmp_path / "b") == (None, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lora_targets": ("W_quary",), "lora_rank": 2},
            "'W_quary' matches no linear layer of the model; did you mean 'W_query'",
        ),
        ({"lora_alpha": 3.0}, "lora_alpha has no effect without LoRA; set lora_rank"),
        ({"lora_targets": ("W_query",)}, "lora_targets has no effect without LoRA"),
        ({"lora_rank": 0}, "at least 1, got 0"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"label_smoothing": 0.1}, "the loss cdpo, and no other, needs a label_smoothing"),
        ({"beta": -1.0}, "beta must be above 0"),
        ({"simpo_margin": 2.0}, "simpo_margin has no effect with the loss dpo"),
        ({"template": "alpacca"}, "did you mean 'alpaca'"),
    ],
)
def test_impossible_settings_are_refused(base_folder, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        tune(base_folder, tmp_path / "run", **changes)


def test_a_batch_larger_than_the_data_is_reported(base_folder, tmp_path):
    notices = []
    finetune_preferences(
        SPLIT,
        quick(max_steps=1, batch_size=5000),
        tmp_path / "run",
        base=str(base_folder),
        device=CPU,
        notify=notices.append,
    )
    assert "batch_size 5000 is more than the 26 training pairs" in notices
