import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction, read_instructions
from scratchlm.data.instruction_split import split_in_order
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.prompt_templates import PromptTemplate, template
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

BARE = PromptTemplate(name="bare", before_instruction="", before_input="", before_answer="")
PLAIN = template("plain")
END = 256


def entry(instruction: str, output: str, input_: str = "") -> Instruction:
    return Instruction(instruction=instruction, input=input_, output=output)


def books_collate(rows: list[list[int]], pad_id: int) -> tuple[list[list[int]], list[list[int]]]:
    """What the book's collate function does, in plain Python: pad, shift, keep the first pad as target."""
    width = max(len(row) for row in rows)
    inputs, targets = [], []
    for row in rows:
        padded = row + [pad_id] * (width + 1 - len(row))
        inputs.append(padded[:-1])
        targets.append(padded[1 : len(row) + 1] + [IGNORE_INDEX] * (width - len(row)))
    return inputs, targets


def test_with_loss_on_the_prompt_a_batch_is_the_books(byte_tokenizer):
    entries = [entry("ab", "cde"), entry("f", "g"), entry("hi", "j")]
    examples = InstructionExamples(entries, byte_tokenizer, template=BARE, mask_instruction=False)
    batch = examples.batch([0, 1, 2])
    rows = [list(b"abcde"), list(b"fg"), list(b"hij")]
    inputs, targets = books_collate(rows, END)
    assert batch.inputs.tolist() == inputs
    assert batch.targets.tolist() == targets
    assert batch.attention_mask.sum(dim=1).tolist() == [5, 2, 3]


def test_loss_falls_on_the_answer_and_its_end_only(byte_tokenizer):
    examples = InstructionExamples(
        [entry("hi", "yo"), entry("long question", "z")], byte_tokenizer, template=PLAIN
    )
    batch = examples.batch([0])
    assert byte_tokenizer.decode(batch.inputs[0].tolist()) == "Q: hi\nA: yo"
    carried = batch.targets[0][batch.targets[0] != IGNORE_INDEX].tolist()
    assert carried == [*b" yo", END]
    first = int((batch.targets[0] != IGNORE_INDEX).nonzero()[0])
    assert byte_tokenizer.decode(batch.inputs[0, : first + 1].tolist()) == PLAIN.prompt(entry("hi", "yo"))


def test_padding_carries_no_loss_and_is_not_real(byte_tokenizer):
    examples = InstructionExamples(
        [entry("hi", "yo"), entry("long question", "z")], byte_tokenizer, template=PLAIN
    )
    batch = examples.batch(np.array([0, 1]))
    assert (batch.targets[~batch.attention_mask] == IGNORE_INDEX).all()
    assert (batch.targets == END).sum(dim=1).tolist() == [1, 1]
    assert batch.n_targets == len(" yo") + 1 + len(" z") + 1
    assert examples.lengths.tolist() == batch.attention_mask.sum(dim=1).tolist()


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=5), st.booleans())
def test_each_target_is_the_token_after_its_input(byte_tokenizer, pairs, masks):
    entries = [entry(instruction, output) for instruction, output in pairs]
    examples = InstructionExamples(entries, byte_tokenizer, template=PLAIN, mask_instruction=masks)
    batch = examples.batch(range(len(entries)))
    following = torch.cat([batch.inputs[:, 1:], torch.full((len(entries), 1), END)], dim=1)
    carries = batch.targets != IGNORE_INDEX
    assert torch.equal(batch.targets[carries], following[carries])
    assert carries.any(dim=1).all()


def test_long_entries_are_cut_and_counted(byte_tokenizer, caplog):
    entries = [entry("a", "b" * 20), entry("a", "b"), entry("a" * 20, "b")]
    with caplog.at_level(logging.INFO):
        examples = InstructionExamples(entries, byte_tokenizer, template=PLAIN, max_length=12)
    assert examples.n_truncated == 2
    assert examples.n_left_out == 1  # its prompt alone fills the 12 tokens
    assert len(examples) == 2
    assert examples.batch([0]).inputs.shape == (1, 12)
    assert END not in examples.batch([0]).targets  # the end was cut off, and nothing pretends otherwise
    assert "left out 1 of 3 entries" in caplog.text


def test_an_entry_whose_prompt_just_leaves_one_target_stays(byte_tokenizer):
    n_prompt = len(PLAIN.prompt(entry("a", "b")))
    examples = InstructionExamples([entry("a", "b")], byte_tokenizer, template=PLAIN, max_length=n_prompt)
    assert examples.batch([0]).n_targets == 1
    with pytest.raises(DataError, match="each of the 1 prompts fills"):
        InstructionExamples([entry("a", "b")], byte_tokenizer, template=PLAIN, max_length=n_prompt - 1)


def test_text_never_becomes_a_special_token(byte_tokenizer):
    examples = InstructionExamples([entry("<|endoftext|>", "<|endoftext|>")], byte_tokenizer, template=PLAIN)
    assert END not in examples.batch([0]).inputs
    assert (examples.batch([0]).targets == END).sum() == 1


def test_settings_and_data_that_mean_nothing_are_refused(byte_tokenizer, monkeypatch):
    with pytest.raises(DataError, match="needs entries, got none"):
        InstructionExamples([], byte_tokenizer, template=PLAIN)
    with pytest.raises(ConfigError, match="max_length must be at least 1"):
        InstructionExamples([entry("a", "b")], byte_tokenizer, template=PLAIN, max_length=0)
    monkeypatch.setattr(type(byte_tokenizer), "end_of_text_id", None)
    with pytest.raises(ConfigError, match="needs an end-of-text token"):
        InstructionExamples([entry("a", "b")], byte_tokenizer, template=PLAIN)


def test_on_the_books_data_the_ids_are_those_of_the_whole_text(real_data):
    tokenizer = load_gpt2_tokenizer(
        real_data / "gpt2_bpe" / "encoder.json", real_data / "gpt2_bpe" / "vocab.bpe"
    )
    entries = read_instructions(real_data / "instruction" / "instruction-data.json")
    alpaca = template("alpaca")
    examples = InstructionExamples(entries, tokenizer, template=alpaca, mask_instruction=False)
    for i in range(0, len(entries), 8):
        indices = range(i, min(i + 8, len(entries)))
        inputs, targets = books_collate([tokenizer.encode(alpaca.full(entries[j])) for j in indices], 50256)
        batch = examples.batch(indices)
        assert batch.inputs.tolist() == inputs
        assert batch.targets.tolist() == targets


# --- packing


def test_a_packed_batch_holds_the_same_tokens_and_targets(byte_tokenizer):
    entries = [entry("a" * (i % 5 + 1), "b" * (i % 3)) for i in range(12)]
    plain, packed = (
        InstructionExamples(entries, byte_tokenizer, template=PLAIN, packing=packing, max_length=40)
        for packing in (False, True)
    )
    for indices in ([0, 1, 2, 3], [7], range(12)):
        one, other = plain.batch(indices), packed.batch(indices)
        assert (one.n_tokens, one.n_targets) == (other.n_tokens, other.n_targets)
        texts = sorted(row[mask].tolist() for row, mask in zip(one.inputs, one.attention_mask))
        found = [
            row[mask == number].tolist()
            for row, mask in zip(other.inputs, other.attention_mask)
            for number in range(1, int(mask.max()) + 1)
        ]
        assert sorted(found) == texts
        assert (other.targets[other.attention_mask == 0] == IGNORE_INDEX).all()
        assert other.inputs.shape[1] <= 40


def test_the_last_target_of_one_text_is_its_end_not_the_next_text(byte_tokenizer):
    packed = InstructionExamples(
        [entry("a", "b"), entry("c", "d")], byte_tokenizer, template=PLAIN, packing=True
    )
    batch = packed.batch([0, 1])
    assert batch.inputs.shape[0] == 1
    last_of_first = int((batch.attention_mask[0] == 1).sum()) - 1
    assert batch.targets[0, last_of_first] == END


@pytest.mark.parametrize("packing", [False, True])
def test_the_share_of_padding_is_that_of_the_batches(byte_tokenizer, packing):
    entries = [entry("a" * (i * 7 % 11), "b") for i in range(20)]
    examples = InstructionExamples(entries, byte_tokenizer, template=PLAIN, packing=packing, max_length=30)
    loader = BatchLoader(examples, batch_size=6, seed=1)
    masks = [batch.attention_mask != 0 for batch in loader]
    expected = 1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)
    assert examples.padding_share(loader.indices(0)) == pytest.approx(expected)


def padding_of(entries, tokenizer, *, packing, buckets, max_length):
    alpaca = template("alpaca")
    examples = InstructionExamples(
        entries, tokenizer, template=alpaca, packing=packing, max_length=max_length
    )
    loader = BatchLoader(examples, batch_size=8, seed=123, bucket_by_length=buckets)
    return examples.padding_share(loader.indices(0))


@pytest.mark.parametrize(("packing", "max_length"), [(False, 1024), (True, 1024), (True, 128)])
def test_on_the_books_data_a_fifth_of_its_batches_is_padding_and_hardly_any_of_ours(
    real_data, packing, max_length
):
    bpe = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(bpe / "encoder.json", bpe / "vocab.bpe")
    train = split_in_order(read_instructions(real_data / "instruction" / "instruction-data.json")).train
    assert len(train) == 935
    books = padding_of(train, tokenizer, packing=False, buckets=False, max_length=1024)
    assert books == pytest.approx(0.19, abs=0.01)  # the book's shuffled batches of 8
    ours = padding_of(train, tokenizer, packing=packing, buckets=not packing, max_length=max_length)
    assert ours < 0.05


@pytest.mark.parametrize("packing", [False, True])
def test_hardly_any_padding_with_lengths_drawn_at_random(byte_tokenizer, packing):
    lengths = np.random.default_rng(0).integers(1, 300, size=800)
    entries = [entry("a" * int(n), "b") for n in lengths]
    padded = padding_of(entries, byte_tokenizer, packing=False, buckets=False, max_length=512)
    ours = padding_of(entries, byte_tokenizer, packing=packing, buckets=not packing, max_length=2048)
    assert padded > 0.2
    assert ours < 0.05


# --- conversations

CHAT = Instruction(instruction="two", input="", output="2", system="count", history=(Exchange("one", "1"),))


def learnt(batch):
    return batch.targets[0][batch.targets[0] != IGNORE_INDEX].tolist()


def test_every_answer_of_a_conversation_carries_loss(byte_tokenizer):
    batch = InstructionExamples([CHAT], byte_tokenizer, template=PLAIN).batch([0])
    assert learnt(batch) == [*b" 1", END, *b" 2", END]
    text = byte_tokenizer.decode(batch.inputs[0].tolist())
    assert text == "count\nQ: one\nA: 1\nQ: two\nA: 2"


def test_or_only_the_last_one(byte_tokenizer):
    examples = InstructionExamples([CHAT], byte_tokenizer, template=PLAIN, last_turn_only=True)
    assert learnt(examples.batch([0])) == [*b" 2", END]
    unmasked = InstructionExamples(
        [CHAT], byte_tokenizer, template=PLAIN, last_turn_only=True, mask_instruction=False
    )
    assert learnt(unmasked.batch([0])) == [*b"\nQ: two\nA: 2", END]


def test_a_conversation_cut_before_its_last_answer_keeps_the_earlier_ones(byte_tokenizer):
    long = Instruction(instruction="x" * 50, input="", output="2", history=(Exchange("one", "1"),))
    examples = InstructionExamples([long], byte_tokenizer, template=PLAIN, max_length=30)
    assert (examples.n_truncated, examples.n_left_out) == (1, 0)
    assert learnt(examples.batch([0])) == [*b" 1", END]
    with pytest.raises(DataError, match="each of the 1 prompts fills"):
        InstructionExamples([long], byte_tokenizer, template=PLAIN, max_length=30, last_turn_only=True)
