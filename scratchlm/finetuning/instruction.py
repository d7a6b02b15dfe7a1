"""Instruction tuning: train a base model to answer requests and to stop after the answer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from scratchlm.core.batch import Batch
from scratchlm.core.config import check_at_least
from scratchlm.core.protocols import Total
from scratchlm.core.seed import seed_everything
from scratchlm.data.augmentation import augment
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.instruction_split import EntrySplit
from scratchlm.data.prompt_templates import PromptTemplate, template
from scratchlm.evaluation.loss import mean_loss
from scratchlm.finetuning.answers import Answer, AnswerScores, answer_into_file, score_answers
from scratchlm.finetuning.base import load_base, readable_length, warn_about_unknown_marks
from scratchlm.finetuning.fine_tune import FineTuned, facts_about, fine_tune, make_loader
from scratchlm.finetuning.lora import merge_lora
from scratchlm.finetuning.settings import FineTuningSettings
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import head_cross_entropy
from scratchlm.training.callbacks import Callback


@dataclass(frozen=True, kw_only=True)
class InstructSettings(FineTuningSettings):
    """The settings of instruction tuning, in addition to the common ones."""

    template: str = "alpaca"  # or plain, phi3, chatml, llama3: text around a request; stored with the model
    system: str = ""  # system prompt of entries without one of their own; stored with the model
    mask_instruction: bool = True  # compute the loss on answers only; off = on prompts too, as the book does
    last_turn_only: bool = False  # in a conversation compute the loss on the last answer only
    packing: bool = False  # several entries in a row, instead of batches of similar length
    # in file order 85/10/5 %, or leak-free: near-duplicates on one side
    split: Literal["book", "leak-free"] = "book"
    drop_duplicates: bool = False  # leave out entries that nearly repeat an earlier one
    augment: int = 0  # copies of each training entry with a reworded beginning of the instruction
    max_new_tokens: int = 64  # maximum tokens of an answer to a test entry

    def __post_init__(self) -> None:
        super().__post_init__()
        template(self.template)
        augment((), self.augment, seed=self.seed)
        check_at_least(1, max_new_tokens=self.max_new_tokens)


@dataclass(frozen=True, kw_only=True)
class InstructResult(FineTuned):
    """The result of instruction tuning."""

    answers: list[Answer]  # to the test entries, in their order
    scores: AnswerScores
    n_truncated: int  # truncated training entries
    n_left_out: int  # training entries without an answer token after truncation
    padding_share: float  # share of all positions in an epoch's batches
    tokens_per_s: float  # real tokens per second spent in training steps


class InstructionTask:
    """Predict the next token at targets only, in batches made by `InstructionExamples`.

    The loss is that of pre-training, but only few tokens of a row are targets (a fifth in the book's data),
    so the output head is applied to these only. Padding follows the real tokens, where a causal model cannot
    attend to it, so such rows need no attention mask.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """The batch's losses summed over its targets, in nats; smoothed during training only."""
        gpt = cast(GPTModel, model)
        mask = batch.attention_mask
        is_packed = mask is not None and mask.dtype != torch.bool
        mask = mask if is_packed or not gpt.config.is_causal else None
        states = model(batch.inputs, attention_mask=mask, apply_head=False)  # (B, T, E)
        smoothing = self.label_smoothing if model.training else 0.0
        return head_cross_entropy(states, gpt.out_head, batch.targets, label_smoothing=smoothing)

    def metrics(self, model: nn.Module, loader: Iterable[Batch], *, total: Total = list) -> dict[str, float]:
        """Mean loss over a loader, in nats per target."""
        return {"loss": mean_loss(model, loader, self, total=total)}


def finetune_instructions(
    split: EntrySplit[Instruction],
    settings: InstructSettings,
    out: Path,
    *,
    base: str,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> InstructResult:
    """Train an assistant in the run folder `out` and test it.

    The answers to the test entries are saved as `answers.jsonl` (see `answer_into_file`).
    Seeds torch's global generator with `settings.seed`.
    Raises: the readers' and Trainer's errors.
    """
    chosen = template(settings.template)
    seed_everything(settings.seed)
    start = load_base(
        base,
        training_texts=(chosen.full(entry) for entry in split.train),
        device=device,
        drop_rate=settings.drop_rate,
        role_tokens=chosen.marks,
        base_bits=settings.base_bits,
    )
    warn_about_unknown_marks(start, chosen.marks, notify)
    max_length = readable_length(start, settings.max_length, notify)

    def examples_of(entries: Sequence[Instruction]) -> InstructionExamples:
        return InstructionExamples(
            entries,
            start.tokenizer,
            template=chosen,
            mask_instruction=settings.mask_instruction,
            last_turn_only=settings.last_turn_only,
            max_length=max_length,
            packing=settings.packing,
        )

    examples, is_bucketed = examples_of(split.train), not settings.packing
    train = make_loader(examples, settings, shuffle=True, bucket_by_length=is_bucketed)
    val = make_loader(examples_of(split.val), settings, shuffle=False, bucket_by_length=is_bucketed)
    notify(f"{len(split.train):,} entries train, {len(split.val):,} validate, {len(split.test):,} test")
    settings.add_lora(start.model)
    tuned = fine_tune(
        start,
        InstructionTask(label_smoothing=settings.label_smoothing),
        settings,
        train,
        val,
        out=out,
        saved_task=assistant_task(
            chosen, settings.system, n_exchanges=max(entry.n_exchanges for entry in split.train)
        ),
        facts=facts_about(start, *([entry.key for entry in part] for part in (split.train, split.val))),
        noun="entries",
        callbacks=callbacks,
        resume=resume,
        notify=notify,
    )
    merge_lora(start.model)
    answers = answer_into_file(
        split.test,
        start.model,
        start.tokenizer,
        chosen,
        out / "answers.jsonl",
        step=tuned.used_step,
        max_new_tokens=settings.max_new_tokens,
    )
    return InstructResult(
        **vars(tuned),
        answers=answers,
        scores=score_answers(answers),
        n_truncated=examples.n_truncated,
        n_left_out=examples.n_left_out,
        padding_share=examples.padding_share(train.indices(0)),
        tokens_per_s=tuned.progress.tokens / max(tuned.progress.steps_s, 1e-9),
    )


def assistant_task(chosen: PromptTemplate, system: str, *, n_exchanges: int) -> dict[str, Any]:
    """An assistant's `task.json`: its template, and system prompt and number of exchanges where it has them."""
    return {
        "kind": "instruction",
        "template": chosen.name,
        **({"system": system} if system else {}),
        **({"exchanges": n_exchanges} if n_exchanges > 1 else {}),
    }
