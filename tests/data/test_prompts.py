from __future__ import annotations

import pytest

from scratchlm.core.errors import ConfigError
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
    with pytest.raises(ConfigError, match="one of alpaca, plain, got 'alpacca'; did you mean 'alpaca'"):
        template("alpacca")
