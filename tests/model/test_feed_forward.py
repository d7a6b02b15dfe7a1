import torch

from scratchlm.model import FeedForward, GPTConfig


def test_every_position_is_transformed_by_itself(tiny_config, generator):
    layer = FeedForward(tiny_config)
    x = torch.randn(2, 5, 16, generator=generator)
    one_by_one = torch.stack([layer(x[:, t]) for t in range(5)], dim=1)
    torch.testing.assert_close(layer(x), one_by_one)


def test_the_books_dictionary_is_accepted_and_names_are_the_books():
    layer = FeedForward({"emb_dim": 8, "n_heads": 2})
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "layers.0.weight": (32, 8),
        "layers.0.bias": (32,),
        "layers.2.weight": (8, 32),
        "layers.2.bias": (8,),
    }


def test_one_layer_of_gpt2_small_has_the_books_number_of_parameters():
    with torch.device("meta"):
        layer = FeedForward(GPTConfig())
    assert sum(p.numel() for p in layer.parameters()) == 4_722_432  # the book, chapter 4, exercise 4.1
