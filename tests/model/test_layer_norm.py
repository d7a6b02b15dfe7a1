import torch

from scratchlm.model import LayerNorm


def test_every_vector_gets_mean_zero_and_variance_one(generator):
    x = 5 + 3 * torch.randn(4, 7, 32, generator=generator)
    normed = LayerNorm(32)(x)
    torch.testing.assert_close(normed.mean(dim=-1), torch.zeros(4, 7), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(dim=-1, unbiased=False), torch.ones(4, 7), atol=1e-4, rtol=0)


def test_scale_and_shift_are_applied_after_normalising(generator):
    x = torch.randn(2, 8, generator=generator)
    layer, plain = LayerNorm(8), LayerNorm(8)
    with torch.no_grad():
        layer.scale.copy_(torch.arange(8.0))
        layer.shift.fill_(2.0)
    torch.testing.assert_close(layer(x), torch.arange(8.0) * plain(x) + 2)


def test_both_kernels_agree_in_value_and_gradient(generator):
    x = 10 * torch.randn(5, 16, generator=generator)
    outcomes = []
    for kernels in ("torch", "manual"):
        layer, leaf = LayerNorm(16, kernels=kernels), x.clone().requires_grad_()
        out = layer(leaf)
        (out * torch.arange(16.0)).sum().backward()
        outcomes.append((out, leaf.grad, layer.scale.grad, layer.shift.grad))
    torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-5)


def test_a_constant_vector_becomes_zero_instead_of_nan():
    for kernels in ("torch", "manual"):
        assert LayerNorm(4, kernels=kernels)(torch.full((1, 4), 7.0)).tolist() == [[0.0] * 4]
