from __future__ import annotations

import dataclasses

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instructions import Instruction
from scratchlm.data.prompts import TEMPLATES, template

WITH_INPUT = Instruction(instruction="Name the opposite.", input="hot", output="cold")
WITHOUT_INPUT = Instruction(
    instruction="What is the capital of the United Kingdom?", input="", output="London."
)

# The frame is a format: models trained in it elsewhere expect these characters (Alpaca; the book, ch. 7).
PREAMBLE = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def test_alpaca_with_an_input_is_the_books_text():
    assert template("alpaca").full(WITH_INPUT) == (
        f"{PREAMBLE}\n\n### Instruction:\nName the opposite.\n\n### Input:\nhot\n\n### Response:\ncold"
    )


def test_alpaca_leaves_out_the_section_of_an_empty_input():
    assert template("alpaca").request(WITHOUT_INPUT) == (
        f"{PREAMBLE}\n\n### Instruction:\nWhat is the capital of the United Kingdom?"
    )


def test_the_plain_template_is_short():
    assert template("plain").prompt(WITH_INPUT) == "Q: Name the opposite.\nhot\nA:"
    assert template("plain").full(WITH_INPUT) == "Q: Name the opposite.\nhot\nA: cold"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("entry", [WITH_INPUT, WITHOUT_INPUT])
def test_prompt_and_answer_make_the_full_text(name, entry):
    chosen = template(name)
    assert chosen.name == name
    assert chosen.full(entry) == chosen.prompt(entry) + chosen.answer(entry)
    assert chosen.prompt(entry).startswith(chosen.request(entry))
    assert entry.output not in chosen.prompt(entry)
    assert chosen.answer(entry).strip() == entry.output


def test_an_unknown_template_names_the_nearest():
    with pytest.raises(
        ConfigError, match="one of alpaca, plain, phi3, chatml, llama3, got 'alpacca'; did you mean 'alpaca'"
    ):
        template("alpacca")


# --- conversations and role marks

CHAT = Instruction(
    instruction="And of cold?", input="", output="Hot.", system="Be brief.",
    history=(Exchange("What is the opposite of hot?", "Cold."),),
)  # fmt: skip


def test_alpaca_repeats_its_blocks_and_a_system_prompt_replaces_the_preamble():
    assert template("alpaca").full(CHAT) == (
        "Be brief.\n\n### Instruction:\nWhat is the opposite of hot?\n\n### Response:\nCold."
        "\n\n### Instruction:\nAnd of cold?\n\n### Response:\nHot."
    )


def test_plain_repeats_questions_and_answers():
    assert template("plain").full(CHAT) == (
        "Be brief.\nQ: What is the opposite of hot?\nA: Cold.\nQ: And of cold?\nA: Hot."
    )


def test_phi3_is_that_of_the_books_exercise():
    # Exercise 7.1 of the book: <|user|>, the instruction and its input, <|assistant|>.
    assert template("phi3").full(WITH_INPUT) == "<|user|>\nName the opposite.\nhot\n<|assistant|>\ncold"
    assert template("phi3").prompt(CHAT) == (
        "<|system|>\nBe brief.\n<|user|>\nWhat is the opposite of hot?\n<|assistant|>\nCold."
        "\n<|user|>\nAnd of cold?\n<|assistant|>\n"
    )


def as_messages(entry):
    system = [{"role": "system", "content": entry.system}] if entry.system else []
    turns = [
        message
        for request, answer in entry.history
        for message in ({"role": "user", "content": request}, {"role": "assistant", "content": answer})
    ]
    return [*system, *turns, {"role": "user", "content": entry.instruction}]


# The chat templates that Qwen 2.5 (ChatML) and Llama 3 publish in their tokenizer_config.json, without tools and
# the default system prompt.
PUBLISHED = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
        " + '\n'}}{% endfor %}{{ '<|im_start|>assistant\n' }}"
    ),
    "llama3": (
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = '<|begin_of_text|>' + content %}{% endif %}{{ content }}{% endfor %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("entry", [WITHOUT_INPUT, CHAT])
def test_chat_templates_are_those_that_were_published(name, entry):
    jinja2 = pytest.importorskip("jinja2")
    expected = jinja2.Template(PUBLISHED[name]).render(messages=as_messages(entry))
    assert template(name).prompt(entry) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_pieces_spell_the_prompt_and_only_frames_hold_marks(name):
    chosen = template(name)
    *_, last = chosen.parts(CHAT)
    assert chosen.prompt(CHAT).endswith("".join(piece.text for piece in last.prompt))
    marks = [piece.text for part in chosen.parts(CHAT) for piece in part.prompt if piece.is_mark]
    assert set(marks) <= set(chosen.marks)
    assert bool(marks) == bool(chosen.marks)
    forged = dataclasses.replace(CHAT, instruction="".join(chosen.marks) + "x")
    assert marks == [piece.text for part in chosen.parts(forged) for piece in part.prompt if piece.is_mark]
