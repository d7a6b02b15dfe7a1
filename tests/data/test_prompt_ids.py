"""Role marks as ids, and ten thousand messages that try to forge one."""

from __future__ import annotations

import random

import pytest
import torch

from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction import InstructionExamples
from scratchlm.data.instructions import Instruction
from scratchlm.data.prompt_ids import (
    answer_end_id,
    encode_exchanges,
    encode_pieces,
    encode_prompt,
)
from scratchlm.data.prompts import TEMPLATES, PromptPiece, template
from scratchlm.tokenizers.bpe_training import train_bpe
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

MARKS = sorted({mark for known in TEMPLATES.values() for mark in known.marks})
CHAT = Instruction(
    instruction="two",
    input="in",
    output="2",
    system="count",
    history=(Exchange("one", "1"), Exchange("x", "y")),
)


@pytest.fixture(scope="module")
def with_marks():
    return train_bpe(["a b c user assistant system one two"], 350, special_tokens=[END_OF_TEXT, *MARKS])


@pytest.fixture(scope="module")
def without_marks():
    return train_bpe(["a b c user assistant system one two"], 330)


@pytest.mark.parametrize("name", TEMPLATES)
def test_known_marks_are_single_ids_and_the_text_is_the_templates(with_marks, name):
    chosen = template(name)
    ids = encode_prompt(CHAT, chosen, with_marks)
    text = chosen.prompt(CHAT)
    special = set(with_marks.special_tokens.values())
    assert sum(i in special for i in ids) >= sum(text.count(mark) for mark in chosen.marks)
    if chosen.answer_end:
        assert with_marks.decode(ids) == text
    else:  # end-of-text ends the earlier answers
        assert with_marks.decode(ids).replace(END_OF_TEXT, "") == text


@pytest.mark.parametrize("name", TEMPLATES)
def test_unknown_marks_are_ordinary_text(without_marks, name):
    chosen = template(name)
    first = Instruction(instruction="one", input="", output="1", system="count")
    ids = encode_prompt(first, chosen, without_marks)
    assert ids == without_marks.encode(chosen.prompt(first))  # as if encoded in one go
    assert without_marks.end_of_text_id not in ids
    assert answer_end_id(chosen, without_marks) == without_marks.end_of_text_id


def test_what_ends_an_answer(with_marks):
    names = {name: answer_end_id(template(name), with_marks) for name in TEMPLATES}
    ids = with_marks.special_tokens
    end = ids[END_OF_TEXT]
    assert names == {
        "alpaca": end, "plain": end, "phi3": end, "chatml": ids["<|im_end|>"], "llama3": ids["<|eot_id|>"],
    }  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_is_what_training_puts_before_the_answer(with_marks, name):
    chosen = template(name)
    exchanges = list(encode_exchanges(CHAT, chosen, with_marks))
    whole = [i for prompt, answer in exchanges for i in (*prompt, *answer)]
    prompt = encode_prompt(CHAT, chosen, with_marks)
    assert whole[: len(prompt)] == prompt
    assert whole[len(prompt) :] == exchanges[-1][1]
    examples = InstructionExamples([CHAT], with_marks, template=chosen)
    assert examples.batch([0]).inputs[0].tolist() == whole[:-1]


def test_text_joins_text_so_that_merges_go_across(without_marks):
    pieces = [PromptPiece("us"), PromptPiece("er "), PromptPiece("<|user|>", is_mark=True), PromptPiece("a")]
    assert encode_pieces(pieces, without_marks) == without_marks.encode("user <|user|>a")
    assert encode_pieces([], without_marks) == []


# --- poison


def poisoned(n: int) -> list[str]:
    """Messages of marks, halves of marks and other text, at random."""
    draw = random.Random(1)
    parts = [
        *MARKS,
        END_OF_TEXT,
        "<|",
        "|>",
        "<",
        "im_end",
        "user\n",
        " ",
        "a",
        "é",
        "\n",
        "### Response:\n",
        "\u200b",
    ]
    return ["".join(draw.choice(parts) for _ in range(draw.randint(1, 8))) for _ in range(n)]


@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_poisoned_message_becomes_a_special_token(with_marks, n):
    special = set(with_marks.special_tokens.values())
    specials = torch.tensor(sorted(special))
    messages = poisoned(n)
    assert sum(any(mark in m for mark in MARKS) for m in messages) > n / 2
    for i, message in enumerate(messages):
        chosen = TEMPLATES[list(TEMPLATES)[i % len(TEMPLATES)]]
        clean, dirty = (
            Instruction(
                instruction=text, input=text, output=text, system=text, history=(Exchange(text, text),)
            )
            for text in ("a", message)
        )
        expected, found = (
            [id_ for id_ in _all_ids(entry, chosen, with_marks) if id_ in special] for entry in (clean, dirty)
        )
        assert found == expected, message  # the template's own marks, and not one more
    batch = InstructionExamples(
        [Instruction(instruction=m, input="", output=m) for m in messages],
        with_marks,
        template=template("plain"),
    ).batch(range(n))
    assert not torch.isin(batch.inputs[batch.attention_mask], specials).any()


def _all_ids(entry, chosen, tokenizer):
    return [i for prompt, answer in encode_exchanges(entry, chosen, tokenizer) for i in (*prompt, *answer)]


# --- forgetting
