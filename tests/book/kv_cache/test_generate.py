"""Generation with a cache under the package's names."""

import torch

from scratchlm.book import ch04
from scratchlm.book.kv_cache import generate, gpt2
from scratchlm.book.kv_cache_batched import generate as batched

CFG = {
    "vocab_size": 30,
    "context_length": 12,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
    "kv_window_size": 4,
}
IDS = torch.tensor([[3, 1, 4], [1, 5, 9]])


def make() -> gpt2.GPTModel:
    torch.manual_seed(3)
    return gpt2.GPTModel(CFG).eval()


def test_with_and_without_a_cache_the_ids_are_chapter_4s():
    model = make()
    expected = ch04.generate_text_simple(model, IDS, 7, 12)
    for use_cache in (True, False):
        assert generate.generate_text_simple(model, IDS, 7, use_cache=use_cache).equal(expected)
    assert batched.generate_text_simple is generate.generate_text_simple


def test_a_stream_gives_the_same_ids_one_step_at_a_time():
    model = make()
    steps = list(generate.generate_text_simple_stream(model, IDS, 7))
    assert [step.shape for step in steps] == [(2, 1)] * 7
    assert torch.cat([IDS, *steps], dim=1).equal(generate.generate_text_simple(model, IDS, 7))


def test_a_stream_ends_before_the_end_token():
    model = make()
    ids = torch.cat(list(generate.generate_text_simple_stream(model, IDS[:1], 7)), dim=1)[0].tolist()
    end = ids[3]
    steps = list(generate.generate_text_simple_stream(model, IDS[:1], 7, eos_token_id=end))
    assert [int(step) for step in steps] == ids[: ids.index(end)]
