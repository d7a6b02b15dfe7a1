"""A resumed run equals the uninterrupted one bit for bit, for every task, precision, dropout and accumulation.

Cuts: inside an epoch, at its end, and in the middle of an evaluation, with early stopping on. The quick form tries each
task in both precisions; all combinations run with the slow tests.
"""

import itertools
import os
import signal
from dataclasses import replace

import pytest

from scratchlm.core.errors import NonFiniteLossError
from scratchlm.core.seed import seed_everything
from scratchlm.data.classification_batches import ClassificationExamples
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.preference_batches import PreferenceExamples
from scratchlm.data.preference_rows import Preference
from scratchlm.data.prompt_templates import template
from scratchlm.data.windows import TokenWindows
from scratchlm.finetuning.classification_task import ClassificationTask
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.instruction import InstructionTask
from scratchlm.finetuning.lora import merged_copy, replace_linear_with_lora
from scratchlm.finetuning.preference_task import PreferenceTask, add_reference_log_probs
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import TrainingConfig
from scratchlm.training.history import History
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.progress import RunFolder
from scratchlm.training.trainer import Trainer
from tests.conftest import StopAt
from tests.finetuning.conftest import WORDS

N_EXAMPLES, BATCH_SIZE = 16, 2
TASKS = ("pretrain", "classify", "instruct with LoRA", "prefer")
CASES = list(itertools.product(TASKS, ("float32", "bf16"), (0.0, 0.1), (1, 4)))
QUICK = [(task, precision, 0.1, 1) for task in TASKS for precision in ("float32", "bf16")]


def examples_for(name, model, tokenizer, drop_rate):
    """Task and examples; without dropout nothing is random."""
    pairs = list(zip(WORDS[:N_EXAMPLES], WORDS[500:]))
    if name == "pretrain":
        ids = tokenizer.encode(" ".join(WORDS[:200]))
        return PretrainingTask(), TokenWindows(ids[: N_EXAMPLES * 12 + 1], context_length=12)
    if name == "classify":
        replace_head(model, 2)
        texts, labels = [f"{one} {other}" for one, other in pairs], [i % 2 for i in range(N_EXAMPLES)]
        rows = [tokenizer.encode(text) for text in texts]
        return ClassificationTask(token_noise=drop_rate), ClassificationExamples(
            rows, labels, classes=("a", "b"), pad_id=0
        )
    if name == "instruct with LoRA":
        model.requires_grad_(False)
        replace_linear_with_lora(model, 2, 2, dropout=drop_rate)
        entries = [Instruction(instruction="say", input=one, output=other) for one, other in pairs]
        return InstructionTask(), InstructionExamples(entries, tokenizer, template=template("plain"))
    answers = [Preference(instruction="say", input=one, chosen=other, rejected=one) for one, other in pairs]
    examples = PreferenceExamples(answers, tokenizer, template=template("plain"))
    add_reference_log_probs(examples, model, batch_size=4)
    return PreferenceTask(), examples


def run_of(name, folder, tokenizer, *, precision, drop_rate, accumulate, n_layers=1, **settings):
    """A trainer and its loaders, built as a restarted process would."""
    seed_everything(5)
    model = GPTModel(
        GPTConfig(
            vocab_size=tokenizer.vocab_size, context_length=48, emb_dim=16, n_heads=2, n_layers=n_layers,
            drop_rate=drop_rate, tie_embeddings=True, init="gpt2",
        )
    )  # fmt: skip
    task, examples = examples_for(name, model, tokenizer, drop_rate)
    config = TrainingConfig(
        max_steps=10, batch_size=BATCH_SIZE, accumulate=accumulate, precision=precision, learning_rate=1e-2,
        warmup_steps=2, eval_every_steps=5, checkpoint_every_steps=3, patience=2, **settings,
    )  # fmt: skip
    loader = BatchLoader(examples, batch_size=BATCH_SIZE, seed=5, shuffle=True)
    folder.mkdir(exist_ok=True)
    run = RunFolder(
        path=folder, tokenizer=tokenizer, merge=merged_copy if "LoRA" in name else None,
        task={"kind": "classification", "classes": ["a", "b"]} if name == "classify" else None,
    )  # fmt: skip
    val = BatchLoader(examples, batch_size=4, shuffle=False)
    return Trainer(model, task, config, run=run), loader, val


def stop_in_evaluation(trainer, step):
    """Let a signal arrive after the first validation batch of a step."""
    measure = trainer.task.metrics

    def batches(val):
        yield next(batches_left := iter(val))
        if trainer.progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        yield from batches_left

    trainer.task.metrics = lambda model, val, *, total: measure(model, batches(val), total=total)


def check(case, tokenizer, tmp_path):
    """The uninterrupted run, and one that is stopped at three steps of the same kind of run."""
    name, precision, drop_rate, accumulate = case
    settings = {"precision": precision, "drop_rate": drop_rate, "accumulate": accumulate}
    whole, train, val = run_of(name, tmp_path / "whole", tokenizer, **settings)
    whole.fit(train, val)
    n_in_epoch = N_EXAMPLES // BATCH_SIZE // accumulate
    for cut in (1, n_in_epoch, 5):  # inside an epoch, at its end, in an evaluation
        folder = tmp_path / f"cut-{cut}"
        stopped, train, val = run_of(name, folder, tokenizer, **settings)
        if cut == 5:
            stop_in_evaluation(stopped, cut)
        else:
            stopped.callbacks = [StopAt(cut)]
        with pytest.raises(StoppedBySignal):
            stopped.fit(train, val)
        assert (stopped.progress.step, stopped.progress.evaluated_step) == (cut, 5 * (cut > 5))
        resumed, train, val = run_of(name, folder, tokenizer, **settings)
        resumed.fit(train, val, resume=True)
        assert resumed.resumed_from == cut
        times = {"elapsed_s": 0.0, "first_step_s": 0.0, "steps_s": 0.0}
        assert replace(resumed.progress, **times) == replace(whole.progress, **times)
        weights, others = whole.model.state_dict(), resumed.model.state_dict()
        assert all(weights[key].equal(others[key]) for key in weights), case


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_every_task_resumes_bit_for_bit(case, base_tokenizer, tmp_path):
    check(case, base_tokenizer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK], ids=str)
def test_every_task_resumes_bit_for_bit_with_every_setting(case, base_tokenizer, tmp_path):
    check(case, base_tokenizer, tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", TASKS)
def test_activation_checkpointing_changes_no_bit_of_any_task(name, precision, base_tokenizer, tmp_path):
    found = []
    for is_on in (False, True):
        trainer, train, val = run_of(
            name, tmp_path / str(is_on), base_tokenizer,
            precision=precision, drop_rate=0.1, accumulate=2, activation_checkpointing=is_on,
        )  # fmt: skip
        assert trainer.model.trf_blocks[0].activation_checkpointing == is_on
        trainer.fit(train, val)
        found.append((trainer.progress, trainer.model.state_dict()))
    (plain, weights), (less, others) = found
    assert (less.train_loss, less.val_loss) == (plain.train_loss, plain.val_loss)
    assert all(weights[key].equal(others[key]) for key in weights)


def poison(trainer, bad_steps):
    """Make the loss of these steps NaN, whichever process computes them."""
    loss_sum = trainer.task.loss_sum

    def poisoned(model, batch):
        is_bad = model.training and trainer.progress.step + 1 in bad_steps
        return loss_sum(model, batch) * (float("nan") if is_bad else 1.0)

    trainer.task.loss_sum = poisoned


@pytest.mark.parametrize("name", TASKS)
def test_a_loss_that_is_not_finite_stops_any_task_and_names_its_batch(name, base_tokenizer, tmp_path):
    settings = {"precision": "float32", "drop_rate": 0.1, "accumulate": 2}
    trainer, train, val = run_of(name, tmp_path, base_tokenizer, **settings)
    poison(trainer, {6})
    with pytest.raises(
        NonFiniteLossError, match=r"the loss of step 6 is not finite: nan at epoch 1, batch 2"
    ):
        trainer.fit(train, val)
    assert trainer.progress.step == 5


@pytest.mark.parametrize("name", TASKS)
def test_a_bounded_number_of_steps_is_skipped_in_any_task(name, base_tokenizer, tmp_path, caplog):
    """The weights stay as they were, the run resumes bit for bit, and one step more stops it."""
    settings = {"precision": "float32", "drop_rate": 0.1, "accumulate": 2, "max_skipped_steps": 2}

    def started(folder, bad_steps):
        trainer, train, val = run_of(name, folder, base_tokenizer, **settings)
        poison(trainer, bad_steps)
        return trainer, train, val

    whole, train, val = started(tmp_path / "whole", {4, 7})
    whole.fit(train, val)
    assert (whole.progress.step, whole.progress.skipped_steps) == (10, 2)
    assert "the loss of step 4 is not finite: nan at epoch 0, batch 6; the step is skipped" in caplog.text
    records = History(tmp_path / "whole/metrics.jsonl").records()
    skipped = [(record["step"], record["reason"]) for record in records if record["kind"] == "skipped"]
    assert skipped[0] == (4, "the loss of step 4 is not finite: nan at epoch 0, batch 6")
    assert [step for step, _ in skipped] == [4, 7]
    assert [record["step"] for record in records if record["kind"] == "step"] == [1, 2, 3, 5, 6, 8, 9, 10]

    before, train, val = started(tmp_path / "cut", {4, 7})
    before.callbacks = [StopAt(3)]
    with pytest.raises(StoppedBySignal):
        before.fit(train, val)
    after, train, val = started(tmp_path / "cut", {4, 7})
    after.fit(train, val, resume=True)
    weights, others = whole.model.state_dict(), after.model.state_dict()
    assert all(weights[key].equal(others[key]) for key in weights)
    assert History(tmp_path / "cut/metrics.jsonl").records()[-1]["step"] == 10

    unchanged, train, val = started(tmp_path / "unchanged", {4})
    unchanged.callbacks = [Weights(unchanged)]
    unchanged.fit(train, val)
    assert unchanged.callbacks[0].changed == {1, 2, 3, 5, 6, 7, 8, 9, 10}

    one_more, train, val = started(tmp_path / "more", {4, 7, 9})
    with pytest.raises(NonFiniteLossError, match=r"step 9 .* skip more such steps \(max_skipped_steps\)"):
        one_more.fit(train, val)


class Weights(Callback):
    """Records which steps change a trainable weight."""

    def __init__(self, trainer):
        self.weights, self.changed = trainer.optimizers.trainable, set()
        self.before = {name: p.detach().clone() for name, p in self.weights.items()}

    def on_step(self, record):
        self.look(record.step)

    def on_skipped_step(self, step, reason):
        self.look(step)

    def look(self, step):
        if any(not p.equal(self.before[name]) for name, p in self.weights.items()):
            self.changed.add(step)
        self.before = {name: p.detach().clone() for name, p in self.weights.items()}
