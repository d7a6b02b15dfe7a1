import re

import pytest

from scratchlm.core.config import from_dict, to_dict
from scratchlm.core.errors import ConfigError
from scratchlm.generation.config import GenerationConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be a whole number of at least 0, got -1"),
        ({"max_new_tokens": 2.0}, "max_new_tokens must be a whole number of at least 0, got 2.0"),
        ({"temperature": -0.5}, "temperature must be a finite number at least 0, got -0.5"),
        ({"temperature": float("nan")}, "temperature must be a finite number at least 0, got nan"),
        ({"temperature": float("inf")}, "temperature must be a finite number at least 0, got inf"),
        ({"temperature": 1e39}, "temperature must not be beyond 1e+30, got 1e+39"),
        ({"logit_bias": {1: -1e39}}, "logit_bias of id 1 must not be beyond 1e+30, got -1e+39"),
        ({"temperature": "hot"}, "temperature must be a finite number at least 0, got 'hot'"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1, got 0"),
        ({"top_p": 0.0}, "top_p must be a finite number above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be a finite number above 0 and at most 1, got 1.5"),
        ({"min_p": -0.1}, "min_p must be a finite number above 0 and at most 1, got -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a finite number above 0, got 0"),
        ({"stop_ids": (3, -1)}, "each of stop_ids must be a whole number of at least 0, got -1"),
        ({"stop_texts": "###"}, "stop_texts must be a tuple of texts that are not empty, got '###'"),
        ({"stop_texts": ("",)}, "stop_texts must be a tuple of texts that are not empty, got ('',)"),
        ({"start_id": -2}, "start_id must be a whole number of at least 0, got -2"),
        ({"overflow": "wrap"}, "overflow must be crop or error, got 'wrap'"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
    ],
)
def test_a_bad_value_says_what_was_expected_and_found(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        GenerationConfig(**changes)


def test_the_bounds_themselves_are_fine():
    GenerationConfig(max_new_tokens=0, temperature=0, top_k=1, top_p=1.0, min_p=1.0, seed=0, start_id=0)


def test_a_config_survives_a_plain_dictionary():
    config = GenerationConfig(temperature=1.0, top_p=0.9, stop_ids=(3, 4), stop_texts=("a",), seed=7)
    assert from_dict(GenerationConfig, to_dict(config), where="generation") == config
