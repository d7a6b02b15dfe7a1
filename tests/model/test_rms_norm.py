import pytest
import torch

from scratchlm.model.rms_norm import RMSNorm


@pytest.mark.parametrize("kernels", ["torch", "manual"])
def test_every_vector_gets_root_mean_square_one_before_the_scale(kernels, generator):
    x = torch.randn(3, 5, 16, generator=generator) * 7
    normed = RMSNorm(16, kernels=kernels)(x)
    torch.testing.assert_close(normed.square().mean(dim=-1), torch.ones(3, 5), atol=1e-4, rtol=0)


def test_the_written_out_formula_and_torchs_agree(generator):
    x = torch.randn(4, 16, generator=generator)
    plain, fused = RMSNorm(16, eps=1e-3, kernels="manual"), RMSNorm(16, eps=1e-3)
    with torch.no_grad():
        plain.scale.normal_(generator=generator)
        fused.scale.copy_(plain.scale)
    torch.testing.assert_close(plain(x), fused(x))


def test_a_vector_of_zeros_stays_zero():
    assert RMSNorm(4)(torch.zeros(2, 4)).tolist() == [[0.0] * 4] * 2
