"""Optimizers: agreement with torch's AdamW, decay on matrices only, state by name."""

import pytest
import torch

from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.training.config import TrainingConfig
from scratchlm.training.optim import Optimizers
from tests.tolerances import rounding


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPTModel(
        GPTConfig(vocab_size=20, context_length=6, emb_dim=8, n_heads=2, n_layers=1, drop_rate=0.0)
    )


def backward(model):
    model(torch.tensor([[1, 2, 3], [4, 5, 6]])).square().mean().backward()


def test_steps_equal_torchs_adamw_with_decay_on_matrices(model):
    import copy

    twin = copy.deepcopy(model)
    config = TrainingConfig(max_steps=1, learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.95)
    ours = Optimizers(model, config)
    matrices = [p for p in twin.parameters() if p.ndim >= 2]
    vectors = [p for p in twin.parameters() if p.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    for _ in range(3):
        backward(model)
        ours.step()
        backward(twin)
        reference.step()
        reference.zero_grad()
    for p, q in zip(model.parameters(), twin.parameters()):
        # Fused and plain kernels round differently: ten operations a step, on weights below 1 and moments whose
        # ratio moves a weight by at most the rate, but where a gradient is about as small as AdamW's epsilon.
        torch.testing.assert_close(p, q, rtol=0, atol=rounding(1.0, n=3 * 10))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_goes_through_tensors_by_name_and_back(model, kind):
    import copy

    config = TrainingConfig(max_steps=1, learning_rate=0.01, optimizer=kind)
    ours = Optimizers(model, config)
    backward(model)
    ours.step()
    twin = copy.deepcopy(model)
    other = Optimizers(twin, config)
    other.restore(ours.state())
    for part in (model, twin):
        backward(part)
    ours.step()
    other.step()
    for p, q in zip(model.parameters(), twin.parameters()):
        assert torch.equal(p, q)


def test_muon_takes_the_blocks_matrices_only(model):
    ours = Optimizers(model, TrainingConfig(max_steps=1, optimizer="muon"))
    muon = {id(p) for group in ours.parts[1].param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in muon}
    assert names
    assert all(name.startswith("trf_blocks.") and name.endswith("weight") for name in names)


def test_state_of_an_unknown_weight_is_refused(model):
    ours = Optimizers(model, TrainingConfig(max_steps=1))
    with pytest.raises(CheckpointError, match="nowhere"):
        ours.restore({"optimizer.nowhere.weight.exp_avg": torch.zeros(2, 2)})


def test_a_model_without_trainable_weights_is_refused(model):
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable weight"):
        Optimizers(model, TrainingConfig(max_steps=1))


def test_clipping_scales_all_gradients_together(model):
    ours = Optimizers(model, TrainingConfig(max_steps=1))
    backward(model)
    before = ours.clip_gradients(0.0)
    assert ours.clip_gradients(before / 2) == pytest.approx(before)
    assert ours.clip_gradients(0.0) == pytest.approx(before / 2, rel=1e-4)
