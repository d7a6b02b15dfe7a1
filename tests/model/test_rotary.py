import math

import torch

from scratchlm.model.config import GPTConfig, RopeScaling
from scratchlm.model.rotary import rotate, rotation

CONFIG = GPTConfig(emb_dim=16, n_heads=2, positions="rotary", context_length=64)


def test_each_pair_is_rotated_by_the_angle_of_the_formula():
    x = torch.zeros(1, 1, 4, 8)
    x[..., 1] = 1.0  # the first half of pair 1; its second half is coordinate 1 + 8 / 2
    turned = rotate(x, rotation(CONFIG, torch.arange(4)))
    for position in range(4):
        angle = position * 10000 ** (-2 * 1 / 8)
        torch.testing.assert_close(turned[0, 0, position, 1].item(), math.cos(angle), atol=1e-6, rtol=0)
        torch.testing.assert_close(turned[0, 0, position, 5].item(), math.sin(angle), atol=1e-6, rtol=0)


def test_a_products_value_depends_on_the_distance_only(generator):
    query, key = (torch.randn(1, 1, 1, 8, generator=generator) for _ in range(2))

    def product(query_at: int, key_at: int) -> torch.Tensor:
        at = [rotation(CONFIG, torch.tensor([position])) for position in (query_at, key_at)]
        return (rotate(query, at[0]) * rotate(key, at[1])).sum()

    torch.testing.assert_close(product(7, 3), product(44, 40), atol=1e-5, rtol=1e-5)
    assert abs(product(7, 3) - product(7, 6)) > 1e-3


def test_rotation_keeps_lengths(generator):
    x = torch.randn(2, 2, 9, 8, generator=generator)
    torch.testing.assert_close(rotate(x, rotation(CONFIG, torch.arange(9))).norm(dim=-1), x.norm(dim=-1))


def test_llama_3_scaling_keeps_fast_waves_and_slows_slow_ones():
    scaling = RopeScaling(factor=8.0, original_context_length=32)
    config = GPTConfig(emb_dim=256, n_heads=2, positions="rotary", rope_base=500000.0, rope_scaling=scaling)
    plain = GPTConfig(emb_dim=256, n_heads=2, positions="rotary", rope_base=500000.0)
    one = torch.tensor([1])
    cos, sin = rotation(config, one)
    plain_cos, plain_sin = rotation(plain, one)
    angles, plain_angles = torch.atan2(sin, cos)[0, :64], torch.atan2(plain_sin, plain_cos)[0, :64]
    ratio = plain_angles / angles
    torch.testing.assert_close(ratio[0].item(), 1.0, atol=1e-4, rtol=0)
    torch.testing.assert_close(ratio[-1].item(), 8.0, atol=1e-2, rtol=0)
    assert (ratio.diff() > -1e-3).all()
