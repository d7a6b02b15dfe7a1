import math

import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.finetuning.lora import LinearWithLoRA
from scratchlm.model import cross_entropy_sum
from scratchlm.model import loss as loss_page
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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_size", [1, 3, 7])
def test_in_parts_loss_and_gradients_are_those_of_torch_over_all_logits(
    generator, bias, label_smoothing, chunk_size
):
    """In float64, so that only rounding of 1e-16 is left between the two."""
    whole, parts = torch.nn.Linear(6, 9, bias=bias).double(), torch.nn.Linear(6, 9, bias=bias).double()
    parts.load_state_dict(whole.state_dict())
    states = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    targets = torch.tensor([[1, -100, 0, 3, 8], [5, 5, -100, 7, 2]])
    one, other = states.clone().requires_grad_(), states.clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        whole(one).flatten(0, 1), targets.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
    found = head_cross_entropy(other, parts, targets, label_smoothing=label_smoothing, chunk_size=chunk_size)
    (expected / 8).backward()
    (found / 8).backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(other.grad, one.grad)
    torch.testing.assert_close(parts.weight.grad, whole.weight.grad)
    if bias:
        torch.testing.assert_close(parts.bias.grad, whole.bias.grad)


@pytest.mark.parametrize("n_chunks", [1, 4])
def test_in_float32_the_difference_to_torch_is_rounding(generator, n_chunks):
    """1e-6 of the largest gradient: sums of 64 float32 products, each rounded to 6e-8, in another order."""
    head = torch.nn.Linear(32, 500, bias=False)
    states = torch.randn(64, 32, generator=generator, requires_grad=True)
    targets = torch.randint(500, (64,), generator=generator)
    expected = torch.nn.functional.cross_entropy(head(states), targets, reduction="sum")
    wanted = torch.autograd.grad(expected, [states, head.weight])
    found = head_cross_entropy(states, head, targets, chunk_size=64 // n_chunks)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(found, [states, head.weight]), wanted):
        assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_in_parts_agrees_with_torch_own_chunked_loss(generator):
    options = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    if options is None:
        pytest.skip("this torch has no chunked linear_cross_entropy; it came with 2.13")
    head = torch.nn.Linear(32, 500, bias=False)
    states = torch.randn(64, 32, generator=generator, requires_grad=True)
    targets = torch.randint(500, (64,), generator=generator)
    theirs = torch.nn.functional.linear_cross_entropy(
        states, head.weight, targets, reduction="sum", options=options(batch_chunk_size=16)
    )
    ours = head_cross_entropy(states, head, targets, chunk_size=16)
    wanted = torch.autograd.grad(theirs, [states, head.weight])
    for one, other in zip(torch.autograd.grad(ours, [states, head.weight]), wanted):
        assert (one - other).abs().max() <= 1e-6 * other.abs().max()  # rounding, as above


def test_a_frozen_head_gets_no_gradient_and_the_states_theirs(generator):
    head = torch.nn.Linear(6, 9).requires_grad_(False)
    states = torch.randn(8, 6, generator=generator, requires_grad=True)
    targets = torch.arange(8)
    head_cross_entropy(states, head, targets, chunk_size=3).backward()
    wanted = torch.autograd.grad(cross_entropy_sum(head(states), targets)[0], states)[0]
    torch.testing.assert_close(states.grad, wanted)
    assert head.weight.grad is None


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_any_head_and_each_targets_loss_work_in_parts_too(generator, reduction):
    """Not a plain linear layer: the parts' logits are computed again in the backward pass."""
    head = LinearWithLoRA(torch.nn.Linear(6, 9), rank=2, alpha=2)
    torch.nn.init.normal_(head.lora.B)
    states = torch.randn(8, 6, generator=generator, requires_grad=True)
    targets, factors = torch.arange(8), torch.arange(8.0)
    weights = factors if reduction == "none" else torch.tensor(2.0)
    results = []
    for chunk_size in (8, 3):
        found = head_cross_entropy(states, head, targets, reduction=reduction, chunk_size=chunk_size)
        results.append(
            torch.autograd.grad((found * weights).sum(), [states, head.lora.A, head.linear.weight])
        )
    for whole, parts in zip(*results):
        torch.testing.assert_close(parts, whole)


def test_no_more_logits_exist_at_once_than_the_limit(generator, monkeypatch):
    """Counted by torch itself: no tensor that an operator returns is larger than the limit."""
    monkeypatch.setattr(loss_page, "LOGITS_AT_ONCE", 1000)
    monkeypatch.setattr(loss_page, "POSITIONS_AT_ONCE", 5)
    head = torch.nn.Linear(4, 100)
    states = torch.randn(57, 4, generator=generator, requires_grad=True)
    targets = torch.randint(100, (57,), generator=generator)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(found) if torch.is_tensor(t))
            return found

    with Sizes():
        head_cross_entropy(states, head, targets).backward()
        with torch.no_grad():
            head_cross_entropy(states, head, targets)
    assert max(sizes) == 1000


def test_under_autocast_products_are_in_bfloat16_and_the_gradients_in_float32(generator):
    """Rounding to 8 bits (0.4 %) of the products; the sum over all parts is kept in float32."""
    head = torch.nn.Linear(32, 500)
    states = torch.randn(64, 32, generator=generator, requires_grad=True)
    targets = torch.randint(500, (64,), generator=generator)
    wanted = torch.autograd.grad(
        cross_entropy_sum(head(states), targets)[0], [states, head.weight, head.bias]
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head_cross_entropy(states, head, targets, chunk_size=16)
    found = torch.autograd.grad(loss, [states, head.weight, head.bias])
    for ours, exact in zip(found, wanted):
        assert ours.dtype == torch.float32
        assert 0 < (ours - exact).norm() < 0.01 * exact.norm()
