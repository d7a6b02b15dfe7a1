import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.windows import TokenWindows
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 12), st.integers(1, 15))
def test_windows_are_those_of_the_books_loop(ids, context_length, stride):
    starts = range(0, len(ids) - context_length, stride)
    if len(starts) == 0:
        with pytest.raises(DataError):
            TokenWindows(ids, context_length=context_length, stride=stride)
        return
    windows = TokenWindows(ids, context_length=context_length, stride=stride)
    assert len(windows) == len(starts)
    expected = [(ids[s : s + context_length], ids[s + 1 : s + context_length + 1]) for s in starts]
    assert [(inputs.tolist(), targets.tolist()) for inputs, targets in windows] == expected
    batch = windows.batch(range(len(windows)))
    assert batch.inputs.tolist() == [inputs for inputs, _ in expected]
    assert batch.targets.tolist() == [targets for _, targets in expected]


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "int32", "int64"])
def test_a_batch_is_64_bit_whatever_the_array_holds(dtype):
    batch = TokenWindows(np.arange(40, dtype=dtype), context_length=4).batch(np.array([2, 0]))
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert batch.inputs.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert batch.inputs.is_contiguous()
    assert batch.attention_mask is None


@given(st.lists(st.integers(0, 4), min_size=9, max_size=60), st.integers(1, 8))
def test_documents_of_a_window_are_numbered_from_their_end_of_text_on(ids, context_length):
    windows = TokenWindows(ids, context_length=context_length, document_start=0)
    batch = windows.batch(range(len(windows)))
    for inputs, numbers in zip(batch.inputs.tolist(), batch.attention_mask.tolist(), strict=True):
        expected, number = [], 1
        for token in inputs:
            number += token == 0
            expected.append(number)
        assert numbers == expected
    assert batch.n_tokens == batch.inputs.numel()


def test_a_memory_map_is_viewed_and_never_copied(tmp_path):
    np.arange(1000, dtype="<u2").tofile(tmp_path / "ids.bin")
    ids = np.memmap(tmp_path / "ids.bin", dtype="<u2", mode="r")
    windows = TokenWindows(ids, context_length=8, stride=1)
    assert np.shares_memory(windows._rows, ids)
    assert windows.batch([991]).targets[0, -1] == 999


def test_a_batch_may_be_changed_without_changing_the_data():
    ids = np.arange(20)
    batch = TokenWindows(ids, context_length=4).batch([0])
    batch.inputs.zero_()
    assert batch.targets.tolist() == [[1, 2, 3, 4]]
    assert ids[1] == 1


def test_text_shorter_than_a_window_is_an_error_with_both_counts():
    with pytest.raises(DataError, match="context_length 8 need at least 9 tokens, got 8"):
        TokenWindows(range(8), context_length=8)
    assert len(TokenWindows(range(9), context_length=8)) == 1


def test_settings_and_ids_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        TokenWindows(range(9), context_length=0)
    with pytest.raises(ConfigError, match="at least 1"):
        TokenWindows(range(9), context_length=2, stride=0)
    with pytest.raises(DataError, match="one row of token ids, got shape"):
        TokenWindows([[1, 2, 3]], context_length=2)
    with pytest.raises(DataError, match="of float64"):
        TokenWindows([1.0, 2.0, 3.0], context_length=2)


def test_end_of_text_in_a_text_becomes_its_id_only_when_allowed(byte_tokenizer):
    text = "ab<|endoftext|>cd"
    assert 256 not in TokenWindows.from_text(text, byte_tokenizer, context_length=2).ids
    allowed = TokenWindows.from_text(
        text, byte_tokenizer, context_length=2, allowed_special={"<|endoftext|>"}
    )
    assert allowed.ids.tolist() == [97, 98, 256, 99, 100]


def test_the_verdict_begins_as_in_the_book(real_data):
    tokenizer = load_gpt2_tokenizer(
        real_data / "gpt2_bpe" / "encoder.json", real_data / "gpt2_bpe" / "vocab.bpe"
    )
    text = (real_data / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    windows = TokenWindows.from_text(text, tokenizer, context_length=4, stride=1)
    first = windows.batch([0])
    assert first.inputs.tolist() == [[40, 367, 2885, 1464]]  # the book, chapter 2
    assert first.targets.tolist() == [[367, 2885, 1464, 1807]]
    assert len(windows) == 5145 - 4
