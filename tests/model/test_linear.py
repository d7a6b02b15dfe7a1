import pytest
import torch
from torch import nn

from scratchlm.core.errors import ConfigError
from scratchlm.model.linear import build_linear, dense_weight


def test_a_built_layer_is_torchs_own_with_the_same_random_weights():
    torch.manual_seed(1)
    ours = build_linear(3, 5, bias=False)
    torch.manual_seed(1)
    assert torch.equal(dense_weight(ours), nn.Linear(3, 5, bias=False).weight)


def test_a_layer_without_a_plain_matrix_is_refused():
    with pytest.raises(ConfigError, match="weight of a GELU cannot be read as a plain matrix"):
        dense_weight(nn.GELU())
