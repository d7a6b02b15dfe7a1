import math

import pytest
import torch

from scratchlm.core.errors import ConfigError
from scratchlm.generation.best_of import best_of
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate, generate_ids

PROMPT = [3, 1, 4]
SETTINGS = {"max_new_tokens": 5, "temperature": 1.5, "seed": 0, "stop_ids": (7,)}


def test_the_most_likely_of_the_drawn_texts_comes_first(tiny_model):
    texts = best_of(tiny_model, PROMPT, GenerationConfig(best_of=6, n_best=6, **SETTINGS))
    drawn = generate_ids(tiny_model, [PROMPT] * 6, GenerationConfig(**SETTINGS))
    assert sorted(text.ids for text in texts) == sorted(text.ids for text in drawn)
    assert len({tuple(text.ids) for text in texts}) > 1
    scores = [text.score for text in texts]
    assert scores == sorted(scores, reverse=True)
    assert best_of(tiny_model, PROMPT, GenerationConfig(best_of=6, **SETTINGS)) == texts[:1]


def test_the_score_is_the_models_mean_log_probability_with_the_stop_id(tiny_model):
    for text in best_of(tiny_model, PROMPT, GenerationConfig(best_of=8, n_best=8, **SETTINGS)):
        ids = [*PROMPT, *text.ids, *([7] if text.finished_by == "stop_id" else [])]
        with torch.no_grad():
            log_probs = tiny_model.eval()(torch.tensor([ids])).log_softmax(-1)[0, 2:-1]
        own = log_probs.gather(1, torch.tensor(ids[3:])[:, None])
        assert text.log_prob == pytest.approx(float(own.sum()), abs=1e-4)  # float32 sums of another batch
        assert text.score == pytest.approx(float(own.mean()), abs=1e-4)
        assert math.isfinite(text.score)


def test_it_needs_a_number_and_a_temperature(tiny_model):
    with pytest.raises(ConfigError, match="best_of=None"):
        best_of(tiny_model, PROMPT, GenerationConfig(temperature=1.0))
    with pytest.raises(
        ConfigError, match="best_of needs a temperature above 0, got best_of=3 and temperature=0"
    ):
        GenerationConfig(best_of=3)
    with pytest.raises(ConfigError, match="best_of compares whole texts"):
        generate(tiny_model, [PROMPT], GenerationConfig(best_of=3, temperature=1.0))
