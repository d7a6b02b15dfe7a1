import pytest

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import ConfigError
from scratchlm.data.audit import token_loss
from scratchlm.data.audit.token_loss import loss_figures, loss_row
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import template
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

PLAIN = template("plain")
ENTRIES = [
    Instruction(instruction="hi", input="", output="yo"),
    Instruction(instruction="a longer question", input="", output="z"),
]


def text_of(row, *, with_loss: bool) -> str:
    return "".join(token["text"] for token in row["tokens"] if token["loss"] == with_loss)


def test_the_answer_carries_loss_and_the_prompt_none(tiny_tokenizer):
    examples = InstructionExamples(ENTRIES, tiny_tokenizer, template=PLAIN)
    row = loss_row(examples, 0, tiny_tokenizer)
    assert text_of(row, with_loss=False) == PLAIN.prompt(ENTRIES[0])
    assert text_of(row, with_loss=True) == PLAIN.answer(ENTRIES[0]) + "<|endoftext|>"
    assert row["n_loss"] == int((examples.batch([0]).targets != IGNORE_INDEX).sum())


def test_with_loss_on_the_prompt_all_but_the_first_token_carries_it(tiny_tokenizer):
    examples = InstructionExamples(ENTRIES, tiny_tokenizer, template=PLAIN, mask_instruction=False)
    row = loss_row(examples, 1, tiny_tokenizer)
    assert [token["loss"] for token in row["tokens"]][:2] == [False, True]
    assert row["n_loss"] == row["n_tokens"] - 1


def test_a_character_of_several_tokens_is_shown_as_one(real_data):
    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    entry = Instruction(instruction="猫?", input="", output="👩‍👧 yes")
    row = loss_row(InstructionExamples([entry], tokenizer, template=PLAIN), 0, tokenizer)
    assert "\ufffd" not in "".join(token["text"] for token in row["tokens"])
    assert text_of(row, with_loss=True) == " 👩‍👧 yes<|endoftext|>"


def test_the_figures_add_up_over_all_rows(byte_tokenizer):
    figures, lengths = loss_figures(ENTRIES, byte_tokenizer, template=PLAIN, context_length=None, n_shown=1)
    sizes = [len(PLAIN.full(entry).encode()) + 1 for entry in ENTRIES]
    assert figures["tokens"] == sum(sizes)
    assert figures["tokens_with_loss"] == len(" yo") + 1 + len(" z") + 1
    assert lengths == [size - 1 for size in sizes]  # the last token is only a target
    assert (len(figures["rows"]), figures["rows"][0]["n_tokens"]) == (1, sizes[0])


def test_a_context_leaves_out_what_training_would_leave_out(byte_tokenizer):
    n_prompt = len(PLAIN.prompt(ENTRIES[0]).encode())
    figures, lengths = loss_figures(
        ENTRIES, byte_tokenizer, template=PLAIN, context_length=n_prompt, n_shown=5
    )
    assert (figures["left_out"], figures["truncated"]) == (1, 2)
    assert (figures["tokens_with_loss"], len(figures["rows"])) == (1, 1)
    assert max(lengths) > n_prompt, "lengths are those of whole rows"


def test_a_context_in_which_no_answer_fits_is_told_not_raised(byte_tokenizer):
    figures, lengths = loss_figures(ENTRIES, byte_tokenizer, template=PLAIN, context_length=2, n_shown=1)
    assert (figures["left_out"], figures["tokens"], figures["rows"]) == (2, 0, [])
    assert "raise max_length" in figures["complaint"]
    assert len(lengths) == 2


def test_a_long_row_is_shown_in_part_and_says_so(byte_tokenizer, monkeypatch):
    monkeypatch.setattr(token_loss, "MAX_TOKENS", 5)
    examples = InstructionExamples(ENTRIES, byte_tokenizer, template=PLAIN)
    row = loss_row(examples, 0, byte_tokenizer)
    assert (len(row["tokens"]), row["n_hidden"]) == (5, row["n_tokens"] - 5)


def test_a_tokenizer_without_an_end_of_text_cannot_teach_answers(byte_tokenizer, monkeypatch):
    monkeypatch.setattr(type(byte_tokenizer), "end_of_text_id", None)
    with pytest.raises(ConfigError, match="needs an end-of-text token"):
        loss_figures(ENTRIES, byte_tokenizer, template=PLAIN, context_length=None, n_shown=1)
