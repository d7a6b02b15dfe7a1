"""Loss over loaders and texts: every token once, whatever the windows and batches."""

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.open_model import crop_context
from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.windows import TokenWindows
from scratchlm.evaluation.loss import TextLoss, _strided_windows, mean_loss, text_loss
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.training.pretraining import PretrainingTask


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=30, context_length=8, emb_dim=16, n_heads=2, n_layers=1, drop_rate=0.5)
    return GPTModel(config).train()


@pytest.fixture
def ids():
    return np.random.Generator(np.random.PCG64(0)).integers(0, 30, size=61)


def by_hand(model, ids, *, stride, start):
    """Each token's loss with as much context as its window gives, one forward pass per token."""
    array = [start, *ids.tolist()]
    context, total = model.config.context_length, 0.0
    model.eval()
    for target in range(1, len(array)):
        first = 0
        while target > first + context:
            first += stride
        logits = model(torch.tensor([array[first:target]]))[0, -1]
        total += F.cross_entropy(logits, torch.tensor(array[target])).item()
    return total


@pytest.mark.parametrize("stride", [1, 3, 4, 8])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 61])
def test_text_loss_counts_every_token_once_with_the_context_of_its_window(model, ids, stride, length):
    result = text_loss(model, ids[:length], n_bytes=100, start_id=0, stride=stride, batch_size=3)
    assert result.n_tokens == length
    assert result.loss_sum == pytest.approx(by_hand(model, ids[:length], stride=stride, start=0), rel=1e-5)


def test_text_loss_does_not_depend_on_the_batch_size(model, ids):
    losses = {
        size: text_loss(model, ids, n_bytes=100, start_id=0, stride=2, batch_size=size).loss
        for size in (1, 5, 64)
    }
    assert max(losses.values()) - min(losses.values()) < 1e-6


def test_without_a_start_the_first_token_is_not_counted(model, ids):
    assert text_loss(model, ids, n_bytes=100, start_id=None).n_tokens == len(ids) - 1


def test_bits_per_byte_and_perplexity_follow_from_the_sum(model, ids):
    result = text_loss(model, ids, n_bytes=200, start_id=0)
    assert result.bits_per_byte == pytest.approx(result.loss * len(ids) / 200 / math.log(2))
    assert result.perplexity == pytest.approx(math.exp(result.loss))


def test_evaluation_leaves_the_training_mode_and_gradients_alone(model, ids):
    text_loss(model, ids, n_bytes=1, start_id=0)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_mean_loss_weighs_targets_not_batches(model):
    full = Batch(inputs=torch.ones(2, 6, dtype=torch.long), targets=torch.full((2, 6), 3))
    sparse_targets = torch.full((2, 6), IGNORE_INDEX)
    sparse_targets[0, 0] = 5
    sparse = Batch(inputs=torch.full((2, 6), 2), targets=sparse_targets)
    task = PretrainingTask()
    both = mean_loss(model, [full, sparse], task)
    expected = (12 * mean_loss(model, [full], task) + mean_loss(model, [sparse], task)) / 13
    assert both == pytest.approx(expected)


def test_mean_loss_without_a_target_is_an_error(model):
    empty = Batch(inputs=torch.ones(1, 2, dtype=torch.long), targets=torch.full((1, 2), IGNORE_INDEX))
    with pytest.raises(DataError, match="unmasked target"):
        mean_loss(model, [empty], PretrainingTask())


def test_a_text_without_tokens_is_an_error(model):
    with pytest.raises(DataError, match="token to predict"):
        text_loss(model, [], n_bytes=0, start_id=0)


def test_a_stride_beyond_the_context_is_an_error(model, ids):
    with pytest.raises(ConfigError, match="stride"):
        text_loss(model, ids, n_bytes=1, start_id=0, stride=9)


def test_the_figures_of_a_batch_of_one_and_of_many_differ_by_less_than_a_millionth(tiny_model):
    ids = np.random.Generator(np.random.PCG64(1)).integers(0, 61, size=2000)
    sums = [text_loss(tiny_model, ids, n_bytes=1, start_id=0, batch_size=size).loss for size in (1, 7, 128)]
    assert max(sums) - min(sums) < 1e-6


@pytest.mark.parametrize("stride", [1, 5, 11])
def test_the_loss_equals_the_strided_recipe_of_transformers(tiny_config, tmp_path, tiny_tokenizer, stride):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = GPTModel(dataclasses.replace(tiny_config, vocab_size=300)).eval()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        export_huggingface(tmp_path / "hf", ours, tiny_tokenizer)
    ).eval()
    ids = torch.randint(0, 300, (1, 100), generator=torch.Generator().manual_seed(1))
    nll_sum, n_tokens, prev_end, length = 0.0, 0, 0, tiny_config.context_length
    for begin in range(0, ids.shape[1], stride):  # huggingface.co/docs/transformers/perplexity
        end = min(begin + length, ids.shape[1])
        targets = ids[:, begin:end].clone()
        targets[:, : -(end - prev_end)] = -100
        with torch.no_grad():
            nll = theirs(ids[:, begin:end], labels=targets).loss.item()
        # The guide takes one token too few from every window but the first: only there does the shift lose one.
        n_counted = int((targets[:, 1:] != -100).sum())
        nll_sum, n_tokens, prev_end = nll_sum + nll * n_counted, n_tokens + n_counted, end
        if end == ids.shape[1]:
            break
    # A window of theirs holds the last token's target too, so it reads one token less than it is long.
    ours = crop_context(ours, length - 1)
    result = text_loss(ours, ids[0].numpy(), n_bytes=1, start_id=None, stride=stride)
    assert result.n_tokens == n_tokens
    assert result.loss == pytest.approx(nll_sum / n_tokens, abs=1e-6)


def documents(*lengths):
    """Documents of ids from 1 on, and all of them joined by 0, end-of-text."""
    ids = np.random.Generator(np.random.PCG64(5)).integers(1, 300, size=sum(lengths))
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    return parts, np.concatenate([parts[0], *(np.append(0, part) for part in parts[1:])])


@pytest.mark.parametrize("attention", ["sdpa", "manual"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_documents_of_a_window_have_the_logits_that_they_have_alone(tiny_config, attention, positions):
    torch.manual_seed(0)
    changes = {"vocab_size": 300, "context_length": 40, "attention": attention, "positions": positions}
    model = GPTModel(dataclasses.replace(tiny_config, **changes)).eval()
    parts, joined = documents(9, 1, 17, 6)
    batch = TokenWindows(np.append(joined, 0), context_length=36, document_start=0).batch([0])
    together = model(batch.inputs, attention_mask=batch.attention_mask)[0]
    alone = [model(torch.tensor([[0, *part]]))[0] for part in parts[1:]]
    torch.testing.assert_close(together, torch.cat([model(torch.tensor(parts[0])[None])[0], *alone]))
    assert (model(batch.inputs)[0, 10:] - together[10:]).abs().max() > 0.01  # which differ without the mask


def test_the_loss_within_documents_is_that_of_transformers_for_each_document(
    tiny_config, tmp_path, tiny_tokenizer
):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = GPTModel(dataclasses.replace(tiny_config, vocab_size=300, context_length=64)).eval()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        export_huggingface(tmp_path / "hf", ours, tiny_tokenizer)
    ).eval()
    parts, joined = documents(20, 1, 30, 9)
    expected = 0.0
    for i, part in enumerate(parts):
        ids = torch.tensor([[0, *part, *([0] if i < len(parts) - 1 else [])]])  # a document's end is a target
        with torch.no_grad():
            expected += theirs(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    result = text_loss(ours, joined, n_bytes=1, start_id=0, within_documents=True)
    assert result.n_tokens == len(joined)
    assert result.loss_sum == pytest.approx(expected, rel=1e-6)
    assert text_loss(ours, joined, n_bytes=1, start_id=0).loss_sum != pytest.approx(expected, rel=1e-5)


def test_documents_need_a_token_between_them(model, ids):
    with pytest.raises(ConfigError, match="got none; give start_id"):
        text_loss(model, ids, n_bytes=1, start_id=None, within_documents=True)


def test_a_memory_mapped_text_is_never_copied_whole(model, tmp_path):
    path = tmp_path / "ids.bin"
    np.zeros(4_000_000, dtype=np.uint16).tofile(path)
    ids = np.memmap(path, dtype=np.uint16, mode="r")
    tracemalloc.start()  # numpy tells it of its arrays
    try:
        windows = _strided_windows(ids, start_id=0, context=64, stride=64, batch_size=16)
        n_predicted = sum(int((targets != IGNORE_INDEX).sum()) for _, targets in windows)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_predicted == len(ids)
    assert peak_bytes < ids.nbytes / 10


def test_texts_together_weigh_every_token_the_same(model, ids):
    parts = [text_loss(model, ids[:n], n_bytes=n, n_characters=n, start_id=0) for n in (10, 50)]
    whole = TextLoss.together(parts)
    assert whole.loss == pytest.approx((10 * parts[0].loss + 50 * parts[1].loss) / 60)
    assert (whole.n_bytes, whole.n_characters) == (60, 60)
    assert whole.bits_per_character == pytest.approx(whole.bits_per_byte)


def test_the_interval_needs_windows_and_then_holds_the_figure(model, ids):
    assert text_loss(model, ids[:20], n_bytes=1, start_id=0, stride=8).interval is None
    result = text_loss(model, np.tile(ids, 10), n_bytes=1, start_id=0, stride=8)
    low, high = result.interval
    assert low < result.loss < high


def test_progress_counts_every_token_once(model, ids):
    seen = []
    text_loss(
        model,
        ids,
        n_bytes=1,
        start_id=0,
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (61, 61)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_batch_of_nothing_is_an_error(model, ids):
    with pytest.raises(ConfigError, match="batch_size"):
        text_loss(model, ids, n_bytes=1, start_id=0, batch_size=0)
