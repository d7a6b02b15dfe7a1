"""The Modelfile for Ollama and the chat template for llama.cpp produce the prompts used in training."""

import pytest

from scratchlm.checkpoints.gguf.modelfile import PromptFrame, chat_template, modelfile
from scratchlm.core.errors import ConfigError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import TEMPLATES

jinja2 = pytest.importorskip("jinja2")


def frame_of(name: str) -> PromptFrame:
    chosen = TEMPLATES[name]
    return PromptFrame(before=chosen.before_instruction, after=chosen.before_answer)


def test_a_base_model_gets_plain_completion():
    text = modelfile("a.gguf", frame=PromptFrame(), context_length=128, stops=["<|endoftext|>"])
    assert text.splitlines() == [
        "FROM ./a.gguf",
        'TEMPLATE """{{ .Prompt }}"""',
        "PARAMETER num_ctx 128",
        'PARAMETER stop "<|endoftext|>"',
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_assistant_is_asked_in_the_words_it_was_trained_with(name):
    question = "What is the opposite of hot?"
    text = modelfile("a.gguf", frame=frame_of(name), context_length=128)
    asked = text.split('"""')[1].replace("{{ .Prompt }}", question)
    assert asked == TEMPLATES[name].prompt(Instruction(instruction=question, input="", output=""))


def test_an_alpaca_model_stops_at_the_next_instruction():
    text = modelfile("a.gguf", frame=frame_of("alpaca"), context_length=128, stops=["<|endoftext|>"])
    assert [line for line in text.splitlines() if "stop" in line] == [
        'PARAMETER stop "<|endoftext|>"',
        'PARAMETER stop "### Instruction:"',
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_chat_template_asks_in_the_same_words(name):
    question = 'Say "hi"\nin {{ two }} lines'
    asked = jinja2.Template(chat_template(frame_of(name))).render(
        messages=[{"role": "user", "content": question}], add_generation_prompt=True
    )
    assert asked == TEMPLATES[name].prompt(Instruction(instruction=question, input="", output=""))


def test_earlier_answers_stand_between_the_questions():
    asked = jinja2.Template(chat_template(PromptFrame(before="Q: ", after="\nA:"))).render(
        messages=[
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": " 1"},
            {"role": "user", "content": "two"},
        ]
    )
    assert asked == "Q: one\nA: 1\n\nQ: two\nA:"


@pytest.mark.parametrize("text", ['a """ b', "{{ .System }}", "}}"])
def test_a_frame_that_a_modelfile_cannot_spell_is_an_error(text):
    with pytest.raises(ConfigError, match="rename the marks"):
        modelfile("a.gguf", frame=PromptFrame(before=text), context_length=8)


@pytest.mark.parametrize("stop", ['a"b', "a\nb"])
def test_a_stop_that_a_modelfile_cannot_spell_is_an_error(stop):
    with pytest.raises(ConfigError, match="one line without quotes"):
        modelfile("a.gguf", frame=PromptFrame(), context_length=8, stops=[stop])


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_reads_as_in_training(name):
    chosen = TEMPLATES[name]
    frame = PromptFrame(
        before=chosen.before_instruction,
        after=chosen.before_answer,
        answer_lead=chosen.answer_lead,
        answer_end=chosen.answer_end,
        next_before=chosen.next_instruction,
        before_system=chosen.before_system,
        after_system=chosen.after_system,
    )
    for system in ("Be brief.", ""):
        messages = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": role, "content": content}
            for role, content in (("user", "one"), ("assistant", "1"), ("user", "two"))
        ]
        entry = Instruction(
            instruction="two", input="", output="", system=system, history=(Exchange("one", "1"),)
        )
        assert jinja2.Template(chat_template(frame)).render(messages=messages) == chosen.prompt(entry)


def test_the_mark_that_ends_an_answer_is_a_stop():
    frame = PromptFrame(before="Q: ", after="\nA:", answer_end="<|im_end|>")
    text = modelfile("a.gguf", frame=frame, context_length=64, stops=["<|endoftext|>"])
    assert [line.split('"')[1] for line in text.splitlines() if "stop" in line] == [
        "<|endoftext|>", "<|im_end|>", "Q:",
    ]  # fmt: skip
