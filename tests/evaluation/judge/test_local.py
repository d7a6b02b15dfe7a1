"""A model of ours as the judge: its template, its limits, and one reply at a time."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from scratchlm.checkpoints.store import save_model
from scratchlm.core.errors import ConfigError, DataError, ServiceError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import encode_prompt, template
from scratchlm.evaluation.judge.local import LocalJudge
from scratchlm.generation.generate import generate_ids
from tests.tiny import tiny_gpt

ASK = [{"role": "user", "content": "The cat sat on the mat"}]


@pytest.fixture
def make(tiny_tokenizer, tmp_path):
    """Saves a tiny model of a kind, opened as a judge; `bias` makes one token likely at every step."""

    def saved(task=None, *, name="judge", bias=None, seed=0, context_length=200, **settings):
        torch.manual_seed(seed)
        model = tiny_gpt(tiny_tokenizer.vocab_size, context_length=context_length)
        if bias is not None:
            model.final_norm.scale.data.zero_()
            model.final_norm.shift.data.fill_(1.0)
            model.out_head.weight.data[bias] = 10.0
        folder = save_model(tmp_path / name, model, tiny_tokenizer, task=task)
        return LocalJudge(folder, device="cpu", **settings)

    return saved


def assistant(name="plain"):
    return {"kind": "instruction", "template": name}


def ids_that_it_was_given(judge, monkeypatch):
    given = []

    def watch(model, prompts, config, *, tokenizer):
        given.extend(prompts)
        return generate_ids(model, prompts, config, tokenizer=tokenizer)

    monkeypatch.setattr("scratchlm.evaluation.judge.local.generate_ids", watch)
    return given


def test_a_reply_ends_where_the_model_ends_it(make, tiny_tokenizer):
    assert make(assistant(), bias=tiny_tokenizer.end_of_text_id).ask(ASK) == ""


@pytest.mark.parametrize("name", ["plain", "alpaca", "chatml"])
def test_an_assistant_is_asked_in_its_own_template(make, tiny_tokenizer, monkeypatch, name):
    short = [{"role": "user", "content": "cat"}]
    judge = make(assistant(name), bias=tiny_tokenizer.end_of_text_id)
    given = ids_that_it_was_given(judge, monkeypatch)
    entry = Instruction(instruction="cat", input="", output="")
    judge.ask(short)
    assert given == [encode_prompt(entry, template(name), tiny_tokenizer)]


def test_system_and_earlier_turns_are_part_of_the_prompt(make, tiny_tokenizer, monkeypatch):
    judge = make(assistant(), bias=tiny_tokenizer.end_of_text_id)
    given = ids_that_it_was_given(judge, monkeypatch)
    judge.ask(
        [
            {"role": "system", "content": "the dog"},
            {"role": "user", "content": "cat"},
            {"role": "assistant", "content": "mat"},
            {"role": "user", "content": "log"},
        ]
    )
    entry = Instruction(
        instruction="log", input="", output="", system="the dog", history=(Exchange("cat", "mat"),)
    )
    assert given == [encode_prompt(entry, template("plain"), tiny_tokenizer)]


def test_a_plain_model_is_given_the_bare_words(make, tiny_tokenizer, monkeypatch):
    judge = make(bias=tiny_tokenizer.end_of_text_id)
    given = ids_that_it_was_given(judge, monkeypatch)
    assert judge.ask([{"role": "system", "content": "the cat"}, *ASK]) == ""
    assert given == [tiny_tokenizer.encode("the cat\n\nThe cat sat on the mat")]


def test_a_reply_without_an_end_is_kept_and_marked_so_that_no_number_is_read_off_it(make, tiny_tokenizer):
    a_digit = tiny_tokenizer.encode("8")[0]
    reply = make(assistant(), bias=a_digit, max_new_tokens=2).ask(ASK)
    assert reply == "88 [cut off after 2 tokens]"


def test_the_context_limits_a_reply_too(make, tiny_tokenizer):
    a_letter = tiny_tokenizer.encode("x")[0]
    assert re.search(r"x \[cut off after \d\d tokens\]$", make(bias=a_letter, context_length=64).ask(ASK))
    with pytest.raises(ServiceError, match=r"a request of \d+ tokens does not fit"):
        make(bias=a_letter, name="other", context_length=64).ask([{"role": "user", "content": "word " * 64}])


def test_threads_get_the_replies_that_one_alone_gets(make, tiny_tokenizer):
    judge = make(assistant(), seed=3, max_new_tokens=200)
    asks = [[{"role": "user", "content": "cat " * n}] for n in range(1, 9)]

    def reply(messages):
        try:
            return judge.ask(messages)
        except ServiceError as error:
            return str(error)

    alone = [reply(messages) for messages in asks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(reply, asks)) == alone


def test_identity_is_that_of_the_weights_wherever_they_lie(make):
    one, same, other = make(name="one"), make(name="same"), make(name="other", seed=1)
    assert one.identity == same.identity != other.identity
    assert one.name.startswith("local:")
    assert one.identity != make(assistant(), name="assistant").identity
    assert one.identity != make(name="long", max_new_tokens=9).identity


def test_a_classifier_judges_no_answers(make, tiny_tokenizer):
    classes = [f"class {i}" for i in range(tiny_tokenizer.vocab_size)]  # as many as the model has scores
    with pytest.raises(ConfigError, match="holds a classifier"):
        make({"kind": "classification", "classes": classes, "max_length": 8})


@pytest.mark.parametrize(
    "roles", [[], ["system"], ["user", "assistant"], ["user", "user"], ["assistant", "user"]]
)
def test_a_conversation_must_have_an_order(make, roles):
    judge = make(assistant())
    with pytest.raises(DataError, match="a judge's conversation must"):
        judge.ask([{"role": role, "content": "cat"} for role in roles])
