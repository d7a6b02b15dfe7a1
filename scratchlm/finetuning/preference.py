"""Preference tuning (DPO and its variants): train an assistant on pairs of a chosen and a rejected answer."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError
from scratchlm.core.seed import seed_everything
from scratchlm.data.instruction_split import EntrySplit
from scratchlm.data.preference_batches import PreferenceExamples
from scratchlm.data.preference_rows import Preference
from scratchlm.data.prompt_templates import template
from scratchlm.finetuning.answers import Answer, answer_into_file
from scratchlm.finetuning.base import load_base, readable_length, warn_about_unknown_marks
from scratchlm.finetuning.fine_tune import FineTuned, facts_about, fine_tune, make_loader
from scratchlm.finetuning.instruction import assistant_task
from scratchlm.finetuning.lora import merge_lora
from scratchlm.finetuning.preference_losses import LossKind
from scratchlm.finetuning.preference_task import PreferenceTask, add_reference_log_probs
from scratchlm.finetuning.settings import FineTuningSettings
from scratchlm.training.callbacks import Callback

DEFAULT_TEMPLATE = "alpaca"
DEFAULT_MARGIN = 1.0


@dataclass(frozen=True, kw_only=True)
class PreferSettings(FineTuningSettings):
    """The settings of preference tuning, in addition to the common ones.

    `label_smoothing` is here the share of pairs whose labels may be swapped, for the loss cdpo.
    """

    loss: LossKind = "dpo"  # the loss to minimize: dpo as in the book, or a variant
    beta: float | None = None  # strength of the penalty for leaving the reference; None = 0.1, simpo: 2
    per_token: bool = False  # an answer's mean log-probability, as in the book; orpo, simpo: always
    simpo_margin: float = DEFAULT_MARGIN  # simpo: minimum margin between the rewards of a pair
    template: str | None = None  # the text around the request; None = the base's own, or alpaca
    drop_rate: float = 0.0  # dropout during tuning; the reference is always computed without
    max_new_tokens: int = 64  # maximum tokens of an answer to a test request

    def __post_init__(self) -> None:
        super().__post_init__()
        self.task()
        if self.template is not None:
            template(self.template)
        check_at_least(1, max_new_tokens=self.max_new_tokens)
        if self.loss != "simpo" and self.simpo_margin != DEFAULT_MARGIN:
            raise ConfigError(
                f"simpo_margin has no effect with the loss {self.loss}, got {self.simpo_margin}; choose simpo."
            )

    def task(self) -> PreferenceTask:
        """The Trainer's task for these settings.

        Raises: ConfigError for settings of another loss than the chosen one.
        """
        return PreferenceTask(
            self.loss,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            per_token=self.per_token,
            margin=self.simpo_margin,
        )


@dataclass(frozen=True, kw_only=True)
class PreferResult(FineTuned):
    """The result of preference tuning, measured on held-out pairs."""

    template: str
    before: dict[str, float]  # PreferenceTask.metrics of the base on the test pairs
    after: dict[str, float]  # of the tuned model
    test_n: int  # test pairs
    beta: float
    answers: list[Answer]  # to the test requests; the chosen answer is the reference
    n_truncated: int  # truncated training pairs
    n_left_out: int  # training pairs without an answer token after truncation


def finetune_preferences(
    split: EntrySplit[Preference],
    settings: PreferSettings,
    out: Path,
    *,
    base: str,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> PreferResult:
    """Tune a model on pairs of answers in the run folder `out` and test it.

    The base is the reference model. Its log-probabilities are computed once before training, so that it need
    not stay in memory; a resumed run computes them again and gets the same values. With `lora_rank` the
    checkpoints hold merged weights, and the adapter alone is written to `out/adapter`.
    Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    seed_everything(settings.seed)
    chosen = template(settings.template or DEFAULT_TEMPLATE)
    start = load_base(
        base,
        training_texts=(chosen.full(pair.with_answer(pair.chosen)) for pair in split.train),
        device=device,
        drop_rate=settings.drop_rate,
        role_tokens=chosen.marks,
        base_bits=settings.base_bits,
    )
    chosen = template(settings.template or str(start.task.get("template", DEFAULT_TEMPLATE)))
    model, task, system = start.model, settings.task(), str(start.task.get("system", ""))
    warn_about_unknown_marks(start, chosen.marks, notify)
    max_length = readable_length(start, settings.max_length, notify)
    # Pairs without a system prompt get the base's, because `chat` will use it.
    train, val, test = (
        [pair if pair.system else dataclasses.replace(pair, system=system) for pair in part]
        for part in (split.train, split.val, split.test)
    )
    examples = [
        PreferenceExamples(part, start.tokenizer, template=chosen, max_length=max_length)
        for part in (train, val, test)
    ]
    notify(f"{len(examples[0]):,} pairs train, {len(examples[1]):,} validate, {len(examples[2]):,} test")
    if task.needs_reference:
        for part in examples:
            add_reference_log_probs(part, model, batch_size=settings.batch_size)
    loaders = [make_loader(part, settings, shuffle=part is examples[0]) for part in examples]
    before = task.metrics(model, loaders[2])
    settings.add_lora(model)
    n_exchanges = max(int(start.task.get("exchanges", 1)), *(len(pair.history) + 1 for pair in train))
    tuned = fine_tune(
        start,
        task,
        settings,
        *loaders[:2],
        out=out,
        saved_task=assistant_task(chosen, system, n_exchanges=n_exchanges),
        facts=facts_about(start, chosen.name, _texts(train), _texts(val)),
        noun="pairs",
        callbacks=callbacks,
        resume=resume,
        notify=notify,
    )
    after = task.metrics(model, loaders[2])
    merge_lora(model)
    answers = answer_into_file(
        [pair.with_answer(pair.chosen) for pair in test],
        model,
        start.tokenizer,
        chosen,
        out / "answers.jsonl",
        step=tuned.used_step,
        max_new_tokens=settings.max_new_tokens,
    )
    return PreferResult(
        **vars(tuned),
        template=chosen.name,
        before=before,
        after=after,
        test_n=len(examples[2]),
        beta=task.beta,
        answers=answers,
        n_truncated=examples[0].n_truncated,
        n_left_out=examples[0].n_left_out,
    )


def _texts(pairs: Sequence[Preference]) -> list[list[object]]:
    return [[*pair.with_answer(pair.chosen).key, pair.rejected] for pair in pairs]
