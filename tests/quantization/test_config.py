import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.quantization.config import QuantizationConfig


@pytest.mark.parametrize(
    ("bits", "wanted", "n_in", "size"),
    [(8, None, 50, 50), (8, 32, 96, 32), (8, 64, 96, 32), (4, None, 576, 64), (4, 128, 576, 64), (4, None, 96, 32),
     (4, 32, 256, 32), (4, None, 48, None), (8, 128, 48, None)],
)  # fmt: skip
def test_the_group_size_is_the_wanted_one_or_the_largest_that_divides_the_row(bits, wanted, n_in, size):
    assert QuantizationConfig(bits=bits, group_size=wanted).group_size_of(n_in) == size


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"bits": 3}, "bits must be 8 or 4, got 3"),
        ({"bits": 4, "group_size": 48}, "group_size must be 32, 64, 128, got 48"),
        ({"bits": 8, "kind": "nf4"}, "nf4 has 4 bits"),
        ({"bits": 4, "skip_head": True, "head_bits": 4}, "got head_bits=4 too"),
        ({"bits": 8, "symmetric": True}, "symmetric has no effect"),
        ({"bits": 4, "kind": "nf4", "symmetric": True}, "symmetric has no effect"),
    ],
)
def test_impossible_settings_are_named(settings, match):
    with pytest.raises(ConfigError, match=match):
        QuantizationConfig(**settings)
