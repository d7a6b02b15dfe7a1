import re
import subprocess
import sys

import pytest

from scratchlm.core.config import from_dict, to_dict
from scratchlm.core.errors import ConfigError
from scratchlm.model.config import CONFIGS, GPTConfig, RopeScaling, as_config, named_config

BOOKS_DICT = {  # GPT_CONFIG_124M of the book, chapter 4
    "vocab_size": 50257,
    "context_length": 1024,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}


def test_the_books_dictionary_is_the_default():
    assert GPTConfig(**BOOKS_DICT) == as_config(BOOKS_DICT) == GPTConfig()


def test_a_misspelt_field_is_a_type_error_and_in_a_dictionary_names_the_nearest():
    with pytest.raises(TypeError, match="n_head"):
        GPTConfig(n_head=4)
    with pytest.raises(ConfigError, match="did you mean 'n_heads'"):
        as_config({"n_head": 4})


def test_a_dictionary_may_hold_keys_of_others():
    assert as_config({**BOOKS_DICT, "kv_window_size": 48, "hidden_dim": 64, "dtype": None}) == GPTConfig()


def test_a_part_reads_only_its_own_fields_of_a_dictionary():
    part = as_config({"emb_dim": 30, "vocab_size": "many"}, only=("emb_dim", "ff_dim"))
    assert (part.emb_dim, part.vocab_size) == (30, GPTConfig().vocab_size)  # 12 heads do not divide 30


def test_each_place_may_have_a_dropout_of_its_own():
    config = GPTConfig(drop_rate=0.0, drop_rate_attn=0.3)
    rates = [config.drop_rate_of(name) for name in ("drop_rate_emb", "drop_rate_attn", "drop_rate_shortcut")]
    assert (rates, config.has_dropout, GPTConfig(drop_rate=0.0).has_dropout) == ([0.0, 0.3, 0.0], True, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emb_dim": 10, "n_heads": 3}, r"emb_dim=10 and n_heads=3; choose n_heads among the divisors of 10"),
        ({"n_layers": 0}, "n_layers must be a whole number of at least 1, got 0"),
        ({"vocab_size": -5}, "vocab_size must be a whole number of at least 1, got -5"),
        ({"context_length": 2.5}, "context_length must be a whole number of at least 1, got 2.5"),
        ({"emb_dim": "768"}, "emb_dim must be a whole number of at least 1, got '768'"),
        ({"n_heads": True}, "n_heads must be a whole number of at least 1, got True"),
        ({"drop_rate": 1.0}, "drop_rate must be at least 0 and below 1, got 1.0"),
        ({"drop_rate": float("nan")}, "drop_rate must be at least 0 and below 1, got nan"),
        ({"drop_rate": "0.1"}, "drop_rate must be a number, got '0.1'"),
        ({"drop_rate_attn": 1.5}, "drop_rate_attn must be at least 0 and below 1, got 1.5"),
        ({"qkv_bias": 1}, "qkv_bias must be True or False, got 1"),
        ({"tie_embeddings": None}, "tie_embeddings must be True or False, got None"),
        ({"init": "xavier"}, "init must be one of torch, gpt2, got 'xavier'"),
        ({"attention": "flash"}, "attention must be one of sdpa, manual, got 'flash'"),
        ({"kernels": "cuda"}, "kernels must be one of torch, manual, got 'cuda'"),
        ({"norm": "batch"}, "norm must be one of layer, rms, got 'batch'"),
        ({"norm_eps": 0}, "norm_eps must be a positive number, got 0"),
        ({"rope_base": float("inf")}, "rope_base must be a positive number, got inf"),
        ({"ff_dim": 0}, "ff_dim must be a whole number of at least 1, got 0"),
        ({"n_kv_heads": 5}, "n_heads=12 and n_kv_heads=5; choose n_kv_heads among the divisors of 12"),
        ({"head_size": 7, "positions": "rotary"}, "rotary positions need an even head size, got 7"),
        ({"rope_scaling": RopeScaling()}, 'rope_scaling needs positions="rotary"'),
    ],
)
def test_a_bad_value_says_what_was_expected_and_found(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        GPTConfig(**changes)


def test_a_config_survives_a_plain_dictionary():
    config = named_config("small", drop_rate=0)
    assert from_dict(GPTConfig, to_dict(config), where="model") == config


def test_head_dim_is_the_share_of_one_head():
    assert GPTConfig(emb_dim=1600, n_heads=25).head_dim == 64


def test_every_named_size_fits_and_can_be_changed():
    for name, config in CONFIGS.items():
        assert named_config(name) == config
    assert named_config("tiny", vocab_size=300).vocab_size == 300


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gpt2-large'"):
        named_config("gpt2-larg")


def test_reading_a_config_does_not_import_torch():
    """A recipe, or `--help`, names model sizes; importing torch takes seconds."""
    code = "import sys, scratchlm.model.config, scratchlm.generation.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nested_rope_scaling_survives_a_plain_dictionary():
    config = GPTConfig(positions="rotary", rope_scaling=RopeScaling(factor=32.0))
    assert from_dict(GPTConfig, to_dict(config), where="model") == config


def test_rope_scaling_needs_its_two_borders_in_order():
    with pytest.raises(
        ConfigError, match=r"high_freq_factor must be above low_freq_factor, got 1\.0 and 4\.0"
    ):
        RopeScaling(low_freq_factor=4.0, high_freq_factor=1.0)


def test_a_head_may_be_wider_than_its_share_of_the_stream():
    assert GPTConfig(emb_dim=30, n_heads=4, head_size=16).head_dim == 16
