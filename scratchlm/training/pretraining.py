"""Pre-train a model on text files, in a run folder, to predict the next token."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from scratchlm.core.batch import Batch
from scratchlm.core.errors import TokenizerError
from scratchlm.core.memory import memory_errors_explained
from scratchlm.core.protocols import ShowsProgress, Tokenizer, Total, no_progress
from scratchlm.core.seed import seed_everything
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.mixture import MixedWindows
from scratchlm.evaluation.loss import TextLoss, mean_loss, text_loss
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import head_cross_entropy
from scratchlm.training.callbacks import Callback
from scratchlm.training.distributed import current_ranks
from scratchlm.training.pretraining_data import (
    PretrainingText,
    loaders_of_run,
    tokenizer_of_run,
    tokens_by_source,
    tokens_of_run,
)
from scratchlm.training.progress import RunFolder
from scratchlm.training.settings import PretrainSettings
from scratchlm.training.tensorboard import tensorboard_of
from scratchlm.training.trainer import Trainer

FINAL_EVALUATION_TOKENS = 1 << 18  # maximum number of validation tokens scored at the end


class PretrainingTask:
    """Predict the next token at every position."""

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the batch's losses over its targets, in nats; with label smoothing only during training."""
        gpt = cast(GPTModel, model)
        states = model(batch.inputs, attention_mask=batch.attention_mask, apply_head=False)  # (B, T, E)
        smoothing = self.label_smoothing if model.training else 0.0
        return head_cross_entropy(states, gpt.out_head, batch.targets, label_smoothing=smoothing)

    def metrics(self, model: nn.Module, loader: Iterable[Batch], *, total: Total = list) -> dict[str, float]:
        """Mean loss over a loader, in nats per target."""
        return {"loss": mean_loss(model, loader, self, total=total)}


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """The results of a finished pre-training run, and the size of the text they were measured on."""

    step: int  # steps done
    skipped_steps: int  # of these, without an update
    used_step: int  # step of the evaluated model: see the setting `use`
    train_loss: float | None  # nats per token, last step
    final: TextLoss  # over the validation text, or its first FINAL_EVALUATION_TOKENS tokens
    tokens: int  # trained on
    seconds: float  # of training, over all starts
    tokens_per_s: float  # in steps: without evaluation, sampling and checkpoints
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    n_parameters: int
    data: PretrainingText
    tokens_by_source: list[int]  # trained on
    val_losses: list[TextLoss]  # of each part of the validation text, which `final` combines
    tokenizer: Tokenizer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A new model and the data to train it on."""

    tokenizer: Tokenizer
    data: PretrainingText
    model: GPTModel
    train: BatchLoader
    val: BatchLoader


def prepare_pretraining(
    settings: PretrainSettings,
    out: Path,
    *,
    device: torch.device,
    extra_tokenizer_texts: Iterable[str] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    progress: ShowsProgress = no_progress,
) -> Prepared:
    """Train a tokenizer, which is saved in `out`, tokenise the text and build a model.

    Seeds torch's global generator with `settings.training.seed`, which initial weights and dropout use.
    Raises: the readers' and tokenizers' errors.
    """
    ranks = current_ranks()
    with ranks.main_first():  # the others read its tokenizer and token cache
        out.mkdir(parents=True, exist_ok=True)
        is_trained = resume or not ranks.is_main
        tokenizer, surveys = tokenizer_of_run(
            settings, out, extra_tokenizer_texts, notify, progress, resume=is_trained
        )
        data = tokens_of_run(settings, tokenizer, surveys, progress)
    config = settings.model.resolve(vocab_size=tokenizer.vocab_size)
    training = settings.training
    train, val = loaders_of_run(settings, data, tokenizer, context_length=config.context_length)
    if training.batch_size > len(train.examples):
        notify(
            f"batch_size {training.batch_size} is more than the {len(train.examples)} windows of the training text, so "
            "each batch holds all of them"
        )
    seed_everything(training.seed)
    with memory_errors_explained("choose a smaller model"):
        model = GPTModel(config).to(device)
    return Prepared(tokenizer=tokenizer, data=data, model=model, train=train, val=val)


def pretrain(
    settings: PretrainSettings,
    out: Path,
    *,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    extra_tokenizer_texts: Iterable[str] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    progress: ShowsProgress = no_progress,
) -> PretrainResult:
    """Train a tokenizer, tokenise the text and train a model in the run folder `out`.

    Seeds torch's global generator with `settings.training.seed`, which initial weights and dropout use.
    With `resume`, an interrupted run in `out` continues; the result is the same, bit for bit on the CPU, as
    without the interruption.
    Raises: the readers', tokenizers' and Trainer's errors.
    """
    prepared = prepare_pretraining(
        settings,
        out,
        device=device,
        extra_tokenizer_texts=extra_tokenizer_texts,
        resume=resume,
        notify=notify,
        progress=progress,
    )
    tokenizer, data, model = prepared.tokenizer, prepared.data, prepared.model
    notify(
        f"{model.n_parameters():,} parameters, {data.n_train_tokens:,} training and {data.n_val_tokens:,} validation "
        "tokens"
    )
    if isinstance(mixed := prepared.train.examples, MixedWindows):
        for name, share, quota, size in zip(data.names, data.shares, mixed.quotas, mixed.sizes):
            notify(f"{name}: {share:.1%} of the training tokens; {quota:,} of its {size:,} windows per epoch")
    within_documents = settings.text.attend_within_documents
    facts: dict[str, object] = {"data_fingerprint": data.fingerprint}
    if within_documents:
        facts["attend_within_documents"] = True
    prompt = readable_prompt(tokenizer, settings.sample_prompt, data.train[0][:12].tolist(), notify)
    with tensorboard_of(out) as tensorboard:
        trainer = Trainer(
            model,
            PretrainingTask(label_smoothing=settings.training.label_smoothing),
            settings.training,
            run=RunFolder(path=out, tokenizer=tokenizer, facts=facts),
            callbacks=[*tensorboard, *callbacks],
            sample=text_sampler(tokenizer, prompt, seed=settings.training.seed),
            notify=notify,
        )
        trained = trainer.fit(prepared.train, prepared.val, resume=resume)
    val_losses = validation_losses(model, data, tokenizer, within_documents=within_documents)
    return PretrainResult(
        step=trained.step,
        skipped_steps=trained.skipped_steps,
        used_step=trainer.used_step,
        train_loss=trained.train_loss,
        final=TextLoss.together(val_losses),
        val_losses=val_losses,
        tokens_by_source=tokens_by_source(prepared.train, trained.batches),
        tokens=trained.tokens,
        seconds=trained.elapsed_s,
        tokens_per_s=trained.tokens / trained.steps_s if trained.steps_s else 0.0,
        resumed_from=trainer.resumed_from,
        earlier_s=trainer.earlier_s,
        n_parameters=model.n_parameters(),
        data=data,
        tokenizer=tokenizer,
    )


def validation_losses(
    model: GPTModel, data: PretrainingText, tokenizer: Tokenizer, *, within_documents: bool
) -> list[TextLoss]:
    """Loss over each part of the validation text, or the first of FINAL_EVALUATION_TOKENS tokens in equal parts."""
    losses = []
    for whole, n_bytes in zip(data.val, data.val_n_bytes, strict=True):
        ids = whole[: FINAL_EVALUATION_TOKENS // len(data.val)]
        if len(ids) < len(whole):
            n_bytes = len(tokenizer.decode(ids.tolist()).encode("utf-8"))
        start_id = tokenizer.end_of_text_id
        losses.append(
            text_loss(model, ids, n_bytes=n_bytes, start_id=start_id, within_documents=within_documents)
        )
    return losses


def readable_prompt(
    tokenizer: Tokenizer, prompt: str, start: Sequence[int], notify: Callable[[str], None]
) -> str:
    """The prompt of text samples: the given one, or the start of the training text."""
    try:
        tokenizer.encode(prompt)
    except TokenizerError as error:
        instead = tokenizer.decode(start)
        notify(f"text samples begin with {instead!r}, since the vocabulary cannot encode {prompt!r}: {error}")
        return instead
    return prompt


def text_sampler(
    tokenizer: Tokenizer, prompt: str, *, seed: int, max_new_tokens: int = 60
) -> Callable[[nn.Module, int], tuple[str, str]]:
    """Return a function that continues a prompt during training, with its own random generator."""
    prompt_ids = tokenizer.encode(prompt)
    end = tokenizer.end_of_text_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        temperature=0.8,
        top_k=min(50, tokenizer.vocab_size),
        stop_ids=() if end is None else (end,),
        start_id=end,
        seed=seed,
    )

    def sample(model: nn.Module, step: int) -> tuple[str, str]:  # noqa: ARG001
        assert isinstance(model, GPTModel)
        return prompt, generate_ids(model, [prompt_ids], config, tokenizer=tokenizer)[0].text

    return sample
