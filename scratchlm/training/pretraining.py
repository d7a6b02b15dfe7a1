"""Pre-train a model on text files, in a run folder, to predict the next token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.checkpoints.store import resolve_model
from scratchlm.core.batch import Batch
from scratchlm.core.errors import ConfigError, DataError, TokenizerError
from scratchlm.core.memory import memory_errors_explained
from scratchlm.core.protocols import ShowsProgress, Tokenizer, Total, no_progress
from scratchlm.core.seed import seed_everything
from scratchlm.data.document_split import Survey
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.shards import PreparedTokens, prepare_tokens, token_folder
from scratchlm.data.windows import TokenWindows
from scratchlm.evaluation.loss import TextLoss, mean_loss, text_loss
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import head_cross_entropy
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.training.callbacks import Callback
from scratchlm.training.config import TrainingConfig
from scratchlm.training.distributed import current_ranks
from scratchlm.training.progress import RunFolder
from scratchlm.training.settings import (
    ModelSettings,
    TextSettings,
    TokenizerSettings,
    resolve_data,
    survey_texts,
    train_tokenizer,
)
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
class PretrainSettings:
    """All settings of a pre-training run."""

    data: tuple[str, ...] = ()  # files, folders, globs or known names
    val_data: tuple[str, ...] = ()  # separate validation text, instead of a part of data
    text: TextSettings = field(default_factory=TextSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=1.0))
    sample_prompt: str = "Once upon a time"  # prompt of the text samples during training


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """The results of a finished pre-training run, and the size of the text they were measured on."""

    folder: Path  # the run folder
    checkpoint: Path  # the model folder to use
    step: int  # steps done
    used_step: int  # step of the evaluated model: see the setting `use`
    train_loss: float | None  # nats per token, last step
    final: TextLoss  # over the validation text, or its first FINAL_EVALUATION_TOKENS tokens
    tokens: int  # trained on
    seconds: float  # of training, over all starts
    tokens_per_s: float  # in steps: without evaluation, sampling and checkpoints
    resumed_from: int | None
    earlier_s: float  # training time before this call, when it resumed a run
    n_parameters: int
    data: PreparedTokens
    tokenizer: Tokenizer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A new model and the data to train it on."""

    tokenizer: Tokenizer
    data: PreparedTokens
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
        tokenizer, survey = _tokenizer_of_run(
            settings, out, extra_tokenizer_texts, notify, progress, resume=is_trained
        )
        data = _tokens(settings, tokenizer, survey, progress)
    config = settings.model.resolve(vocab_size=tokenizer.vocab_size)
    training, context = settings.training, config.context_length
    _check_lengths(settings, data, context)
    start = tokenizer.end_of_text_id if settings.text.attend_within_documents else None
    train_windows = TokenWindows(
        data.train, context_length=context, stride=settings.text.stride, document_start=start
    )
    if training.batch_size > len(train_windows):
        notify(
            f"batch_size {training.batch_size} is more than the {len(train_windows)} windows of the training text, so "
            "each batch holds all of them"
        )
    seed_everything(training.seed)
    with memory_errors_explained("choose a smaller model"):
        model = GPTModel(config).to(device)
    return Prepared(
        tokenizer=tokenizer,
        data=data,
        model=model,
        train=_loader(train_windows, training, shuffle=True),
        val=_loader(
            TokenWindows(data.val, context_length=context, document_start=start), training, shuffle=False
        ),
    )


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
        f"{model.n_parameters():,} parameters, {len(data.train):,} training and {len(data.val):,} validation tokens"
    )
    within_documents = settings.text.attend_within_documents
    facts: dict[str, object] = {"data_fingerprint": data.fingerprint}
    if within_documents:
        facts["attend_within_documents"] = True
    prompt = readable_prompt(tokenizer, settings.sample_prompt, data.train[:12].tolist(), notify)
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
    return PretrainResult(
        folder=out,
        checkpoint=resolve_model(out),
        step=trained.step,
        used_step=trainer.used_step,
        train_loss=trained.train_loss,
        final=validation_loss(model, data, tokenizer, within_documents=within_documents),
        tokens=trained.tokens,
        seconds=trained.elapsed_s,
        tokens_per_s=trained.tokens / trained.steps_s if trained.steps_s else 0.0,
        resumed_from=trainer.resumed_from,
        earlier_s=trainer.earlier_s,
        n_parameters=model.n_parameters(),
        data=data,
        tokenizer=tokenizer,
    )


def validation_loss(
    model: GPTModel, data: PreparedTokens, tokenizer: Tokenizer, *, within_documents: bool
) -> TextLoss:
    """Loss over the validation text, or the first FINAL_EVALUATION_TOKENS tokens of a longer one."""
    ids = data.val[:FINAL_EVALUATION_TOKENS]
    is_whole = len(ids) == len(data.val)
    n_bytes = data.val_n_bytes if is_whole else len(tokenizer.decode(ids.tolist()).encode("utf-8"))
    return text_loss(
        model, ids, n_bytes=n_bytes, start_id=tokenizer.end_of_text_id, within_documents=within_documents
    )


def readable_prompt(
    tokenizer: Tokenizer, prompt: str, start: Sequence[int], notify: Callable[[str], None]
) -> str:
    """The prompt of text samples: the given one, or the start of the training text."""
    try:
        tokenizer.encode(prompt)
    except TokenizerError as error:
        instead = tokenizer.decode(start)
        notify(f"text samples begin with {instead!r}, since the vocabulary cannot write {prompt!r}: {error}")
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


def _tokenizer_of_run(
    settings: PretrainSettings,
    out: Path,
    extra_texts: Iterable[str],
    notify: Callable[[str], None],
    progress: ShowsProgress,
    *,
    resume: bool,
) -> tuple[Tokenizer, Survey | None]:
    """The run's tokenizer, trained at the first start and loaded later, and the survey from its training."""
    path, survey = out / "tokenizer.json", None
    if not (resume and path.exists()):
        started_at_s = time.perf_counter()
        data = resolve_data(settings.data)
        text = replace(settings.text, val_fraction=0.0) if settings.val_data else settings.text
        with progress("training a tokenizer") as report:
            if settings.tokenizer.is_trained and token_folder(data) is None:
                survey = survey_texts(data, text)
            tokenizer = train_tokenizer(
                settings.tokenizer, data, text, extra_texts=extra_texts, survey=survey, progress=report
            )
        tokenizer.save(path)
        notify(f"tokenizer of {tokenizer.vocab_size:,} tokens in {time.perf_counter() - started_at_s:.1f} s")
    return load_tokenizer(path, engine="tiktoken"), survey  # the same ids, faster


def _tokens(
    settings: PretrainSettings, tokenizer: Tokenizer, survey: Survey | None, progress: ShowsProgress
) -> PreparedTokens:
    text, cache = settings.text, cache_folder() / "tokens"

    def prepared(data: Sequence[str], val_fraction: float, survey: Survey | None = None) -> PreparedTokens:
        with progress("tokenising") as report:
            return prepare_tokens(
                resolve_data(data),
                tokenizer,
                cache_folder=cache,
                val_fraction=val_fraction,
                split_by=text.split_by,
                rows=text,
                document_separator=text.document_separator,
                skip_bad_lines=text.skip_bad_lines,
                survey=survey,
                progress=report,
            )

    data = prepared(settings.data, 0.0 if settings.val_data else text.val_fraction, survey)
    if text.attend_within_documents:
        _check_documents(data, tokenizer)
    if not settings.val_data:
        return data
    held_out = prepared(settings.val_data, 0.0)
    return PreparedTokens(
        train=data.train,
        val=held_out.train,
        n_documents=data.n_documents + held_out.n_documents,
        train_n_bytes=data.train_n_bytes,
        val_n_bytes=held_out.train_n_bytes,
        skipped_lines=data.skipped_lines + held_out.skipped_lines,
        fingerprint=f"{data.fingerprint}+{held_out.fingerprint}",
        folder=data.folder,
    )


def _check_documents(data: PreparedTokens, tokenizer: Tokenizer) -> None:
    """Check that attention within documents has an effect.

    Raises: ConfigError.
    """
    if tokenizer.end_of_text_id is None:
        raise ConfigError(
            "attend_within_documents needs a tokenizer with an end-of-text token, which separates documents, got one "
            "without; choose another --tokenizer.kind, or leave it out."
        )
    if data.n_documents < 2:
        raise ConfigError(
            "attend_within_documents needs a text of several documents, got one; name the string between them with "
            "--document-separator, give several files, or leave it out."
        )


def _check_lengths(settings: PretrainSettings, data: PreparedTokens, context: int) -> None:
    """Check that training and validation text each fill a window.

    Raises: DataError naming the side that does not, both counts, and the settings to change.
    """
    more_validation = (
        "give more with --val-data" if settings.val_data else "raise --val-fraction, name --val-data"
    )
    sides = (
        ("training", len(data.train), "give more text with --data"),
        ("validation", len(data.val), more_validation),
    )
    for side, n_tokens, advice in sides:
        if n_tokens < context + 1:
            raise DataError(
                f"the {side} text must have at least {context + 1:,} tokens, one more than context_length, got "
                f"{n_tokens:,}; {advice}, or choose a smaller context_length (--model.context-length)."
            )


def _loader(windows: TokenWindows, training: TrainingConfig, *, shuffle: bool) -> BatchLoader:
    batch_size = min(training.batch_size, len(windows))
    return BatchLoader(windows, batch_size=batch_size, seed=training.seed, shuffle=shuffle, drop_last=shuffle)
