from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from scratchlm.generation.beam import beam_search
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.context import ContextWindow
from scratchlm.generation.generate import generate_ids
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers import WordTokenizer


def plain_next_logits(model: GPTModel, row: list[int]) -> torch.Tensor:
    """What a row's next-token scores are by definition: no batch, no cache, no padding."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([row[-model.config.context_length :]]))[0, -1]
    model.train(was_training)
    return logits


@pytest.mark.parametrize("use_cache", [True, False])
def test_scores_are_those_of_each_row_read_alone_also_beyond_the_context(tiny_model, use_cache):
    rows = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11]]
    window = ContextWindow(tiny_model, use_cache=use_cache, n_expected=20)
    for new in range(20):
        logits = window.next_logits(rows)
        expected = torch.stack([plain_next_logits(tiny_model, row) for row in rows])
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        rows = [[*row, (7 * new + i) % 61] for i, row in enumerate(rows)]


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_can_leave_and_change_places(tiny_model, use_cache):
    rows = [[1, 2, 3], [4], [5, 6]]
    window = ContextWindow(tiny_model, use_cache=use_cache, n_expected=5)
    window.next_logits(rows)
    window.keep_rows([2, 1])
    rows = [[5, 6, 50], [4, 51]]
    expected = torch.stack([plain_next_logits(tiny_model, row) for row in rows])
    torch.testing.assert_close(window.next_logits(rows), expected, rtol=1e-4, atol=1e-4)


def test_growing_beyond_what_was_expected_is_still_right(tiny_model):
    window, row = ContextWindow(tiny_model, use_cache=True, n_expected=2), [3]
    for token in range(8):
        logits = window.next_logits([row])
        torch.testing.assert_close(logits[0], plain_next_logits(tiny_model, row), rtol=1e-4, atol=1e-4)
        row = [*row, token]


def test_with_a_cache_only_the_new_token_is_read(tiny_model):
    widths = []
    tiny_model.tok_emb.register_forward_pre_hook(lambda _m, args: widths.append(args[0].shape[1]))
    window = ContextWindow(tiny_model, use_cache=True, n_expected=20)
    for length in range(9, 15):
        window.next_logits([list(range(length))])
    assert widths == [9, 1, 1, 1, 12, 12]  # twelve tokens fill the context; then all of it is read each time


@pytest.fixture
def n_read(tiny_model):
    """How many tokens the model has read."""
    counts = [0]

    def count(_module, args):
        counts[0] += args[0].numel()

    tiny_model.tok_emb.register_forward_pre_hook(count)
    return counts


@pytest.mark.parametrize("max_new_tokens", [4, 30])
def test_a_row_beyond_the_context_costs_the_others_nothing(tiny_model, n_read, max_new_tokens):
    prompts = [[i + 1, i + 2] for i in range(15)] + [[i % 61 for i in range(40)]]
    config = GenerationConfig(max_new_tokens=max_new_tokens)

    def read_by(some):
        before = n_read[0]
        found = generate_ids(tiny_model, some, config)
        return n_read[0] - before, [one.ids for one in found]

    short, short_ids = read_by(prompts[:-1])
    long, long_ids = read_by(prompts[-1:])
    together, ids = read_by(prompts)
    assert together == short + long
    assert ids == short_ids + long_ids


def test_rows_of_any_lengths_are_read_again_only_as_often_as_one_fills_the_context(tiny_model, n_read):
    prompts = [[7] * n for n in (1, 4, 7, 11, 12, 13)]
    generate_ids(tiny_model, prompts, GenerationConfig(max_new_tokens=9))
    alone = 0
    for prompt in prompts:
        before = n_read[0]
        generate_ids(tiny_model, [prompt], GenerationConfig(max_new_tokens=9))
        alone += n_read[0] - before
    assert (
        n_read[0] - alone <= alone + len(prompts) * len(prompts) * 12
    )  # each re-reading: a context of each row


def test_every_module_keeps_its_mode(tiny_model):
    tiny_model.trf_blocks[0].eval()
    before = [module.training for module in tiny_model.modules()]
    ContextWindow(tiny_model, use_cache=True, n_expected=1).next_logits([[1]])
    assert [module.training for module in tiny_model.modules()] == before


PADDED = 40  # ids that the model scores beyond the tokenizer's


@pytest.fixture
def padded_model(tiny_tokenizer) -> GPTModel:
    """A model that likes ids without a token best."""
    torch.manual_seed(0)
    n_ids = tiny_tokenizer.vocab_size + PADDED
    model = GPTModel(GPTConfig(vocab_size=n_ids, context_length=12, emb_dim=16, n_heads=4, n_layers=1)).eval()
    with torch.no_grad():
        model.out_head.weight[-PADDED:] *= 30
    return model


SETTINGS = [
    {},
    {"use_cache": False},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 2.0, "seed": 2, "top_k": 5},
    {"temperature": 1.0, "seed": 3, "top_p": 0.9},
    {"temperature": 1.0, "seed": 4, "min_p": 0.5},
    {"repetition_penalty": 1.3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_id_without_a_token_is_never_chosen(padded_model, tiny_tokenizer, settings):
    config = GenerationConfig(max_new_tokens=20, **settings)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]  # a batch, whose rows fill the context one after the other
    without = generate_ids(padded_model, prompts, config)
    assert (
        max(id_ for row in without for id_ in row.ids) >= tiny_tokenizer.vocab_size
    )  # else it proves nothing
    found = generate_ids(padded_model, prompts, config, tokenizer=tiny_tokenizer)
    assert max(id_ for row in found for id_ in row.ids) < tiny_tokenizer.vocab_size


def test_no_beam_goes_through_an_id_without_a_token(padded_model, tiny_tokenizer):
    config = GenerationConfig(max_new_tokens=6)
    beams = beam_search(padded_model, [1, 2], config, n_beams=4, tokenizer=tiny_tokenizer)
    assert len(beams) == 4
    assert max(id_ for beam in beams for id_ in beam.ids) < tiny_tokenizer.vocab_size


def test_there_are_no_more_beams_than_tokens(padded_model):
    """With one token a beam has one way to go; ids without a token fill up nothing."""
    tokenizer = WordTokenizer({"a": 0, "<|unk|>": 1, "<|endoftext|>": 2})
    beams = beam_search(padded_model, [1], GenerationConfig(max_new_tokens=1), n_beams=5, tokenizer=tokenizer)
    assert sorted(beam.ids for beam in beams) == [[0], [1], [2]]


def test_an_id_that_ends_a_text_needs_no_token(padded_model, tiny_tokenizer):
    best = generate_ids(padded_model, [[1, 2]], GenerationConfig(max_new_tokens=1))[0].ids
    assert best[0] >= tiny_tokenizer.vocab_size
    config = GenerationConfig(max_new_tokens=5, stop_ids=tuple(best))
    [found] = generate_ids(padded_model, [[1, 2]], config, tokenizer=tiny_tokenizer)
    assert found.finished_by == "stop_id"


def test_a_hole_in_the_vocabulary_is_never_chosen(padded_model, tiny_tokenizer):
    class WithHoles:
        vocab_size = padded_model.config.vocab_size
        unused_ids = range(50, vocab_size)
        special_tokens: ClassVar[dict[str, int]] = {}
        end_of_text_id = None
        stream_decoder = tiny_tokenizer.stream_decoder

    [found] = generate_ids(padded_model, [[1, 2]], GenerationConfig(max_new_tokens=8), tokenizer=WithHoles())
    assert max(found.ids) < 50
