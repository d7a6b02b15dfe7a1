"""The preference task agrees with a plain calculation with two models; its first loss and its metrics."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.seed import seed_everything
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.preference_batches import PreferenceExamples
from scratchlm.data.preference_rows import Preference
from scratchlm.data.prompt_templates import template
from scratchlm.finetuning.preference_losses import USUAL_BETA
from scratchlm.finetuning.preference_task import PreferenceTask, add_reference_log_probs, batch_log_probs
from tests.tolerances import n_roundings, rounding

KINDS = list(USUAL_BETA)
PAIRS = [
    Preference(instruction="say", input=f"ba {word}", chosen=f"{word} now", rejected=f"see {word} at home")
    for word in ("ce", "di", "fo gu ka", "le", "mi no", "pu", "ba ba ba ba")
]


def examples_of(base_tokenizer):
    return PreferenceExamples(PAIRS, base_tokenizer, template=template("plain"))


@pytest.fixture
def policy(tiny_model):
    """The base, moved a little away from itself."""
    moved = copy.deepcopy(tiny_model).eval()
    seed_everything(1)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return moved


@pytest.fixture
def examples(tiny_model, base_tokenizer):
    """Pairs about which the base has been asked."""
    found = examples_of(base_tokenizer)
    add_reference_log_probs(found, tiny_model, batch_size=3)
    return found


def task_of(kind, **settings):
    return PreferenceTask(kind, label_smoothing=0.1 if kind == "cdpo" else 0.0, **settings)


def plain_log_prob(model, tokenizer, pair, answer, *, per_token):
    """One answer on its own, without padding: log-softmax of all logits, picked and added up."""
    words = template("plain")
    prompt = tokenizer.encode(words.prompt(pair.with_answer("")))
    ids = torch.tensor(
        [[*prompt, *tokenizer.encode(words.answer(pair.with_answer(answer))), tokenizer.end_of_text_id]]
    )
    log_probs = model(ids[:, :-1]).log_softmax(-1)[0].gather(1, ids[0, 1:, None])[len(prompt) - 1 :]
    return log_probs.mean() if per_token else log_probs.sum()


def plain_loss(kind, policy, reference, tokenizer):
    """Every loss as its paper writes it, over all pairs, with both models at hand."""
    total = torch.zeros(())
    beta = USUAL_BETA[kind]
    per_token = kind in ("orpo", "simpo")
    for pair in PAIRS:
        w, r = (
            plain_log_prob(policy, tokenizer, pair, a, per_token=per_token)
            for a in (pair.chosen, pair.rejected)
        )
        with torch.no_grad():
            rw, rl = (
                plain_log_prob(reference, tokenizer, pair, a, per_token=False)
                for a in (pair.chosen, pair.rejected)
            )
        h = (w - rw) - (r - rl)
        if kind == "dpo":
            total = total - torch.log(torch.sigmoid(beta * h))
        elif kind == "cdpo":
            total = (
                total - 0.9 * torch.log(torch.sigmoid(beta * h)) - 0.1 * torch.log(torch.sigmoid(-beta * h))
            )
        elif kind == "ipo":
            total = total + (h - 1 / (2 * beta)) ** 2
        elif kind == "orpo":
            odds = (w.exp() / (1 - w.exp())) / (r.exp() / (1 - r.exp()))
            total = total - w - beta * torch.log(torch.sigmoid(torch.log(odds)))
        else:
            total = total - torch.log(torch.sigmoid(beta * w - beta * r - 1.0))
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_a_plain_calculation(
    kind, policy, tiny_model, base_tokenizer, examples
):
    expected = plain_loss(kind, policy, tiny_model.eval(), base_tokenizer)
    gradients = torch.autograd.grad(expected, list(policy.parameters()))
    batch = examples.batch(range(len(PAIRS)))
    loss = task_of(kind).loss_sum(policy, batch)
    n = n_roundings(policy.config) + policy.config.vocab_size  # to the logits, and the softmax over them
    beta, per_token = USUAL_BETA[kind], kind in ("orpo", "simpo")
    with torch.no_grad():
        nats = sum(
            abs(plain_log_prob(policy, base_tokenizer, pair, answer, per_token=per_token).item())
            for pair in PAIRS
            for answer in (pair.chosen, pair.rejected)
        )
    slope = {"ipo": 1 / beta, "orpo": 1 + 2 * beta}.get(
        kind, beta
    )  # of a loss over an answer's nats, at its steepest
    torch.testing.assert_close(loss, expected, rtol=0, atol=rounding(slope * nats, n=n))
    loss.backward()
    largest = max(gradient.abs().max().item() for gradient in gradients)
    allowed = rounding(
        largest, n=3 * n, condition=1 + nats / len(PAIRS)
    )  # the slope itself has an answer's error
    for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("kind", "expected"), [("dpo", math.log(2)), ("cdpo", math.log(2)), ("ipo", 1 / (4 * 0.1**2))]
)
def test_the_first_loss_is_the_one_that_the_formula_gives_for_no_change(kind, expected, tiny_model, examples):
    batch = examples.batch(range(len(PAIRS)))
    loss = task_of(kind).loss_sum(tiny_model.eval(), batch) / batch.n_targets
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    if kind != "ipo":
        assert round(loss.item(), 4) == 0.6931


def test_the_reference_says_what_the_model_says_without_dropout(tiny_model, base_tokenizer):
    tiny_model.train()
    found = examples_of(base_tokenizer)
    add_reference_log_probs(found, tiny_model, batch_size=2)
    assert tiny_model.training
    batch = found.batch([4, 0])
    with torch.no_grad():
        logits = tiny_model.eval()(batch.inputs, attention_mask=batch.attention_mask)
    expected = -F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    torch.testing.assert_close(batch.reference, expected.view(batch.targets.shape), rtol=1e-5, atol=1e-5)
    again = examples_of(base_tokenizer)
    add_reference_log_probs(again, tiny_model, batch_size=2)
    assert torch.equal(again.batch([4, 0]).reference, batch.reference)


def test_asking_the_reference_leaves_no_gradient(tiny_model, base_tokenizer):
    found = examples_of(base_tokenizer)
    add_reference_log_probs(found, tiny_model, batch_size=2)
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
    assert not found.batch([0]).reference.requires_grad


def loader(examples, batch_size):
    return BatchLoader(examples, batch_size=batch_size, shuffle=False)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_do_not_depend_on_the_batches(kind, policy, examples):
    one, other = (task_of(kind).metrics(policy, loader(examples, size)) for size in (7, 2))
    # Rewards and losses are differences of answers' nats, so what counts is the size of those.
    with torch.no_grad():
        nats = batch_log_probs(policy, examples.batch(range(len(PAIRS)))).sum(dim=-1).abs().max().item()
    slope = max(1.0, 1 / USUAL_BETA[kind]) if kind == "ipo" else max(1.0, USUAL_BETA[kind])
    allowed = rounding(slope * nats, n=n_roundings(policy.config) + policy.config.vocab_size)
    assert one == pytest.approx(other, rel=0, abs=allowed)
    assert ("kl" in one) == (kind in ("dpo", "cdpo", "ipo"))


def test_figures_are_means_over_the_pairs(policy, tiny_model, base_tokenizer, examples):
    found = PreferenceTask("dpo").metrics(policy, loader(examples, 3))
    rewards = []
    with torch.no_grad():
        for pair in PAIRS:
            rewards.append(
                [
                    0.1 * (plain_log_prob(policy, base_tokenizer, pair, answer, per_token=False)
                    - plain_log_prob(tiny_model.eval(), base_tokenizer, pair, answer, per_token=False)).item()
                    for answer in (pair.chosen, pair.rejected)
                ]
            )  # fmt: skip
    chosen, rejected = (sum(column) / len(PAIRS) for column in zip(*rewards, strict=True))
    assert found["chosen_reward"] == pytest.approx(chosen, abs=1e-5)
    assert found["rejected_reward"] == pytest.approx(rejected, abs=1e-5)
    assert found["reward_margin"] == pytest.approx(chosen - rejected, abs=1e-5)
    assert found["accuracy"] == sum(w > r for w, r in rewards) / len(PAIRS)
    assert found["loss"] == pytest.approx(
        sum(math.log1p(math.exp(r - w)) for w, r in rewards) / len(PAIRS), rel=1e-5
    )


def test_the_reference_itself_has_no_reward_no_kl_and_guesses(tiny_model, examples):
    found = PreferenceTask("dpo").metrics(tiny_model, loader(examples, 3))  # the batches it was asked in
    assert found["kl"] == pytest.approx(0.0, abs=1e-10)
    assert found["reward_margin"] == pytest.approx(0.0, abs=1e-6)


def test_kl_grows_with_the_distance_and_is_the_divergence_for_the_references_own_answers(
    policy, tiny_model, examples
):
    """Over all next tokens, weighed by the reference, the estimator's mean is exactly the KL divergence."""
    near, far = PreferenceTask("dpo"), copy.deepcopy(policy)
    with torch.no_grad():
        for parameter, start in zip(far.parameters(), tiny_model.parameters(), strict=True):
            parameter.copy_(start + 3 * (parameter - start))
    assert 0 < near.metrics(policy, loader(examples, 7))["kl"] < near.metrics(far, loader(examples, 7))["kl"]
    with torch.no_grad():
        ids = examples.batch([0]).inputs
        p, q = (model.eval()(ids).double().log_softmax(-1) for model in (tiny_model, policy))
    ratio = q - p
    k3 = (p.exp() * (ratio.expm1() - ratio)).sum(-1)
    torch.testing.assert_close(k3, F.kl_div(q, p, log_target=True, reduction="none").sum(-1))


def test_the_head_sees_only_what_has_a_target(policy, examples, monkeypatch):
    seen = []
    policy.out_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    batch = examples.batch([0, 3])
    found = batch_log_probs(policy, batch)
    assert seen == [(int((batch.targets != -100).sum()), policy.config.emb_dim)]
    assert (found[batch.targets == -100] == 0).all()


def test_a_loss_with_a_reference_does_not_go_without(policy, base_tokenizer):
    batch = examples_of(base_tokenizer).batch([0])
    with pytest.raises(DataError, match="the loss dpo needs the reference's log-probabilities; call"):
        PreferenceTask("dpo").loss_sum(policy, batch)
    assert PreferenceTask("orpo").loss_sum(policy, batch).isfinite()


def test_per_token_means_are_a_choice_for_dpo(policy, examples):
    batch = examples.batch([0, 1])
    sums, means = (PreferenceTask("dpo", per_token=p).loss_sum(policy, batch) for p in (False, True))
    assert sums.item() != pytest.approx(means.item(), rel=1e-3)
    assert abs(means.item() / 2 - math.log(2)) < abs(sums.item() / 2 - math.log(2))


def test_no_pair_has_no_figures(policy):
    with pytest.raises(DataError, match="there is no pair to evaluate"):
        PreferenceTask("dpo").metrics(policy, [])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("dpo", {"label_smoothing": 0.1}, "needs a label_smoothing, got 0.1 with dpo"),
        ("cdpo", {}, "needs a label_smoothing, got 0.0 with cdpo"),
        ("cdpo", {"label_smoothing": 0.7}, "below 0.5, got 0.7"),
        ("ipo", {"beta": 0.0}, "beta must be above 0"),
        ("simpo", {"margin": -1.0}, "margin must be at least 0"),
    ],
)
def test_settings_of_another_loss_are_refused(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        PreferenceTask(kind, **settings)


def test_figures_need_no_float64_of_the_device(policy, examples, monkeypatch):
    """Apple's GPU has none: only what was brought to the CPU may be turned into it."""
    on_cpu: list[torch.Tensor] = []
    real_double = torch.Tensor.double

    def cpu(self):
        on_cpu.append(self)
        return self

    def double(self):
        assert any(self is one for one in on_cpu), "float64 on the device"
        return real_double(self)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch.Tensor, "double", double)
    assert "kl" in task_of("dpo").metrics(policy, loader(examples, 2))
    assert on_cpu
