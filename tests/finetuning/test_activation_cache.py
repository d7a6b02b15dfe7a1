"""Cached activations are computed once per text, in memory or on disk, and equal those of the plain way."""

import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.finetuning import activation_cache
from scratchlm.finetuning.activation_cache import ActivationCache, CachedExamples
from scratchlm.finetuning.classification_task import ClassificationTask
from scratchlm.finetuning.freeze import freeze_all_but
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.training.batch_memory import n_frozen_blocks

TEXTS = ["win a prize now", "see you at home tonight", "win", "win a prize now", "say: see you"]
LABELS = ["a", "b", "a", "a", "b"]


@pytest.fixture
def model(tiny_model):
    replace_head(tiny_model, 2)
    return tiny_model.eval()


@pytest.fixture
def examples(base_tokenizer):
    return InputFormat(max_length=20).examples(TEXTS, LABELS, base_tokenizer, ("a", "b"))


@pytest.mark.parametrize(
    ("part", "n_blocks"),
    [("head", 3), ("last-layer", 3), ("last-block", 2), ("last-two-blocks", 1), ("all", 0)],
)
def test_blocks_below_the_trained_part_are_frozen(model, part, n_blocks):
    freeze_all_but(model, part)
    assert n_frozen_blocks(model) == n_blocks


def test_a_trainable_position_embedding_freezes_nothing(model):
    freeze_all_but(model, "last-block")
    model.pos_emb.weight.requires_grad_(True)
    assert n_frozen_blocks(model) == 0


@pytest.mark.parametrize("n_blocks", [1, 2, 3])
@pytest.mark.parametrize("position", ["last-real", "first", "mean"])
@pytest.mark.parametrize("budget_bytes", [2**20, 0])
def test_scores_above_the_cache_are_the_plain_ones(
    model, examples, n_blocks, position, budget_bytes, tmp_path, monkeypatch
):
    monkeypatch.setattr(activation_cache, "FILL_TOKENS", 12)  # several forward passes
    cache = ActivationCache(model, n_blocks, position=position, budget_bytes=budget_bytes, folder=tmp_path)
    cached = CachedExamples(examples, cache)
    task = ClassificationTask(position=position)
    with torch.no_grad():
        for indices in ([0, 1, 2, 3, 4], [2], [4, 1]):
            plain = task.logits(model, examples.batch(indices))
            batch = cached.batch(indices)
            torch.testing.assert_close(task.logits(model, batch), plain, atol=1e-5, rtol=1e-5)
            assert torch.equal(batch.targets, examples.batch(indices).targets)
    assert len(cache) == 4  # one text stands there twice
    assert bool(list(tmp_path.iterdir())) == (budget_bytes == 0)
    cache.close()
    assert list(tmp_path.iterdir()) == []


def test_a_padded_width_is_kept(model, base_tokenizer):
    reading = InputFormat(max_length=16, width=16, position="last")
    examples = reading.examples(TEXTS, LABELS, base_tokenizer, ("a", "b"))
    cache = ActivationCache(model, 2, position="last")
    batch = CachedExamples(examples, cache).batch([0, 2])
    assert batch.states.shape == (2, 16, 16)
    task = ClassificationTask(position="last")
    with torch.no_grad():
        plain = task.logits(model, examples.batch([0, 2]))
        torch.testing.assert_close(task.logits(model, batch), plain, atol=1e-5, rtol=1e-5)


def test_no_text_runs_twice(model, examples, base_tokenizer):
    cache = ActivationCache(model, 2)
    assert cache.fill(examples) == 4
    assert cache.fill(examples) == 0
    more = InputFormat(max_length=20).examples([TEXTS[0], "home"], ["a", "b"], base_tokenizer, ("a", "b"))
    assert cache.fill(more) == 1


def test_of_a_wholly_frozen_model_one_position_is_kept(model, examples):
    cache = ActivationCache(model, 3)
    cache.fill(examples)
    assert cache.size_bytes == 4 * 16 * 4  # four texts, sixteen numbers of four bytes


@pytest.mark.parametrize(
    "name", ["activation-cache-abc", "trunk-cache-abc"]
)  # of this and an earlier version
def test_what_a_killed_run_left_is_removed_and_never_read(model, examples, tmp_path, name):
    left = tmp_path / name
    left.mkdir()
    (left / "states-0.bin").write_bytes(b"half of it")
    cache = ActivationCache(model, 2, budget_bytes=0, folder=tmp_path)
    assert not left.exists()
    cache.fill(examples)
    assert len(list(tmp_path.glob("activation-cache-*/states-*.bin"))) == 1


def test_a_full_disk_is_an_error_before_anything_is_run(model, examples, tmp_path, monkeypatch):
    class Usage:
        free = 10

    monkeypatch.setattr(activation_cache.shutil, "disk_usage", lambda _path: Usage)
    with pytest.raises(DataError, match="--no-activation-cache"):
        ActivationCache(model, 2, budget_bytes=0, folder=tmp_path).fill(examples)


def test_the_cache_is_filled_without_dropout_and_leaves_the_mode_alone(model, examples):
    model.train()
    first, second = ActivationCache(model, 2), ActivationCache(model, 2)
    first.fill(examples), second.fill(examples)
    assert torch.equal(first.states(examples.row(0)), second.states(examples.row(0)))
    assert model.training
