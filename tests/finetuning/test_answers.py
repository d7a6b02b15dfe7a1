"""An assistant's answers, their scores, and the file that is written during answering."""

import json

import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import TEMPLATES, encode_prompt, template
from scratchlm.finetuning import answers as answers_module
from scratchlm.finetuning.answers import Answer, answer_all, answer_into_file, score_answers
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids

PLAIN = template("plain")


def entry(output, text="say"):
    return Instruction(instruction=text, input="", output=output)


ENTRIES = [entry("x", text="say " + "something " * (i * 5 % 7)) for i in range(9)]


def test_answers_keep_the_order_of_the_entries(tiny_model, base_tokenizer):
    entries = [entry("x", text="say " + "something " * (i * 5 % 7)) for i in range(9)]
    chosen = template("plain")
    together = [*answer_all(entries, tiny_model, base_tokenizer, chosen, max_new_tokens=5, batch_size=4)]
    assert [answer.entry for answer in together] == entries
    alone = [
        next(answer_all([e], tiny_model, base_tokenizer, chosen, max_new_tokens=5)).text for e in entries
    ]
    assert [answer.text for answer in together] == alone


def test_an_answer_stops_at_end_of_text(tiny_model, base_tokenizer):
    with torch.no_grad():  # whatever comes in, end-of-text is the likeliest next token
        tiny_model.final_norm.scale.zero_()
        tiny_model.final_norm.shift.copy_(tiny_model.tok_emb.weight[base_tokenizer.end_of_text_id])
    answers = [*answer_all(ENTRIES[:2], tiny_model, base_tokenizer, template("plain"), max_new_tokens=6)]
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
    assert scores.f1_interval[0] < scores.token_f1 < scores.f1_interval[1]


def test_scoring_nothing_is_an_error():
    with pytest.raises(DataError, match="no answers to score"):
        score_answers([])


# --- the file of answers


@pytest.fixture
def ask(tiny_model, base_tokenizer, tmp_path):
    """Answer ENTRIES into a file; returns the answers."""

    def ask(*, step=7, entries=ENTRIES, chosen=PLAIN):
        return answer_into_file(
            entries, tiny_model, base_tokenizer, chosen, tmp_path / "a.jsonl", step=step, max_new_tokens=5
        )

    return ask


def saved(tmp_path):
    return [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]


def test_the_file_holds_prompt_reference_and_answer_in_order(ask, tmp_path):
    given = ask()
    records = saved(tmp_path)
    assert [record["model_response"] for record in records] == [answer.text for answer in given]
    assert [record["prompt"] for record in records] == [PLAIN.prompt(e) for e in ENTRIES]
    assert {record["output"] for record in records} == {"x"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("n_before", [0, 1, 4, 7, 8])
def test_a_run_killed_while_answering_asks_only_what_has_no_answer(ask, tmp_path, monkeypatch, n_before):
    expected = ask(entries=ENTRIES)
    whole = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl").unlink()
    real_append, asked = answers_module.History.append, []

    def append(self, record):
        if len(asked) == n_before:
            with self.path.open("a") as file:
                file.write(json.dumps(record)[:20])  # half a line
            raise Killed
        asked.append(record)
        real_append(self, record)

    monkeypatch.setattr(answers_module.History, "append", append)
    with pytest.raises(Killed):
        ask()
    monkeypatch.setattr(answers_module.History, "append", real_append)
    new = []
    real = answers_module.answer_all
    monkeypatch.setattr(answers_module, "answer_all", lambda e, *a, **k: new.extend(e) or real(e, *a, **k))
    assert ask() == expected
    assert new == ENTRIES[n_before:]
    assert (tmp_path / "a.jsonl").read_bytes() == whole  # each answer once, no half line


def test_answers_of_another_step_or_to_other_entries_are_given_anew(ask, tmp_path):
    ask(step=7)
    ask(step=8)
    assert {record["step"] for record in saved(tmp_path)} == {8}
    other = [*ENTRIES[:3], entry("y", text="other"), *ENTRIES[4:]]
    ask(step=8, entries=other)
    assert [record["instruction"] for record in saved(tmp_path)] == [e.instruction for e in other]


# --- templates


@pytest.mark.parametrize("name", TEMPLATES)
def test_generation_starts_from_the_prompt_of_the_template(tiny_model, base_tokenizer, name):
    chosen = template(name)
    asked = Instruction(
        instruction="and up", input="", output="", system="be good", history=(Exchange("say hot", "cold"),)
    )
    ids = encode_prompt(asked, chosen, base_tokenizer)
    config = GenerationConfig(max_new_tokens=4, stop_ids=(base_tokenizer.end_of_text_id,))
    expected = generate_ids(tiny_model, [ids], config, tokenizer=base_tokenizer)[0].text
    answer = next(answer_all([asked], tiny_model, base_tokenizer, chosen, max_new_tokens=4))
    assert answer.text == expected.removeprefix(chosen.answer_lead)
