"""Several ranks train the model that one process trains, and none waits for a rank that is gone."""

import json
import shutil

import numpy as np
import pytest
import torch

from scratchlm.checkpoints.store import list_checkpoints, load_tensors
from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError
from scratchlm.core.launch import launched_ranks
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.windows import TokenWindows
from scratchlm.training.distributed import OneProcess, SharedStop
from scratchlm.training.interrupts import StopRequest

# The gradient of a batch is summed in another order; 12 steps of AdamW in float32 turn that into differences of 1e-7.
SAME_LOSS = 1e-6


def result(folder):
    """The result of a run."""
    return json.loads((folder / "result.json").read_text())


def weights(folder):
    """The weights of the newest checkpoint."""
    return load_tensors(list_checkpoints(folder / "run")[-1] / "model.safetensors")


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("bucket", [False, True])
def test_the_ranks_together_have_the_examples_of_every_batch_once(world_size, bucket):
    class Numbered:
        lengths = np.arange(50) % 7 + 1

        def __len__(self):
            return 50

        def batch(self, indices):
            rows = torch.as_tensor(np.asarray(indices))[:, None]
            return Batch(inputs=rows, targets=rows)

    loader = BatchLoader(Numbered(), batch_size=4, seed=5, bucket_by_length=bucket)
    shares = [loader.for_rank(rank, world_size) for rank in range(world_size)]
    for epoch in (0, 1):
        for whole, *parts in zip(loader.epoch(epoch), *(share.epoch(epoch) for share in shares), strict=True):
            real = [part.targets for part in parts if part.n_targets]
            assert sorted(torch.cat(real).flatten().tolist()) == sorted(whole.targets.flatten().tolist())
            for part in parts:
                assert part.is_filler == (part.n_tokens == 0) == bool((part.targets == IGNORE_INDEX).all())


def test_a_process_of_its_own_has_all_of_every_batch():
    loader = BatchLoader(TokenWindows(range(33), context_length=4), batch_size=3, seed=1)
    for one, other in zip(loader.epoch(0), loader.for_rank(0, 1).epoch(0), strict=True):
        assert torch.equal(one.inputs, other.inputs)


def test_two_ranks_give_the_losses_of_one_process(launcher, tmp_path):
    order = {"settings": {"accumulate": 2}}
    assert launcher.run(tmp_path / "one", 1, **order) == [0]
    assert launcher.run(tmp_path / "two", 2, **order) == [0, 0]
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    assert len(one["losses"]) == 12
    assert two["losses"] == pytest.approx(one["losses"], rel=SAME_LOSS)
    assert two["val_losses"] == pytest.approx(one["val_losses"], rel=SAME_LOSS)
    assert two["tokens"] == one["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_two_and_four_ranks_give_the_same_losses_over_100_steps(launcher, tmp_path, optimizer):
    results = []
    for n_ranks in (1, 2, 4):
        settings = {"max_steps": 100, "optimizer": optimizer}
        assert launcher.run(tmp_path / str(n_ranks), n_ranks, settings=settings) == [0] * n_ranks
        results.append(result(tmp_path / str(n_ranks)))
    one, *others = results
    # Muon computes in bfloat16 on processors that have it, which enlarges the differences.
    allowed = SAME_LOSS if optimizer == "adamw" else 1e-3
    for other in others:
        assert other["losses"] == pytest.approx(one["losses"], rel=allowed)
        assert other["val_losses"] == pytest.approx(one["val_losses"], rel=allowed)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "instruct with LoRA", "prefer"])
def test_two_ranks_give_the_losses_of_one_process_in_every_task(launcher, tmp_path, saved_tokenizer, task):
    results = []
    for n_ranks in (1, 2):
        order = {"task": task, "tokenizer": saved_tokenizer}
        assert launcher.run(tmp_path / str(n_ranks), n_ranks, **order) == [0] * n_ranks
        results.append(result(tmp_path / str(n_ranks)))
    one, two = results
    assert len(one["losses"]) == 10
    for name in ("losses", "val_losses"):
        assert two[name] == pytest.approx(one[name], rel=SAME_LOSS)


INTERRUPTED = "if rank == 1 and n == 6: os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.slow
@pytest.mark.parametrize("n_ranks", [2, 3])
def test_a_signal_to_one_rank_saves_and_stops_all_and_the_run_resumes_bit_for_bit(
    launcher, tmp_path, saved_tokenizer, n_ranks
):
    """With three ranks the order of a sum matters: it must not change within a run."""
    settings = {"tokenizer": saved_tokenizer, "drop_rate": 0.1}
    cut = tmp_path / "cut"
    assert launcher.run(tmp_path / "whole", n_ranks, **settings) == [0] * n_ranks
    assert launcher.run(cut, n_ranks, code=INTERRUPTED, **settings) == [143] * n_ranks
    assert launcher.run(cut, n_ranks, resume=True, **settings) == [0] * n_ranks
    assert result(cut)["resumed_from"] == 6
    whole, resumed = weights(tmp_path / "whole"), weights(cut)
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name
    steps = [line for line in (cut / "run/metrics.jsonl").read_text().splitlines() if "train_loss" in line]
    assert len(steps) == 12


@pytest.mark.slow
def test_a_run_saved_on_two_ranks_resumes_on_one_or_four(launcher, tmp_path, saved_tokenizer):
    order = {"tokenizer": saved_tokenizer}
    assert launcher.run(tmp_path / "whole", 1, **order) == [0]
    assert launcher.run(tmp_path / "1", 2, code=INTERRUPTED, **order) == [143, 143]
    shutil.copytree(tmp_path / "1", tmp_path / "4")
    whole = result(tmp_path / "whole")
    for n_ranks in (1, 4):
        resumed_run = tmp_path / str(n_ranks)
        assert launcher.run(resumed_run, n_ranks, resume=True, **order) == [0] * n_ranks
        resumed = result(resumed_run)
        assert resumed["resumed_from"] == 6
        assert resumed["losses"] == pytest.approx(whole["losses"][6:], rel=SAME_LOSS)
        assert resumed["val_losses"][-1] == pytest.approx(whole["val_losses"][-1], rel=SAME_LOSS)


@pytest.mark.slow
def test_an_error_of_one_rank_ends_the_others_at_once_with_its_exit_code(launcher, tmp_path):
    code = "if rank == 1 and n == 3:\n    Error.exit_code = 3\n    raise Error('the file is damaged')"
    assert launcher.run(tmp_path, 2, code=code) == [3, 3]
    assert (tmp_path / "stderr-1").read_text() == "the file is damaged"
    assert (tmp_path / "stderr-0").read_text() == ""


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named_by_the_others(launcher, tmp_path):
    code = "if rank == 1 and n == 3: os.kill(os.getpid(), signal.SIGKILL)"
    assert launcher.run(tmp_path, 3, code=code) == [4, -9, 4]
    assert (tmp_path / "stderr-0").read_text().startswith("rank 1 on ")
    assert (tmp_path / "stderr-2").read_text() == ""  # one message is enough


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_after_the_timeout(launcher, tmp_path):
    code = "if rank == 1 and n == 3: os.kill(os.getpid(), signal.SIGSTOP)"
    assert launcher.run(tmp_path, 2, code=code, timeout_s=15.0, n_hung=1) == [4, -9]
    assert (tmp_path / "stderr-0").read_text().startswith("rank 1 on ")


def test_a_rank_that_never_starts_is_named(launcher, tmp_path):
    assert launcher.run(tmp_path, 2, timeout_s=1.0, absent=[1]) == [4, 0]
    assert "rank 1 of 2 did not start within 1 s" in (tmp_path / "stderr-0").read_text()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_is_reported_once(launcher, tmp_path):
    assert launcher.run(tmp_path, 2, code="is_poisoned = rank == 1 and n == 3") == [6, 6]
    assert "the loss of step 3 is not finite" in (tmp_path / "stderr-0").read_text()
    assert (tmp_path / "stderr-1").read_text() == ""


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_by_all(launcher, tmp_path):
    order = {"code": "is_poisoned = rank == 1 and n == 3", "settings": {"max_skipped_steps": 1}}
    assert launcher.run(tmp_path, 2, **order) == [0, 0]
    assert len(result(tmp_path)["losses"]) == 11  # of 12 steps
    assert (tmp_path / "stderr-1").read_text() == ""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3"}, None),  # of another program
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, (1, 2)),
    ],
)
def test_only_a_whole_set_of_variables_makes_a_rank(monkeypatch, environment, expected):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_ranks() == expected


def test_a_rank_beyond_the_world_is_an_error(monkeypatch):
    for name, value in {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="RANK=2 and WORLD_SIZE=2"):
        launched_ranks()


def test_one_process_needs_no_agreement():
    ranks, request = OneProcess(), StopRequest()
    stop = SharedStop(request, ranks)
    assert ranks.sum([1, 2.5]) == [1, 2.5]
    assert not stop.is_made
    request.signal_number = 15
    assert stop.is_made
    assert stop.signal_number == 15
