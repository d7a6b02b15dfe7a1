import torch

from scratchlm.model.config import GPTConfig
from scratchlm.model.swiglu import SwiGLU

CONFIG = GPTConfig(emb_dim=8, n_heads=2, ff_dim=12, feed_forward="swiglu", linear_bias=False)


def test_it_is_the_gated_product_of_the_paper(generator):
    layer = SwiGLU(CONFIG)
    x = torch.randn(2, 3, 8, generator=generator)
    gate, up, down = (part.weight for part in (layer.gate, layer.up, layer.down))
    gated = x @ gate.T
    expected = (gated * torch.sigmoid(gated) * (x @ up.T)) @ down.T
    torch.testing.assert_close(layer(x), expected)


def test_it_has_three_matrices_and_no_bias_when_configured_so():
    assert {name: tuple(p.shape) for name, p in SwiGLU(CONFIG).named_parameters()} == {
        "gate.weight": (12, 8),
        "up.weight": (12, 8),
        "down.weight": (8, 12),
    }
