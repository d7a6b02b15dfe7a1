import torch

from scratchlm.model import GELU


def test_both_kernels_agree_in_value_and_gradient():
    outcomes = []
    for kernels in ("torch", "manual"):
        x = torch.linspace(-8, 8, 1001, requires_grad=True)
        y = GELU(kernels=kernels)(x)
        y.sum().backward()
        outcomes.append((y, x.grad))
    torch.testing.assert_close(*outcomes, rtol=1e-5, atol=2e-6)  # near 5 the tanh rounds to 1


def test_large_numbers_pass_and_small_ones_fade():
    assert GELU()(torch.tensor([-20.0, 20.0])).tolist() == [0.0, 20.0]


def test_slightly_negative_numbers_keep_a_gradient():
    x = torch.tensor([-0.1], requires_grad=True)
    GELU()(x).backward()
    assert x.grad is not None
    assert x.grad.item() > 0.3
