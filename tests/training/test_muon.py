"""Muon: agreement with torch's own, what orthogonalizing does, gradients that are missing or zero."""

import math

import pytest
import torch
from torch import nn

from scratchlm.training import muon as muon_module
from scratchlm.training.muon import ITERATIONS, Muon, orthogonalize

SHAPES = [(16, 16), (16, 16), (64, 16), (16, 64), (16, 16), (64, 16)]


def weights_of(seed):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(weights, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


def take_steps(*sides):
    for step in range(5):
        for weights, optimizer in sides:
            give_gradients(weights, step)
            optimizer.step()


def test_steps_equal_torchs_muon_up_to_the_rounding_of_bfloat16():
    ours, theirs = weights_of(0), weights_of(0)
    start = [weight.detach().clone() for weight in ours]
    optimizer = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    take_steps((ours, optimizer), (theirs, reference))
    for weight, other, first in zip(ours, theirs, start):
        moved = (other - first).norm()
        assert (weight - other).norm() < 0.02 * moved  # both round in bfloat16, in another order
        assert moved > 0.1
        torch.testing.assert_close(
            optimizer.state[weight]["momentum_buffer"], reference.state[other]["momentum_buffer"]
        )


@pytest.mark.parametrize("stacked", [0, 128])
def test_steps_equal_torchs_muon_in_float32(monkeypatch, stacked):
    monkeypatch.setattr(muon_module, "STACKED_WIDTH", stacked)
    monkeypatch.setattr(muon_module, "_kernel_dtype", lambda matrices: matrices.dtype)
    monkeypatch.setattr(
        torch.Tensor, "bfloat16", lambda tensor: tensor.clone()
    )  # torch's, without its rounding
    ours, theirs = weights_of(0), weights_of(0)
    optimizer = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    take_steps((ours, optimizer), (theirs, reference))
    for weight, other in zip(ours, theirs):
        torch.testing.assert_close(weight, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("iteration", ITERATIONS)
@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 48, 12), (2, 12, 48)])
def test_orthogonalizing_brings_singular_values_near_one_and_keeps_directions(shape, iteration):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalize(matrices, iteration)
    inner = u.mT @ result @ vh.mT  # diagonal where the directions are kept
    diagonal = inner.diagonal(dim1=-2, dim2=-1)
    large = s > 0.1 * s.max()  # tiny ones need more than five iterations
    assert ((diagonal > 0.5) & (diagonal < 1.35))[large].all()
    assert (inner - torch.diag_embed(diagonal)).abs().max() < 0.05


def test_polar_express_takes_the_best_polynomial_at_each_step():
    """Chebyshev: of all a x + b x^3 + c x^5, the best errs by the same at four places, with alternating sign."""
    low, high = 0.01, 1.0
    for a, b, c in ITERATIONS["polar-express"]:
        turns = sorted(
            math.sqrt((-3 * b + sign * math.sqrt(9 * b * b - 20 * a * c)) / (10 * c)) for sign in (-1, 1)
        )
        errors = [a * x + b * x**3 + c * x**5 - 1 for x in (low, *turns, high)]
        assert low < turns[0] < turns[1] < high
        assert errors == pytest.approx([-abs(errors[0]), abs(errors[0])] * 2, abs=2e-3)
        low, high = 1 - abs(errors[0]), 1 + abs(errors[0])
    assert (low, high) == (pytest.approx(0.731, abs=2e-3), pytest.approx(1.269, abs=2e-3))


def test_a_gradient_of_zeros_moves_nothing_and_stays_finite():
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weight, torch.ones(4, 4))


def test_a_weight_without_a_gradient_is_left_alone():
    still, moving = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    moving.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([still, moving], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(still, torch.ones(4, 4))
    assert not torch.equal(moving, torch.ones(4, 4))
    assert not optimizer.state[still]["momentum_buffer"].any()
