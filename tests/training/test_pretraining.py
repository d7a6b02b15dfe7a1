"""From text files to a run folder, and back to where it was interrupted."""

import json
import math

import pytest
import torch

from scratchlm.checkpoints.store import load_model
from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError
from scratchlm.data import shards as token_shards
from scratchlm.evaluation.loss import text_loss
from scratchlm.tokenizers.word import StrictWordTokenizer
from scratchlm.training import pretraining
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import (
    PretrainingTask,
    pretrain,
    readable_prompt,
    text_sampler,
)
from scratchlm.training.settings import ModelSettings, TextSettings, TokenizerSettings
from tests.training.conftest import SENTENCES

CPU = torch.device("cpu")


def test_the_task_counts_unmasked_targets_only(tiny_run):
    trainer, train, _ = tiny_run(drop_rate=0.0)
    batch = next(train.epoch(0))
    masked = Batch(inputs=batch.inputs, targets=batch.targets.clone())
    masked.targets[:, :5] = IGNORE_INDEX
    trainer.model.eval()
    task = PretrainingTask(label_smoothing=0.2)
    log_probs = trainer.model(batch.inputs).log_softmax(dim=-1)
    by_hand = -log_probs[:, 5:].gather(2, batch.targets[:, 5:, None]).sum()
    torch.testing.assert_close(task.loss_sum(trainer.model, masked), by_hand)
    assert task.metrics(trainer.model, [masked])["loss"] == pytest.approx(
        by_hand.item() / masked.n_targets, rel=1e-5
    )


def test_smoothing_is_for_training_only(tiny_run):
    trainer, train, _ = tiny_run(drop_rate=0.0)
    batch = next(train.epoch(0))
    plain, smooth = PretrainingTask(), PretrainingTask(label_smoothing=0.2)
    trainer.model.train()
    assert not torch.equal(plain.loss_sum(trainer.model, batch), smooth.loss_sum(trainer.model, batch))
    trainer.model.eval()
    assert torch.equal(plain.loss_sum(trainer.model, batch), smooth.loss_sum(trainer.model, batch))


def test_a_run_leaves_a_model_that_loads_and_figures_that_are_measured(quick, tmp_path):
    settings = quick(training={"max_steps": 30, "eval_every_steps": 10, "sample_every_steps": 10})
    result = pretrain(settings, tmp_path / "run", device=CPU)
    loaded = load_model(tmp_path / "run")
    assert (result.step, result.resumed_from) == (30, None)
    assert result.tokens == 30 * 4 * 16
    assert result.n_parameters == loaded.model.n_parameters()
    assert loaded.manifest["data_fingerprint"] == result.data.fingerprint
    again = text_loss(
        loaded.model,
        result.data.val[0],
        n_bytes=sum(result.data.val_n_bytes),
        start_id=loaded.tokenizer.end_of_text_id,
    )
    assert result.final == again
    assert result.final.n_tokens == result.data.n_val_tokens
    assert result.final.loss < 0.8 * math.log(result.tokenizer.vocab_size)
    lines = (tmp_path / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [s["step"] for s in samples] == [0, 10, 20, 30]
    assert all(s["prompt"] == "Once upon a time" for s in samples)
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_validation_text_of_its_own_is_used_whole_and_leaves_the_training_text_whole(quick, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("a bird sang and a bird flew. " * 9, encoding="utf-8")
    result = pretrain(quick(val_data=(str(other),)), tmp_path / "run", device=CPU)
    assert result.tokenizer.decode(result.data.val[0].tolist()).startswith("a bird sang")
    assert sum(result.data.val_n_bytes) == other.stat().st_size == result.final.n_bytes
    assert result.data.sources[0].train_n_bytes == len(SENTENCES) * 60
    assert result.data.n_documents == 2


def test_a_part_of_the_text_validates_otherwise(quick, tmp_path):
    result = pretrain(quick(text=TextSettings(val_fraction=0.25)), tmp_path / "run", device=CPU)
    share = sum(result.data.val_n_bytes) / (
        sum(result.data.val_n_bytes) + result.data.sources[0].train_n_bytes
    )
    assert share == pytest.approx(0.25, abs=0.01)


def test_a_long_validation_text_is_scored_at_its_beginning_and_the_figure_says_how_much(
    quick, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretraining, "FINAL_EVALUATION_TOKENS", 20)
    result = pretrain(quick(), tmp_path / "run", device=CPU)
    assert result.final.n_tokens == 20
    assert result.final.n_bytes == len(result.tokenizer.decode(result.data.val[0][:20].tolist()).encode())


@pytest.mark.parametrize("stop_step", [1, 3])
def test_an_interrupted_run_goes_on_to_the_same_model(quick, tmp_path, stop_step, stop_at):
    settings = quick(training={"checkpoint_every_steps": 2, "eval_every_steps": 2, "sample_every_steps": 2})
    undisturbed = pretrain(settings, tmp_path / "a", device=CPU)
    with pytest.raises(StoppedBySignal):
        pretrain(settings, tmp_path / "b", device=CPU, callbacks=[stop_at(stop_step)])
    torch.rand(3)
    resumed = pretrain(settings, tmp_path / "b", device=CPU, resume=True)
    assert resumed.resumed_from == stop_step
    assert resumed.final == undisturbed.final
    one, other = (load_model(tmp_path / name).model.state_dict() for name in "ab")
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    assert (tmp_path / "a" / "samples.jsonl").read_text() == (tmp_path / "b" / "samples.jsonl").read_text()


def test_a_resumed_run_keeps_its_tokenizer_whatever_the_extra_texts(quick, tmp_path):
    first = pretrain(quick(), tmp_path / "run", device=CPU)
    again = pretrain(
        quick(), tmp_path / "run", device=CPU, extra_tokenizer_texts=["new words"] * 9, resume=True
    )
    assert again.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert again.final == first.final


def test_gpt2s_tokenizer_serves_a_small_model(quick, tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    settings = quick(
        data=("the-verdict",), tokenizer=TokenizerSettings(kind="gpt2"), training={"max_steps": 1},
        text=TextSettings(val_fraction=0.02),  # scores over 50,257 tokens take their time
        model=ModelSettings(context_length=16, emb_dim=4, n_heads=1, n_layers=1),
    )  # fmt: skip
    result = pretrain(settings, tmp_path / "run", device=CPU)
    assert load_model(tmp_path / "run").config.vocab_size == 50257
    assert result.data.sources[0].train_n_bytes + sum(result.data.val_n_bytes) == 20_479  # the whole story


def test_a_word_tokenizer_serves_too(quick, tmp_path):
    result = pretrain(quick(tokenizer=TokenizerSettings(kind="word")), tmp_path / "run", device=CPU)
    loaded = load_model(tmp_path / "run")
    assert loaded.tokenizer.fingerprint == result.tokenizer.fingerprint
    assert loaded.config.vocab_size == result.tokenizer.vocab_size < 30


def test_what_happens_is_told(quick, tmp_path):
    told = []
    pretrain(quick(), tmp_path / "run", device=CPU, notify=told.append)
    assert told[0].startswith("tokenizer of ")
    assert "training and" in told[1]


def test_skipped_lines_are_told_once(quick, tmp_path, caplog):
    path = tmp_path / "lines.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"{SENTENCES * 3} {i}"}) + "\n" for i in range(20)) + "{broken\n",
        encoding="utf-8",
    )
    settings = quick(data=(str(path),), text=TextSettings(skip_bad_lines=True, val_fraction=0.3))
    result = pretrain(settings, tmp_path / "run", device=CPU)
    assert result.data.skipped_lines == 1
    [told] = [message for message in caplog.messages if "skip" in message]
    assert told.startswith("skipped 1 lines that could not be used; the first:")
    assert "line 21" in told


def test_tokenizer_and_tokens_share_one_survey_of_the_corpus(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(token_shards, "survey_sources", None)  # a second one would fail
    result = pretrain(quick(), tmp_path / "run", device=CPU)
    assert result.data.n_documents == 1


def test_a_size_that_does_not_fit_is_refused_before_training(quick, tmp_path):
    with pytest.raises(ConfigError, match="choose n_heads"):
        pretrain(quick(model=ModelSettings(emb_dim=10)), tmp_path / "run", device=CPU)


def test_samples_do_not_disturb_training(tiny_run, small_tokenizer):
    trainer, _, _ = tiny_run()
    sample = text_sampler(small_tokenizer, "the cat", seed=1, max_new_tokens=6)
    before = torch.get_rng_state()
    prompt, text = sample(trainer.model, 3)
    assert prompt == "the cat"
    assert sample(trainer.model, 7) == (prompt, text)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_prompt_that_the_vocabulary_cannot_write_is_replaced_by_the_start_of_the_text():
    letters = StrictWordTokenizer({"the": 0, "cat": 1, "sat": 2})
    told: list[str] = []
    assert readable_prompt(letters, "the cat", [2], told.append) == "the cat"
    assert told == []
    assert readable_prompt(letters, "Once upon a time", [0, 1, 2], told.append) == "the cat sat"
    assert "'Once upon a time'" in told[0]


def test_an_empty_prompt_samples_a_whole_text(tiny_run, small_tokenizer):
    trainer, _, _ = tiny_run()
    assert text_sampler(small_tokenizer, "", seed=1)(trainer.model, 0)[1]
