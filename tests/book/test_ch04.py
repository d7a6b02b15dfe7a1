"""The figures that the book prints in chapter 4: parameters, the dummy's logits, the untrained sample."""

import pytest
import torch

from scratchlm import model as ours
from scratchlm.book import ch04
from scratchlm.core.errors import ConfigError
from scratchlm.model import GPTConfig, gpt, named_config

GPT_CONFIG_124M = {  # the book's dictionary
    "vocab_size": 50257,
    "context_length": 1024,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
# ids of "Every effort moves you" and "Every day holds a"
BATCH = torch.tensor([[6109, 3626, 6100, 345], [6109, 1110, 6622, 257]])


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("size", "n_untied", "n_tied", "size_mb"),
    [
        ("gpt2-small", 163_009_536, 124_412_160, 621.83),
        ("gpt2-medium", 406_212_608, 354_749_440, 1549.58),
        ("gpt2-large", 838_220_800, 773_891_840, 3197.56),
        ("gpt2-xl", 1_637_792_000, 1_557_380_800, 6247.68),
    ],
)
def test_each_size_has_the_books_number_of_parameters(size, n_untied, n_tied, size_mb):
    with torch.device("meta"):
        model = ch04.GPTModel(named_config(size))
    assert count(model) == n_untied
    assert count(model) - count(model.out_head) == n_tied
    assert round(count(model) * 4 / 2**20, 2) == size_mb


def test_half_blocks_have_the_books_number_of_parameters():
    with torch.device("meta"):
        block = ch04.TransformerBlock(GPT_CONFIG_124M)
    assert count(block.ff) == 4_722_432
    assert count(block.att) == 2_360_064
    assert block.drop_resid is block.drop_shortcut


def test_the_parts_are_the_models_own():
    for name in ("GELU", "FeedForward", "LayerNorm", "TransformerBlock"):
        assert getattr(ch04, name) is getattr(ours, name)


@pytest.mark.slow  # half a gigabyte of embeddings
def test_the_dummy_gives_the_books_logits():
    torch.manual_seed(123)
    logits = ch04.DummyGPTModel(GPT_CONFIG_124M)(BATCH)
    assert logits.shape == (2, 4, 50257)
    printed = torch.tensor([-1.2034, 0.3201, -0.7130])
    torch.testing.assert_close(logits[0, 0, :3], printed, atol=5.1e-5, rtol=0)


@pytest.mark.slow  # a model of GPT-2's size
def test_the_untrained_model_writes_the_books_sample(real_data):
    from scratchlm.tokenizers import load_gpt2_tokenizer

    torch.manual_seed(123)
    model = ch04.GPTModel(GPT_CONFIG_124M).eval()
    start = torch.tensor([[15496, 11, 314, 716]])  # "Hello, I am"
    ids = ch04.generate_text_simple(model, start, max_new_tokens=10, context_size=1024)
    new = [27018, 24086, 47843, 30961, 42348, 7267, 49706, 43231, 47062, 34657]
    assert ids.tolist() == [[15496, 11, 314, 716, *new]]
    assert ch04.generate_text_simple_cached(model, start, max_new_tokens=10).tolist() == ids.tolist()
    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    assert tokenizer.decode(ids[0, :10]) == "Hello, I am Featureiman Byeswickattribute argue"


def test_generation_takes_the_likeliest_token_of_what_fits_in_the_context(tiny_model):
    idx = torch.tensor([[1, 2, 3], [4, 5, 6]])
    expected = idx
    for _ in range(15):
        with torch.no_grad():
            logits = tiny_model(expected[:, -12:])[:, -1]
        expected = torch.cat([expected, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert ch04.generate_text_simple(tiny_model, idx, 15, 12).tolist() == expected.tolist()
    for use_cache in (True, False):
        found = ch04.generate_text_simple_cached(tiny_model, idx, 15, use_cache=use_cache)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("context_size", [1, 4, 11, 12, 20, None])
def test_with_and_without_a_cache_the_context_size_means_the_same(tiny_model, context_size):
    idx = torch.tensor([[1, 2, 3, 4, 5, 6]])
    found = ch04.generate_text_simple_cached(tiny_model, idx, 4, context_size)
    assert torch.equal(found, ch04.generate_text_simple(tiny_model, idx, 4, min(context_size or 12, 12)))


def test_no_new_tokens_are_no_new_tokens(tiny_model):
    idx = torch.tensor([[1, 2, 3]])
    assert torch.equal(ch04.generate_text_simple(tiny_model, idx, 0, 12), idx)
    assert torch.equal(ch04.generate_text_simple_cached(tiny_model, idx, 0), idx)


def test_generation_leaves_the_mode_as_it_was(tiny_model):
    idx = torch.tensor([[1, 2, 3]])
    for is_training in (True, False):
        tiny_model.train(is_training)
        ch04.generate_text_simple(tiny_model, idx, 2, 12)
        for context_size in (2, 12):
            ch04.generate_text_simple_cached(tiny_model, idx, 2, context_size)
        assert all(module.training is is_training for module in tiny_model.modules())


def test_any_model_that_gives_logits_can_generate():
    torch.manual_seed(0)
    dummy = ch04.DummyGPTModel(GPTConfig(vocab_size=9, context_length=4, emb_dim=8, n_heads=2, n_layers=1))
    assert ch04.generate_text_simple(dummy, torch.tensor([[1], [2]]), 6, 4).shape == (2, 7)


def test_ids_may_be_named_as_in_the_book():
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=9, context_length=4, emb_dim=8, n_heads=2, n_layers=1)
    model = ch04.GPTModel(config).eval()
    ids = torch.tensor([[1, 2, 3]])
    assert model(in_idx=ids).equal(model(ids))
    assert isinstance(model, gpt.GPTModel)


def test_the_books_model_is_ours_weight_for_weight():
    config = GPTConfig(vocab_size=9, context_length=4, emb_dim=8, n_heads=2, n_layers=2)
    models = []
    for make in (ch04.GPTModel, gpt.GPTModel):
        torch.manual_seed(5)
        models.append(make(config).eval())
    book, ours = models
    assert book.state_dict().keys() == ours.state_dict().keys()
    ids = torch.tensor([[1, 2, 3]])
    assert book(ids).equal(ours(ids))


@pytest.mark.parametrize("size", [0, -1])
def test_a_context_size_below_1_is_refused(tiny_model, size):
    """Python would take 0 for everything and -1 for "all but the first"."""
    with pytest.raises(ConfigError, match=f"at least 1, got {size}"):
        ch04.generate_text_simple(tiny_model, torch.tensor([[1, 2]]), 1, size)
