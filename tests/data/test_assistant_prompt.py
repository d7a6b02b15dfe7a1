"""A question in a template of ours or of others, as much of the conversation as fits."""

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.data.assistant_prompt import assistant_prompt, chosen_template
from scratchlm.data.chat_template import ChatTemplate
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import encode_prompt, template
from scratchlm.tokenizers import train_bpe

MARKS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TASK = {"chat_template": CHATML, "chat_tokens": {}, "stop_ids": [7]}
CHAT = Instruction(
    instruction="two",
    input="in",
    output="2",
    system="count",
    history=tuple(Exchange(f"one {i}", f"{i}") for i in range(6)),
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["a b c user assistant system one two"], 280, special_tokens=["<|endoftext|>", *MARKS])


def without_oldest(n: int) -> Instruction:
    return Instruction(
        instruction="two", input="in", output="2", system="count", history=CHAT.history[n:]
    )  # fmt: skip


def test_the_template_named_goes_before_the_one_of_training_and_that_before_the_files_own():
    assert chosen_template({}) is None
    assert chosen_template(TASK) == ChatTemplate(source=CHATML, tokens={})
    tuned = {**TASK, "kind": "instruction", "template": "plain"}
    assert chosen_template(tuned) == template("plain")
    assert chosen_template(tuned, "chatml") == chosen_template(TASK, "chatml") == template("chatml")
    with pytest.raises(ConfigError, match="template must be one of"):
        chosen_template({}, "chatlm")


@pytest.mark.parametrize("task", [TASK, {"kind": "instruction", "template": "chatml"}], ids=["own", "ours"])
def test_the_oldest_exchanges_are_left_out_first_and_only_as_many_as_needed(tokenizer, task):
    chosen = chosen_template(task)
    lengths = [len(assistant_prompt(chosen, without_oldest(n), task, tokenizer).ids) for n in range(7)]
    assert lengths == sorted(lengths, reverse=True)
    for n, length in enumerate(lengths):
        fitting = assistant_prompt(chosen, CHAT, task, tokenizer, n_tokens=length)
        assert fitting.ids == assistant_prompt(chosen, without_oldest(n), task, tokenizer).ids
    alone = assistant_prompt(chosen, CHAT, task, tokenizer, n_tokens=1)
    assert alone.ids == assistant_prompt(chosen, without_oldest(6), task, tokenizer).ids


def test_an_answer_in_the_files_own_template_ends_at_its_mark_and_at_the_model_s_ends(tokenizer):
    asked = assistant_prompt(chosen_template(TASK), CHAT, TASK, tokenizer)
    assert set(asked.stop_ids) == {7, tokenizer.special_tokens["<|im_end|>"]}
    assert asked.stop_texts == ()
    expected = ChatTemplate(source=CHATML, tokens={}).encode(
        [
            {"role": "system", "content": "count"},
            *(
                {"role": role, "content": text}
                for exchange in CHAT.history
                for role, text in zip(("user", "assistant"), exchange)
            ),
            {"role": "user", "content": "two\nin"},
        ],
        tokenizer,
    )
    assert asked.ids == expected


def test_a_template_of_ours_is_asked_as_in_training(tokenizer):
    asked = assistant_prompt(template("plain"), CHAT, {}, tokenizer)
    assert asked.ids == encode_prompt(CHAT, template("plain"), tokenizer)
    assert asked.answer_lead == " "
    assert asked.stop_ids == (tokenizer.end_of_text_id,)
    assert set(assistant_prompt(template("chatml"), CHAT, {"stop_ids": [7]}, tokenizer).stop_ids) == {
        7, tokenizer.special_tokens["<|im_end|>"],
    }  # fmt: skip


def test_where_a_template_has_no_mark_its_next_question_ends_an_answer(tokenizer):
    source = "{% for m in messages %}\n### {{ m.role }}\n{{ m.content }}{% endfor %}"
    task = {"chat_template": source}
    assert assistant_prompt(chosen_template(task), CHAT, task, tokenizer).stop_texts == ("### user",)
