"""The preference losses agree with calculations by hand and have the properties in their papers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.finetuning.preference_losses import (
    dpo_losses,
    ipo_losses,
    log_odds,
    orpo_losses,
    response_log_probs,
    simpo_losses,
)

LOGITS = torch.tensor(
    [[[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [9.0, 9.0, 9.0]]] * 2, dtype=torch.float64
)
IDS = torch.tensor([[0, 2, 1, 0], [1, 1, 0, 2]])
MASK = torch.tensor([[False, False, True, True], [False, True, True, False]])
NATS = st.floats(-50, 0)


def log_prob(scores: list[float], taken: int) -> float:
    return scores[taken] - math.log(sum(math.exp(score) for score in scores))


def by_hand(row: int, mask: list[bool]) -> list[float]:
    logits, ids = LOGITS[row].tolist(), IDS[row].tolist()
    return [log_prob(logits[i - 1], ids[i]) for i in range(1, 4) if mask[i]]


@pytest.mark.parametrize("mask", [None, MASK])
def test_an_answers_log_probability_is_the_sum_of_its_ids(mask):
    rows = [[True] * 4] * 2 if mask is None else mask.tolist()
    expected = [by_hand(row, rows[row]) for row in range(2)]
    assert response_log_probs(LOGITS, IDS, mask).tolist() == pytest.approx([sum(row) for row in expected])
    assert response_log_probs(LOGITS, IDS, mask, per_token=True).tolist() == pytest.approx(
        [sum(row) / len(row) for row in expected]
    )


def test_what_the_mask_leaves_out_changes_nothing():
    changed = LOGITS.clone()
    changed[0, 0] = torch.tensor([7.0, -3.0, 0.0])
    changed[:, 3] = 0.5  # predicts what comes after the row
    assert torch.equal(response_log_probs(changed, IDS, MASK)[0], response_log_probs(LOGITS, IDS, MASK)[0])


def test_a_row_without_an_answer_has_no_mean():
    nothing = torch.zeros_like(MASK)
    nothing[:, 0] = True  # the first id is never predicted
    assert response_log_probs(LOGITS, IDS, nothing).tolist() == [0.0, 0.0]
    with pytest.raises(DataError, match="a row has no token of its answer"):
        response_log_probs(LOGITS, IDS, nothing, per_token=True)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"got \(2, 4, 3\), \(2, 3\) and None"):
        response_log_probs(LOGITS, IDS[:, 1:])
    with pytest.raises(DataError, match="give them the same length"):
        response_log_probs(LOGITS, IDS, MASK[:, 1:])


@settings(deadline=None)
@given(st.lists(NATS, min_size=4, max_size=4), st.floats(0.01, 2))
def test_the_loss_is_the_papers_equation_7(values, beta):
    policy_w, policy_l, reference_w, reference_l = values
    margin = beta * (policy_w - reference_w) - beta * (policy_l - reference_l)
    tensors = [torch.tensor([value], dtype=torch.float64) for value in values]
    losses, chosen, rejected = dpo_losses(*tensors, beta=beta)
    expected = math.log1p(math.exp(-margin)) if margin > 0 else -margin + math.log1p(math.exp(margin))
    assert losses.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert chosen.item() - rejected.item() == pytest.approx(margin / beta, rel=1e-9, abs=1e-9)


def test_a_policy_that_is_its_reference_has_a_loss_of_log_2():
    chosen, rejected = torch.randn(5), torch.randn(5)
    losses = dpo_losses(chosen, rejected, chosen, rejected, beta=0.3).losses
    torch.testing.assert_close(losses, torch.full((5,), math.log(2)))


def test_a_step_makes_the_chosen_answer_likelier_and_the_rejected_less():
    chosen, rejected = torch.tensor([-3.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    found = dpo_losses(chosen, rejected, torch.tensor([-3.0]), torch.tensor([-2.0]), beta=0.5)
    found.losses.sum().backward()
    assert chosen.grad.item() == pytest.approx(-0.25)  # -beta * sigmoid(0)
    assert rejected.grad.item() == pytest.approx(0.25)
    assert not found.chosen_log_ratios.requires_grad
    assert not found.rejected_log_ratios.requires_grad


def test_far_apart_answers_give_finite_losses_and_gradients():
    chosen = torch.tensor([-1e4, 0.0], requires_grad=True)
    losses = dpo_losses(chosen, torch.tensor([0.0, -1e4]), torch.zeros(2), torch.zeros(2), beta=1.0).losses
    losses.sum().backward()
    assert losses.tolist() == [1e4, 0.0]
    assert chosen.grad.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_beta_must_be_above_zero(beta):
    with pytest.raises(ConfigError, match="above 0"):
        dpo_losses(*[torch.zeros(1)] * 4, beta=beta)


# --- conservative DPO, IPO, ORPO, SimPO


def of(*values):
    return [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in values]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@settings(deadline=None)
@given(st.lists(NATS, min_size=4, max_size=4), st.floats(0.01, 0.49))
def test_label_smoothing_mixes_the_pair_with_its_reverse(values, share):
    right = dpo_losses(*of(*values)).losses.item()
    wrong = dpo_losses(*of(values[1], values[0], values[3], values[2])).losses.item()
    smoothed = dpo_losses(*of(*values), label_smoothing=share).losses.item()
    assert smoothed == pytest.approx((1 - share) * right + share * wrong, rel=1e-9)


def test_label_smoothing_has_its_best_margin_where_the_odds_are_those_of_the_labels():
    """With a share e of wrong labels, the best policy's reward margin is log((1 - e) / e); more costs again."""
    best = math.log(0.9 / 0.1) / 0.1
    chosen, *rest = of(best, 0.0, 0.0, 0.0)
    dpo_losses(chosen, *rest, label_smoothing=0.1).losses.backward()
    assert chosen.grad.item() == pytest.approx(0.0, abs=1e-12)


def test_a_label_smoothing_of_half_or_more_is_refused():
    with pytest.raises(ConfigError, match=r"below 0\.5, got 0\.5"):
        dpo_losses(*[torch.zeros(1)] * 4, label_smoothing=0.5)


@settings(deadline=None)
@given(NATS, NATS, st.floats(0.05, 2))
def test_ipo_is_the_papers_equation_17_and_has_its_best_where_the_ratios_differ_by_half_over_beta(w, r, beta):
    assert ipo_losses(*of(w, r), beta=beta).item() == pytest.approx((w - r - 0.5 / beta) ** 2)
    assert ipo_losses(*of(r + 0.5 / beta, r), beta=beta).item() == pytest.approx(0.0, abs=1e-18 + 1e-12)


@settings(deadline=None)
@given(st.floats(-8, -0.01), st.floats(-8, -0.01), st.floats(0.05, 2))
def test_orpo_is_the_loss_of_the_chosen_answer_and_the_odds_ratio(w, r, beta):
    odds = [math.exp(x) / (1 - math.exp(x)) for x in (w, r)]
    expected = -w - beta * math.log(sigmoid(math.log(odds[0] / odds[1])))
    assert orpo_losses(*of(w, r), beta=beta).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odds_are_finite_and_have_gradients_for_any_probability(dtype):
    log_probs = torch.tensor(
        [-200.0, -20.0, -math.log(2), -1e-3, -1e-5, 0.0], dtype=dtype, requires_grad=True
    )
    found = log_odds(log_probs)
    found.sum().backward()
    expected = [x - math.log(-math.expm1(x)) for x in (-200.0, -20.0, -math.log(2), -1e-3, -1e-5, -1e-6)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype))
    assert log_probs.grad.isfinite().all()


@settings(deadline=None)
@given(st.floats(-8, 0), st.floats(-8, 0), st.floats(0.1, 4), st.floats(0, 3))
def test_simpo_is_the_papers_equation_6(w, r, beta, margin):
    expected = -math.log(sigmoid(beta * w - beta * r - margin))
    assert simpo_losses(*of(w, r), beta=beta, margin=margin).item() == pytest.approx(expected, rel=1e-9)


def test_simpos_margin_may_not_be_negative():
    with pytest.raises(ConfigError, match=r"at least 0, got -1\.0"):
        simpo_losses(*of(0.0, 0.0), margin=-1.0)


@pytest.mark.parametrize("losses", [ipo_losses, orpo_losses, simpo_losses])
def test_every_loss_pulls_the_chosen_answer_up_and_the_rejected_one_down(losses):
    chosen, rejected = of(-1.0, -1.0)
    losses(chosen, rejected).backward()
    assert chosen.grad.item() < 0 < rejected.grad.item()


@pytest.mark.parametrize("losses", [ipo_losses, orpo_losses, simpo_losses])
def test_every_loss_wants_a_beta_above_zero(losses):
    with pytest.raises(ConfigError, match="above 0"):
        losses(*of(-1.0, -1.0), beta=0.0)


def test_half_precision_logits_are_summed_in_float32():
    logits, ids = torch.randn(2, 4, 5).bfloat16(), torch.tensor([[0, 1, 2, 3], [0, 4, 0, 1]])
    found = response_log_probs(logits, ids)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, response_log_probs(logits.float(), ids))
