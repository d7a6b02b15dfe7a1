import dataclasses
import random

import pytest
import torch

from scratchlm.core.errors import ConfigError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import (
    TEMPLATES,
    PromptPiece,
    answer_end_id,
    encode_exchanges,
    encode_pieces,
    encode_prompt,
    template,
)
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

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


MARKS = sorted({mark for known in TEMPLATES.values() for mark in known.marks})
TALK = Instruction(
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
    ids = encode_prompt(TALK, chosen, with_marks)
    text = chosen.prompt(TALK)
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
    exchanges = list(encode_exchanges(TALK, chosen, with_marks))
    whole = [i for prompt, answer in exchanges for i in (*prompt, *answer)]
    prompt = encode_prompt(TALK, chosen, with_marks)
    assert whole[: len(prompt)] == prompt
    assert whole[len(prompt) :] == exchanges[-1][1]
    examples = InstructionExamples([TALK], with_marks, template=chosen)
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
