"""Each rule and sampling step leaves the scores that transformers' processor leaves."""

import math

import pytest
import torch

from scratchlm.core import seed
from scratchlm.generation import penalties, samplers
from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import GenerationConfig

processors = pytest.importorskip(
    "transformers.generation.logits_process", reason="transformers is not installed"
)
V = 3000  # more than the head in which a nucleus is looked for first


def scores(number: int, spread: float) -> torch.Tensor:
    """Random scores in float64, so that no sum is close enough to a limit to be rounded across it."""
    return torch.randn(V, generator=seed.generator(number), dtype=torch.float64) * spread


STEPS = [
    (samplers.keep_top_k, "TopKLogitsWarper", [1, 7, 500, V]),
    (samplers.keep_top_p, "TopPLogitsWarper", [0.1, 0.5, 0.95, 0.9999]),
    (samplers.keep_min_p, "MinPLogitsWarper", [0.001, 0.05, 1.0]),
    (samplers.keep_typical, "TypicalLogitsWarper", [0.1, 0.5, 0.95, 0.9999]),
    (samplers.keep_epsilon, "EpsilonLogitsWarper", [1e-6, 3e-4, 0.05, 0.9]),
    (samplers.keep_eta, "EtaLogitsWarper", [1e-6, 3e-4, 0.05, 0.9]),
    (samplers.apply_temperature, "TemperatureLogitsWarper", [0.5, 1.7]),
]


@pytest.mark.parametrize(
    ("step", "name", "values"), STEPS, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("spread", [0.1, 2.0, 8.0])  # a flat, a usual and a peaked distribution
def test_the_tokens_that_survive_are_theirs(step, name, values, spread):
    for value in values:
        theirs = getattr(processors, name)(value)
        for number in range(5):
            logits = scores(number, spread)
            logits[:10] = -math.inf  # excluded by an earlier step
            expected = theirs(None, logits[None])[0]
            torch.testing.assert_close(step(logits, value).softmax(-1), expected.softmax(-1))
            assert torch.equal(step(logits, value).isfinite(), expected.isfinite())


def test_top_k_and_typical_keep_what_they_keep_among_ties():
    logits = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0, -3.0])
    for mass in (0.3, 0.6, 0.9):
        expected = processors.TypicalLogitsWarper(mass)(None, logits[None])[0]
        assert torch.equal(samplers.keep_typical(logits, mass), expected)
    # transformers keeps all ties at the border, so that more than k survive; here exactly k do
    assert samplers.keep_top_k(logits, 2).isfinite().tolist() == [True, True, False, False, False, False]


HISTORY = [5, 9, 7, 5, 9, 8, 3, 5, 9]
RULES = [
    (
        "RepetitionPenaltyLogitsProcessor",
        lambda s: penalties.penalize_repetition(s, HISTORY, 1.3),
        {"penalty": 1.3},
    ),
    (
        "SequenceBiasLogitsProcessor",
        lambda s: penalties.add_bias(s, {4: 2.5, 7: -3.0}),
        {"sequence_bias": {(4,): 2.5, (7,): -3.0}},
    ),
    (
        "NoRepeatNGramLogitsProcessor",
        lambda s: penalties.ban_repeated_ngrams(s, HISTORY, 3),
        {"ngram_size": 3},
    ),
    (
        "NoRepeatNGramLogitsProcessor",
        lambda s: penalties.ban_repeated_ngrams(s, HISTORY, 1),
        {"ngram_size": 1},
    ),
    (
        "NoRepeatNGramLogitsProcessor",
        lambda s: penalties.ban_repeated_ngrams(s, HISTORY[:2], 3),
        {"ngram_size": 3},
    ),
    (
        "SuppressTokensLogitsProcessor",
        lambda s: penalties.exclude(s, torch.tensor([3, 11])),
        {"suppress_tokens": [3, 11]},
    ),
]


@pytest.mark.parametrize(("name", "rule", "settings"), RULES, ids=range(len(RULES)))
def test_each_rule_gives_their_scores(name, rule, settings):
    history = HISTORY[:2] if name.startswith("NoRepeat") and rule is RULES[4][1] else HISTORY
    logits = torch.randn(50, generator=seed.generator(2)) * 3
    before = logits.clone()
    expected = getattr(processors, name)(**settings)(torch.tensor([history]), logits[None].clone())[0]
    torch.testing.assert_close(rule(logits), expected, atol=1e-6, rtol=1e-6)  # float32, one operation
    assert torch.equal(logits, before)


def test_the_whole_chain_equals_theirs_for_a_running_text():
    """Their processors, in the order in which transformers' generate applies them, at every step of a text."""
    config = GenerationConfig(
        logit_bias={4: 2.5, 7: -3.0},
        repetition_penalty=1.2,
        no_repeat_ngram=2,
        min_new_tokens=6,
        stop_ids=(0,),
        banned_ids=(11,),
        temperature=0.8,
        top_k=30,
        top_p=0.9,
        min_p=0.01,
        typical_p=0.95,
        epsilon_cutoff=0.001,
        eta_cutoff=0.002,
    )
    theirs = processors.LogitsProcessorList(
        [
            processors.SequenceBiasLogitsProcessor({(4,): 2.5, (7,): -3.0}),
            processors.RepetitionPenaltyLogitsProcessor(1.2),
            processors.NoRepeatNGramLogitsProcessor(2),
            processors.MinNewTokensLengthLogitsProcessor(len(HISTORY), 6, [0]),
            processors.SuppressTokensLogitsProcessor([11]),
            processors.TemperatureLogitsWarper(0.8),
            processors.TopKLogitsWarper(30),
            processors.TopPLogitsWarper(0.9),
            processors.MinPLogitsWarper(0.01),
            processors.TypicalLogitsWarper(0.95),
            processors.EpsilonLogitsWarper(0.001),
            processors.EtaLogitsWarper(0.002),
        ]
    )
    row = TokenChooser(config, HISTORY, generator=seed.generator(5), tokenizer=None)
    text = list(HISTORY)
    for number in range(20):
        logits = torch.randn(50, generator=seed.generator(number), dtype=torch.float64) * 3
        logits[0] = 9.0  # the end would be chosen, but for min_new_tokens
        expected = theirs(torch.tensor([text]), logits[None].clone())[0].softmax(-1)
        torch.testing.assert_close(row.distribution(logits), expected, atol=1e-9, rtol=1e-9)
        text.append(row.choose(logits).id)
    assert 0 not in text[len(HISTORY) : len(HISTORY) + 6]
    assert 0 in text[len(HISTORY) + 6 :]
