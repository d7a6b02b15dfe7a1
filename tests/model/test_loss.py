from __future__ import annotations

import math

import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.model import cross_entropy_sum
from scratchlm.model.loss import head_cross_entropy


def test_sum_and_count_are_over_targets_that_are_not_ignored(generator):
    logits = torch.randn(2, 3, 5, generator=generator)
    targets = torch.tensor([[1, -100, 4], [-100, -100, 0]])
    loss_sum, n_targets = cross_entropy_sum(logits, targets)
    log_probs = logits.log_softmax(dim=-1)
    expected = -(log_probs[0, 0, 1] + log_probs[0, 2, 4] + log_probs[1, 2, 0])
    torch.testing.assert_close(loss_sum, expected)
    assert n_targets == 3


def test_the_sum_over_a_batch_is_the_sum_over_its_parts(generator):
    """What makes gradient accumulation equal to one large batch."""
    logits, targets = torch.randn(4, 6, 9, generator=generator), torch.randint(9, (4, 6), generator=generator)
    targets[0, 2:] = -100
    whole, n_whole = cross_entropy_sum(logits, targets)
    parts = [cross_entropy_sum(logits[i : i + 1], targets[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(whole, torch.stack([part for part, _ in parts]).sum())
    assert n_whole == sum(n for _, n in parts)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_nothing_but_ignored_targets_is_zero_over_zero_targets(label_smoothing):
    logits = torch.randn(1, 3, 5, requires_grad=True)
    ignored = torch.full((1, 3), -100)
    loss_sum, n_targets = cross_entropy_sum(logits, ignored, label_smoothing=label_smoothing)
    loss_sum.backward()
    assert (loss_sum.item(), n_targets) == (0.0, 0)
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_label_smoothing_mixes_in_the_mean_surprise_over_all_tokens(generator):
    logits, targets = torch.randn(1, 2, 4, generator=generator), torch.tensor([[3, -100]])
    loss_sum, n_targets = cross_entropy_sum(logits, targets, label_smoothing=0.2)
    surprise = -logits[0, 0].log_softmax(dim=-1)
    torch.testing.assert_close(loss_sum, 0.8 * surprise[3] + 0.2 * surprise.mean())
    assert n_targets == 1


def test_another_ignored_index_can_be_chosen():
    loss_sum, n_targets = cross_entropy_sum(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]), ignore_index=0)
    assert n_targets == 1
    assert loss_sum.item() == pytest.approx(math.log(4))


def test_half_precision_logits_are_summed_in_float32():
    logits, targets = torch.zeros(1, 5000, 8, dtype=torch.bfloat16), torch.zeros(1, 5000, dtype=torch.long)
    assert cross_entropy_sum(logits, targets)[0].item() == pytest.approx(5000 * math.log(8), rel=1e-5)


def test_one_target_per_row_is_the_classification_loss(generator):
    logits, targets = torch.randn(3, 2, generator=generator), torch.tensor([0, 1, 1])
    expected = -logits.log_softmax(dim=-1)[torch.arange(3), targets].sum()
    torch.testing.assert_close(cross_entropy_sum(logits, targets)[0], expected)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(DataError, match=r"\(2, 3, 5\) and targets \(2,\); use logits\[:, -1\]"):
        cross_entropy_sum(torch.zeros(2, 3, 5), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_head_at_targets_only_has_the_loss_of_the_head_everywhere(generator, label_smoothing):
    states, head = torch.randn(2, 5, 6, generator=generator), torch.nn.Linear(6, 9, bias=False)
    targets = torch.tensor([[1, -100, -100, 3, 8], [-100, -100, -100, -100, 2]])
    seen = []
    head.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape)))
    expected, _ = cross_entropy_sum(head(states), targets, label_smoothing=label_smoothing)
    total = head_cross_entropy(states, head, targets, label_smoothing=label_smoothing)
    torch.testing.assert_close(total, expected)
    each = head_cross_entropy(
        states, head, targets, reduction="none", label_smoothing=label_smoothing, chunk_size=3
    )
    torch.testing.assert_close(each.sum(), expected)
    assert torch.equal(each == 0, targets == -100)
    assert seen == [(2, 5, 9), (4, 9), (3, 9), (1, 9)]


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_head_without_a_target_has_no_loss_and_a_gradient_of_zero(reduction):
    states, head = torch.ones(1, 3, 6, requires_grad=True), torch.nn.Linear(6, 9)
    found = head_cross_entropy(states, head, torch.full((1, 3), -100), reduction=reduction)
    found.sum().backward()
    assert found.sum().item() == 0
    assert states.grad is not None
    assert states.grad.abs().max() == 0
