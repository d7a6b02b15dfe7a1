"""Ranks that hold a part of every weight (FSDP2) train the model that one process trains."""

import json

import pytest

from scratchlm.checkpoints.store import list_checkpoints, load_tensors
from scratchlm.core.errors import ConfigError
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.training.distributed import OneProcess
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.sharding import ShardedModel, WholeModel, parallel_model

SAME_LOSS = 1e-6  # as in test_distributed.py


def result(folder):
    """The result of a run."""
    return json.loads((folder / "result.json").read_text())


def assert_same_run(one, other, *, allowed=SAME_LOSS):
    """The two runs have the same losses and final weights, but for rounding."""
    assert one["losses"]
    for name in ("losses", "val_losses", "checksum"):
        assert other[name] == pytest.approx(one[name], rel=allowed), name


def test_sharded_over_three_ranks_a_run_has_the_losses_of_one_process(launcher, tmp_path):
    """Neither the width of 16 nor the batches of 8 split into three."""
    settings = {"accumulate": 2, "activation_checkpointing": True}
    assert launcher.run(tmp_path / "one", 1, settings=settings | {"sharding": "fsdp"}) == [0]
    one = result(tmp_path / "one")
    assert launcher.run(tmp_path / "three", 3, settings=settings | {"sharding": "fsdp"}) == [0, 0, 0]
    three = result(tmp_path / "three")
    assert_same_run(one, three)
    assert three["tokens"] == one["tokens"]
    assert one["n_held"] / 3 <= three["n_held"] < one["n_held"] / 3 * 1.1  # rank 0 has the most rows


INSIDE = """
import torch
from scratchlm.training.sharded_tensors import is_sharded, on_owners, slice_of_rank
assert model.tok_emb.weight is model.out_head.weight  # still one matrix, in one group
assert not is_sharded(model.out_head.weight)  # gathered for the loss, which reads it outside of the model's forward
assert is_sharded(model.trf_blocks[0].ff.layers[0].weight)  # gathered only while the block runs
assert all(p.grad is None for p in model.trf_blocks[0].parameters())  # not exchanged before the fourth batch

whole = [torch.arange(15.0).view(5, 3) + 100 * i for i in range(3)]
mine, cubes = slice_of_rank(5, rank, 2), lambda matrices: [m @ m.mT @ m for m in matrices]
found = on_owners(cubes, [m[mine] for m in whole], whole[0].shape)
assert all(one.equal(other[mine]) for one, other in zip(found, cubes(whole), strict=True))
"""


def test_tied_weights_are_one_group_gradients_are_exchanged_once_a_step_and_matrices_computed_by_owners(
    launcher, tmp_path
):
    settings = {"sharding": "fsdp", "accumulate": 4, "max_steps": 3, "eval_every_steps": 0}
    codes = launcher.run(tmp_path, 2, code=INSIDE, settings=settings)
    assert codes == [0, 0], (tmp_path / "stderr-0").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_saved_sharded_resumes_in_one_process_and_the_other_way_round(
    launcher, tmp_path, saved_tokenizer, optimizer
):
    code = "if rank == 0 and n == 6: os.kill(os.getpid(), signal.SIGTERM)"
    order = {"tokenizer": saved_tokenizer}
    plain = {"optimizer": optimizer, "sharding": "none"}
    sharded = plain | {"sharding": "fsdp"}
    assert launcher.run(tmp_path / "whole", 1, settings=plain, **order) == [0]
    for name, n_before, n_after in (("joined", 2, 1), ("split", 1, 2)):
        before, after = (sharded if n == 2 else plain for n in (n_before, n_after))
        here = tmp_path / name
        assert launcher.run(here, n_before, code=code, settings=before, **order) == [143] * n_before
        assert launcher.run(here, n_after, resume=True, settings=after, **order) == [0] * n_after
        assert result(here)["resumed_from"] == 6
        allowed = SAME_LOSS if optimizer == "adamw" else 1e-3  # Muon may compute in bfloat16
        whole, run = result(tmp_path / "whole"), result(here)
        assert run["losses"] == pytest.approx(whole["losses"][6:], rel=allowed)
        saved, expected = (
            load_tensors(list_checkpoints(folder / "run")[-1] / "model.safetensors")
            for folder in (here, tmp_path / "whole")
        )
        assert saved.keys() == expected.keys()
        assert all(saved[name].shape == weight.shape for name, weight in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pretrain", "classify", "instruct with LoRA", "prefer"])
def test_every_task_trains_sharded(launcher, tmp_path, saved_tokenizer, task):
    order = {"tokenizer": saved_tokenizer, "task": task}
    for n_ranks, sharding in ((1, "none"), (2, "fsdp")):
        settings = {"sharding": sharding, "activation_checkpointing": n_ranks == 2, "n_layers": 3}
        codes = launcher.run(tmp_path / str(n_ranks), n_ranks, settings=settings, **order)
        assert codes == [0] * n_ranks, (tmp_path / str(n_ranks) / "stderr-0").read_text()
    assert_same_run(result(tmp_path / "1"), result(tmp_path / "2"), allowed=3e-6)


def test_one_process_has_the_whole_model_whatever_the_setting(tiny_model):
    assert isinstance(parallel_model(tiny_model, PretrainingTask(), OneProcess(), "fsdp"), WholeModel)


def test_quantized_layers_cannot_be_sharded():
    model = GPTModel(GPTConfig(vocab_size=64, context_length=8, emb_dim=32, n_heads=2, n_layers=1))
    quantize_model(model, QuantizationConfig(bits=8))
    with pytest.raises(ConfigError, match=r"sharding=fsdp .* quantized layers \(base_bits"):
        ShardedModel(model, PretrainingTask(), OneProcess())
