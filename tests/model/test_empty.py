import subprocess
import sys

import torch

from scratchlm.model import GPTConfig, GPTModel
from scratchlm.model.empty import empty_weights

SIZES = GPTConfig(vocab_size=20, context_length=8, emb_dim=8, n_heads=2, n_layers=1, init="gpt2")


def test_an_empty_model_has_the_names_and_shapes_of_a_real_one():
    with empty_weights():
        empty = GPTModel(SIZES)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    real = GPTModel(SIZES).state_dict()
    assert {name: tensor.shape for name, tensor in empty.state_dict().items()} == {
        name: tensor.shape for name, tensor in real.items()
    }


def test_outside_the_block_weights_are_initialised_as_before():
    torch.manual_seed(0)
    expected = GPTModel(SIZES).state_dict()
    with empty_weights():
        GPTModel(SIZES)
    torch.manual_seed(0)
    found = GPTModel(SIZES).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_torchs_compiler_is_not_imported():
    program = (
        "import sys; from scratchlm.model import GPTConfig, GPTModel; from scratchlm.model.empty import empty_weights\n"
        f"with empty_weights(): GPTModel(GPTConfig(**{ {'emb_dim': 8, 'n_heads': 2, 'init': 'gpt2'} }))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
