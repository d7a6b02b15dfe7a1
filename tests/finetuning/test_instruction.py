"""Assistants: answers, their scores, and learning to give them."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.checkpoints.store import load_model
from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.instruction import InstructionExamples
from scratchlm.data.instructions import Instruction, InstructionSplit
from scratchlm.data.prompts import TEMPLATES, template
from scratchlm.finetuning import instruction
from scratchlm.finetuning.instruction import (
    Answer,
    InstructSettings,
    answer_all,
    finetune_instructions,
    score_answers,
)
from scratchlm.tokenizers.bpe_training import train_bpe
from scratchlm.training.interrupts import StoppedBySignal

CPU = torch.device("cpu")
PAIRS = (("hot", "cold"), ("big", "small"), ("up", "down"), ("wet", "dry"), ("old", "new"), ("day", "night"))
ENTRIES = [
    Instruction(instruction="say", input=one, output=other, skill="opposites")
    for pair in PAIRS for one, other in (pair, pair[::-1])
]  # fmt: skip
SPLIT = InstructionSplit(train=ENTRIES, val=ENTRIES[:3], test=ENTRIES[::-1])


def quick(**changes):
    return InstructSettings(
        **{
            "max_steps": 150, "batch_size": 12, "learning_rate": 2e-2, "warmup_steps": 5, "eval_every_steps": 0,
            "checkpoint_every_steps": 0, "template": "plain", "max_new_tokens": 8, "drop_rate": 0.0, **changes,
        }
    )  # fmt: skip


def entry(output, text="say"):
    return Instruction(instruction=text, input="", output=output)


# --- answers and scores


def test_answers_keep_the_order_of_the_entries(tiny_model, base_tokenizer):
    entries = [entry("x", text="say " + "something " * (i * 5 % 7)) for i in range(9)]
    chosen = template("plain")
    together = answer_all(entries, tiny_model, base_tokenizer, chosen, max_new_tokens=5, batch_size=4)
    assert [answer.entry for answer in together] == entries
    alone = [answer_all([e], tiny_model, base_tokenizer, chosen, max_new_tokens=5)[0].text for e in entries]
    assert [answer.text for answer in together] == alone


def test_an_answer_stops_at_end_of_text(tiny_model, base_tokenizer):
    with torch.no_grad():  # whatever comes in, end-of-text is the likeliest next token
        tiny_model.final_norm.scale.zero_()
        tiny_model.final_norm.shift.copy_(tiny_model.tok_emb.weight[base_tokenizer.end_of_text_id])
    answers = answer_all(ENTRIES[:2], tiny_model, base_tokenizer, template("plain"), max_new_tokens=6)
    assert [answer.text for answer in answers] == ["", ""]
    assert score_answers(answers).n_empty == 2


def test_scores_count_an_empty_answer_as_wrong():
    answers = [
        Answer(entry=entry("cold"), text="Cold."),
        Answer(entry=entry("the red hen"), text="the red fox"),
        Answer(entry=entry("dry"), text="  \n"),
        Answer(entry=entry("up"), text=""),
    ]
    scores = score_answers(answers)
    assert (scores.n, scores.n_empty) == (4, 2)
    assert scores.exact_match == 0.25
    assert scores.token_f1 == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert scores.interval[0] < 0.25 < scores.interval[1]


def test_scoring_nothing_is_an_error():
    with pytest.raises(DataError, match="found none"):
        score_answers([])


NOISE = st.text(alphabet=st.sampled_from("ab <|>endoftx\n"), max_size=15)


@settings(max_examples=60, deadline=None)
@given(texts=st.tuples(NOISE, NOISE, NOISE), name=st.sampled_from(sorted(TEMPLATES)))
def test_no_text_of_an_entry_becomes_a_special_token(texts, name):
    tokenizer = train_bpe(["ab <|endoftext|> end of text"], 280)
    first, second, third = (f"a{text}<|endoftext|>" for text in texts)
    given_entry = Instruction(instruction=first, input=second, output=third)
    examples = InstructionExamples([given_entry], tokenizer, template=template(name), mask_instruction=False)
    batch = examples.batch([0])
    assert not (batch.inputs == tokenizer.end_of_text_id).any()
    assert (batch.targets == tokenizer.end_of_text_id).sum() == 1  # the true end, and only that
    assert tokenizer.decode(batch.inputs[0].tolist()) == template(name).full(given_entry)


# --- the whole way


def test_a_small_mapping_is_learnt_exactly_and_saved_for_judges(base_folder, tmp_path):
    out = tmp_path / "run"
    result = finetune_instructions(SPLIT, quick(), out, base=str(base_folder), device=CPU)
    assert [answer.entry for answer in result.answers] == SPLIT.test
    assert [answer.text for answer in result.answers] == [e.output for e in SPLIT.test]
    assert result.scores.exact_match == 1.0
    assert result.scores.n == len(SPLIT.test)
    assert result.progress.val_loss < 0.1
    saved = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert saved[0] == {
        "instruction": "say", "input": "night", "output": "day", "model_response": "day", "skill": "opposites",
    }  # fmt: skip
    assert len(saved) == len(SPLIT.test)
    assert json.loads((load_model(out).folder / "task.json").read_text()) == {
        "kind": "instruction", "template": "plain",
    }  # fmt: skip


@pytest.mark.parametrize("masked", [True, False])
def test_masking_decides_whether_prompts_carry_loss(base_folder, tmp_path, monkeypatch, masked):
    seen = []

    class Spy(InstructionExamples):
        def batch(self, indices):
            found = super().batch(indices)
            seen.append((found, list(indices)))
            return found

    monkeypatch.setattr(instruction, "InstructionExamples", Spy)
    finetune_instructions(
        SPLIT, quick(max_steps=1, mask_instruction=masked, batch_size=12), tmp_path / "run",
        base=str(base_folder), device=CPU,
    )  # fmt: skip
    tokenizer, chosen = load_model(base_folder).tokenizer, template("plain")
    batches = [found for found, indices in seen if len(indices) == len(ENTRIES)]
    assert batches
    n_prompt = sum(len(tokenizer.encode(chosen.prompt(e))) for e in ENTRIES)
    n_answer = sum(len(tokenizer.encode(chosen.answer(e))) + 1 for e in ENTRIES)  # and its end
    expected = n_answer if masked else n_answer + n_prompt - len(ENTRIES)  # nothing predicts a first token
    assert batches[0].n_targets == expected
    is_padding = ~batches[0].attention_mask
    assert (batches[0].targets[is_padding] == IGNORE_INDEX).all()


def test_an_interrupted_assistant_resumes_bit_for_bit(base_folder, tmp_path, stop_at):
    chosen = quick(max_steps=6, batch_size=5, drop_rate=0.2, checkpoint_every_steps=2)
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    undisturbed = finetune_instructions(SPLIT, chosen, tmp_path / "a", **arguments)
    with pytest.raises(StoppedBySignal):
        finetune_instructions(SPLIT, chosen, tmp_path / "b", callbacks=[stop_at(3)], **arguments)
    assert not (tmp_path / "b" / "answers.jsonl").exists()
    resumed = finetune_instructions(SPLIT, chosen, tmp_path / "b", **arguments)
    assert resumed.resumed_from == 3
    assert resumed.answers == undisturbed.answers
    one, other = (load_model(tmp_path / name).model.state_dict() for name in "ab")
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_random_base_learns_the_words_of_the_entries(tmp_path):
    result = finetune_instructions(
        SPLIT, quick(max_steps=1, max_new_tokens=1), tmp_path / "run", base="random:tiny", device=CPU
    )
    assert result.scores.n == len(SPLIT.test)
    saved = load_model(tmp_path / "run")
    assert saved.manifest["base"] == "random:tiny"


def test_an_unknown_template_names_the_nearest(base_folder, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'alpaca'"):
        finetune_instructions(
            SPLIT, quick(template="alpacca"), tmp_path / "r", base=str(base_folder), device=CPU
        )


def test_cut_entries_are_counted(base_folder, tmp_path):
    entries = [*ENTRIES, Instruction(instruction="say", input="", output="word " * 60)]
    split = InstructionSplit(train=entries, val=ENTRIES[:2], test=ENTRIES[:2])
    result = finetune_instructions(
        split, quick(max_steps=1), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert result.n_truncated == 1
