"""A classifier's input format is chosen once, saved with the model, and loaded unchanged."""

import pytest

from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.finetuning.input_format import InputFormat


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, InputFormat(max_length=64)),
        ({"max_length": 10}, InputFormat(max_length=10)),
        ({"max_length": 100}, InputFormat(max_length=64)),
        ({"pad": "longest"}, InputFormat(max_length=30, width=30)),
        ({"pad": "longest", "max_length": 20}, InputFormat(max_length=20, width=20)),
        ({"pad": "model", "position": "last"}, InputFormat(max_length=64, width=64, position="last")),
        ({"pad": 12, "position": "mean"}, InputFormat(max_length=12, width=12, position="mean")),
    ],
    ids=str,
)
def test_settings_become_a_format(settings, expected):
    assert InputFormat.from_settings([5, 30, 7], context_length=64, **settings) == expected
    assert InputFormat.from_task(expected.to_task()) == expected


@pytest.mark.parametrize("pad", [0, -1, 65])
def test_a_width_must_fit_the_model(pad):
    with pytest.raises(ConfigError, match="1 to 64 tokens"):
        InputFormat.from_settings([5], context_length=64, pad=pad)


@pytest.mark.parametrize("task", [{}, {"max_length": "9"}, {"max_length": 9, "position": "middle"}], ids=str)
def test_a_damaged_task_is_an_error(task):
    with pytest.raises(CheckpointError, match="max_length, position and width"):
        InputFormat.from_task(task)


def test_padding_is_seen_unless_the_last_real_token_is_looked_for(base_tokenizer):
    for position, is_hidden in (("last", False), ("mean", False), ("last-real", True)):
        input_format = InputFormat(max_length=9, width=9, position=position)
        batch = input_format.examples(["win", "see you"], ["a", "b"], base_tokenizer, ("a", "b")).batch(
            [0, 1]
        )
        assert (batch.attention_mask is not None) == is_hidden
        assert batch.inputs.shape == (2, 9)
