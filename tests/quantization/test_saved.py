import copy

import pytest
import torch

from scratchlm.core.errors import CheckpointError
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.quantization.saved import add_quantized_layers, describe_layers

QUERY = "trf_blocks.0.att.W_query"


@pytest.fixture
def state(wide_model):
    model = copy.deepcopy(wide_model)
    quantize_model(model, QuantizationConfig(bits=4))
    return dict(model.state_dict())


def test_layers_are_rebuilt_from_their_tensors_without_a_copy(wide_model, state, ids):
    plain_names = set(describe_layers(wide_model))
    add_quantized_layers(wide_model, state, where="a file")
    wide_model.load_state_dict(state, assign=True)
    assert plain_names == set()
    assert describe_layers(wide_model)[QUERY] == {"kind": "int4_asymmetric", "group_size": 64}
    assert describe_layers(wide_model)["out_head"] == {"kind": "int8", "group_size": 64}
    assert wide_model.trf_blocks[0].att.W_query.codes.data_ptr() == state[f"{QUERY}.codes"].data_ptr()


def without(state: dict, name: str) -> None:
    del state[name]


def replace(state: dict, name: str, change) -> None:
    state[name] = change(state[name])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda s: without(s, f"{QUERY}.scale"), f"{QUERY}.codes without {QUERY}.scale"),
        (lambda s: replace(s, f"{QUERY}.scale", lambda t: t * torch.nan), "numbers in its scale that are not finite"),
        (lambda s: replace(s, f"{QUERY}.offset", lambda t: t + torch.inf), "numbers in its offset that are not"),
        (lambda s: replace(s, f"{QUERY}.scale", lambda t: t.repeat(1, 3)), "3 groups in rows of 64"),
        (lambda s: replace(s, f"{QUERY}.codes", lambda t: t.float()), "type torch.float32"),
        (lambda s: replace(s, f"{QUERY}.codes", lambda t: t[:, :0]), "codes of shape"),
        (lambda s: [replace(s, f"{QUERY}.{part}", lambda t: t[:32]) for part in ("codes", "scale", "offset")],
         "the shape (32, 64), but the model has a weight of (64, 64)"),
        (lambda s: s.update({"nowhere.codes": s[f"{QUERY}.codes"], "nowhere.scale": s[f"{QUERY}.scale"]}),
         "the model has no such layer"),
        (lambda s: s.update({"final_norm.codes": s[f"{QUERY}.codes"], "final_norm.scale": s[f"{QUERY}.scale"]}),
         "the model has no such layer"),
        (lambda s: s.update({".codes": s[f"{QUERY}.codes"], ".scale": s[f"{QUERY}.scale"]}),
         "the model has no such layer"),
    ],
)  # fmt: skip
def test_damaged_tensors_are_refused_by_name(wide_model, state, damage, problem):
    damage(state)
    with pytest.raises(CheckpointError) as error:
        add_quantized_layers(wide_model, state, where="a file")
    assert problem in str(error.value)
    assert "a file" in str(error.value)
