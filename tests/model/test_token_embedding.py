"""The token embedding's gradient is torch's to the last bit, and takes memory only where it is not zero."""

import psutil
import torch
import torch.nn.functional as F

from scratchlm.core.memory import LARGEST_KEPT_BLOCK
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.model.token_embedding import TokenEmbedding

WIDTH = 64
LARGE = LARGEST_KEPT_BLOCK // 4 // WIDTH + 1  # tokens of the smallest matrix with a gradient of this kind


def test_vectors_and_gradients_are_torchs_to_the_last_bit(generator):
    embedding = TokenEmbedding(2 * LARGE, WIDTH)
    ids = torch.randint(20, (3, 50), generator=generator) * (LARGE // 10)  # each token several times
    wanted = torch.randn(3, 50, WIDTH, generator=generator)
    vectors = embedding(ids)
    assert vectors.grad_fn.name() == "_LookupBackward"
    expected = F.embedding(ids, weight := embedding.weight.detach().clone().requires_grad_())
    assert torch.equal(vectors, expected)
    vectors.backward(wanted)
    expected.backward(wanted)
    assert torch.equal(embedding.weight.grad, weight.grad)


def test_the_rows_of_other_tokens_take_no_memory(generator):
    embedding = TokenEmbedding(10 * LARGE, WIDTH)
    embedding(torch.randint(10 * LARGE, (8,), generator=generator)).sum().backward()
    embedding.zero_grad()
    before = psutil.Process().memory_info().rss
    embedding(torch.randint(10 * LARGE, (8,), generator=generator)).sum().backward()
    gradient = embedding.weight.grad
    assert gradient.nbytes > 10 * LARGEST_KEPT_BLOCK
    assert psutil.Process().memory_info().rss - before < gradient.nbytes / 10
    assert gradient.count_nonzero() == 8 * WIDTH


def test_a_tied_model_adds_it_to_the_heads_gradient(generator):
    """Against torch's own embedding in the same model."""
    config = GPTConfig(
        vocab_size=LARGE, context_length=8, emb_dim=WIDTH, n_heads=2, n_layers=1, drop_rate=0.0, tie_embeddings=True
    )  # fmt: skip
    ids = torch.randint(LARGE, (2, 8), generator=generator)
    gradients = []
    for forward in (TokenEmbedding.forward, torch.nn.Embedding.forward):
        torch.manual_seed(0)
        model = GPTModel(config)
        model.tok_emb.forward = forward.__get__(model.tok_emb)
        model(ids).square().mean().backward()
        gradients.append(model.tok_emb.weight.grad)
    assert torch.equal(*gradients)
