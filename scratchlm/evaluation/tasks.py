"""Score benchmark questions without a judge: last word, multiple choice, exact answer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.evaluation.intervals import MIN_BLOCKS, bootstrap_interval, wilson_interval
from scratchlm.evaluation.judge.parse_reply import without_thoughts
from scratchlm.evaluation.likelihood import EncodedPair, continuation_likelihoods, encode_pair
from scratchlm.evaluation.loss import perplexity_of
from scratchlm.evaluation.task_items import ChoiceItem, ClozeItem, GenerationItem
from scratchlm.evaluation.text_scores import exact_match, final_number, marked_number
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_texts
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.special_tokens import encode_from_start, end_ids
from scratchlm.tokenizers.word import loses_text

Progress = Callable[[int, int], None]
Measure = Literal["accuracy", "accuracy_characters", "accuracy_bytes", "accuracy_folded", "accuracy_strict"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """A model's scores on one task, and the outcome of each question."""

    rights: dict[Measure, int]  # number of correct questions by measure; `accuracy` is always present
    n: int
    chance: float | None  # accuracy of guessing, for multiple-choice questions
    n_cropped: int  # questions cut at their beginning because they were too long
    items: tuple[dict[str, Any], ...]  # one row per question, in order
    perplexity: float | None = None  # perplexity of the target words
    perplexity_interval: tuple[float, float] | None = None  # also None for fewer than ten questions

    def share(self, measure: Measure = "accuracy") -> float:
        """The share of correct questions."""
        return self.rights[measure] / self.n

    def interval(self, measure: Measure = "accuracy") -> tuple[float, float]:
        """The share's 95 % interval."""
        return wilson_interval(self.rights[measure], self.n)


def score_cloze(
    model: GPTModel,
    tokenizer: Tokenizer,
    items: Sequence[ClozeItem],
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> TaskResult:
    """Score cloze questions: whether the last word is the model's greedy prediction, and its likelihood.

    A word is correct when each of its tokens is the most likely one; a word that is not in the vocabulary is never
    correct, although the model may predict the unknown token. The perplexity is per word, not per token.
    Source: Paperno et al. 2016 (LAMBADA); figures as lm-evaluation-harness's `lambada_openai`.
    Raises: DataError for no items, or one that cannot be encoded.
    """
    _need_items(items)
    room = model.config.context_length
    pairs = [_pair(tokenizer, item.context, item.target, item.origin, room=room) for item in items]
    found = continuation_likelihoods(model, pairs, batch_size=batch_size, progress=progress)
    losses = [-one.log_prob for one in found]
    interval = None
    if len(losses) >= MIN_BLOCKS:  # with fewer questions the bootstrap interval would be too narrow
        low, high = bootstrap_interval(losses)
        interval = (perplexity_of(low), perplexity_of(high))
    is_right = [one.is_greedy for one in found]
    if loses_text(tokenizer):
        is_known = [
            tokenizer.decode(pair.continuation).split() == [i.target.strip()] for pair, i in zip(pairs, items)
        ]
        is_right = [right and known for right, known in zip(is_right, is_known)]
    return TaskResult(
        rights={"accuracy": sum(is_right)},
        n=len(items),
        chance=None,
        n_cropped=sum(one.n_cropped > 0 for one in found),
        perplexity=perplexity_of(math.fsum(losses) / len(losses)),
        perplexity_interval=interval,
        items=tuple(
            {"origin": i.origin, "target": i.target.strip(), "right": right, "log_prob": one.log_prob}
            for i, one, right in zip(items, found, is_right)
        ),
    )


def score_choices(
    model: GPTModel,
    tokenizer: Tokenizer,
    items: Sequence[ChoiceItem],
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> TaskResult:
    """Score multiple-choice questions by the likelihood of each choice after the question.

    Longer choices have lower probabilities, so there are three accuracies: by the log-probability of the
    whole choice, per character, and per UTF-8 byte.
    Source: `acc`, `acc_norm` and `acc_bytes` of lm-evaluation-harness; of equal choices the first is taken.
    Raises: DataError for no items, or one that cannot be encoded.
    """
    _need_items(items)
    pairs = [
        _pair(tokenizer, item.context, item.delimiter + choice, item.origin, room=model.config.context_length)
        for item in items
        for choice in item.choices
    ]
    found = iter(continuation_likelihoods(model, pairs, batch_size=batch_size, progress=progress))
    rights: dict[Measure, int] = {"accuracy": 0, "accuracy_characters": 0, "accuracy_bytes": 0}
    rows, n_cropped = [], 0
    for item in items:
        mine = [next(found) for _ in item.choices]
        n_cropped += any(one.n_cropped for one in mine)
        log_probs = [one.log_prob for one in mine]
        chosen: dict[Measure, int] = {
            "accuracy": _first_best(log_probs),
            "accuracy_characters": _first_best([p / len(c) for p, c in zip(log_probs, item.choices)]),
            "accuracy_bytes": _first_best([p / len(c.encode()) for p, c in zip(log_probs, item.choices)]),
        }
        for measure, choice in chosen.items():
            rights[measure] += choice == item.answer
        rows.append({"origin": item.origin, "answer": item.answer, "chosen": chosen, "log_probs": log_probs})
    return TaskResult(
        rights=rights,
        n=len(items),
        chance=math.fsum(1 / len(item.choices) for item in items) / len(items),
        n_cropped=n_cropped,
        items=tuple(rows),
    )


def score_generation(
    model: GPTModel,
    tokenizer: Tokenizer,
    items: Sequence[GenerationItem],
    *,
    max_new_tokens: int | None = None,
    stop_texts: Sequence[str] | None = None,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> TaskResult:
    """Score generation questions: whether greedy decoding gives exactly the answer, or its number.

    Generation ends at a stop text, at one of stop_ids (default: end-of-text) or after max_new_tokens; by default at the
    end of the line, and after 64 tokens. White space around the answer is ignored; `accuracy_folded` also ignores case
    and punctuation at the ends. For questions with a number, the defaults are the next "Question:", and 256 tokens or
    half of the context: the final number counts, and for `accuracy_strict` only one after `####`. Prompts that leave no
    room for the answer are cut at their beginning and counted. A leading `<think>...</think>` is no part of an answer.
    Raises: DataError for no items, and for a context too short for max_new_tokens; ConfigError for invalid settings.
    """
    _need_items(items)
    has_numbers = any(item.number is not None for item in items)
    if max_new_tokens is None:
        max_new_tokens = min(256, model.config.context_length // 2) if has_numbers else 64
    if stop_texts is None:
        stop_texts = ("Question:",) if has_numbers else ("\n",)
    check_at_least(1, max_new_tokens=max_new_tokens)
    room = model.config.context_length - max_new_tokens
    if room < 1:
        raise DataError(
            f"{max_new_tokens} new tokens leave no room for the prompt in a context of {model.config.context_length} "
            "tokens; lower max_new_tokens."
        )
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        stop_texts=tuple(stop_texts),
        stop_ids=tuple(end_ids(tokenizer, {}) if stop_ids is None else stop_ids),
        start_id=tokenizer.end_of_text_id,
    )
    prompts = [encode_from_start(tokenizer, item.prompt) for item in items]
    written = generate_texts(
        model,
        [prompt[-room:] for prompt in prompts],
        config,
        tokenizer=tokenizer,
        batch_size=batch_size,
        progress=progress,
    )
    texts = list(written)
    replies = [without_thoughts(text) for text in texts]
    right = [_is_right(item, replies[i], final_number) for i, item in enumerate(items)]
    rights: dict[Measure, int] = {"accuracy": sum(right)}
    if has_numbers:
        rights["accuracy_strict"] = sum(
            _is_right(item, replies[i], marked_number) for i, item in enumerate(items)
        )
    else:
        rights["accuracy_folded"] = sum(
            any(exact_match(replies[i], answer) for answer in item.answers) for i, item in enumerate(items)
        )
    return TaskResult(
        rights=rights,
        n=len(items),
        chance=None,
        n_cropped=sum(len(prompt) > room for prompt in prompts),
        items=tuple(
            {"origin": item.origin, "written": texts[i], "answers": list(item.answers), "right": right[i]}
            for i, item in enumerate(items)
        ),
    )


def _is_right(item: GenerationItem, text: str, number_in: Callable[[str], Decimal | None]) -> bool:
    if item.number is None:
        return text.strip() in {answer.strip() for answer in item.answers}
    return number_in(text) == item.number


def _pair(tokenizer: Tokenizer, context: str, continuation: str, origin: str, *, room: int) -> EncodedPair:
    try:
        pair = encode_pair(tokenizer, context, continuation)
    except DataError as cause:
        raise DataError(f"{origin}: {cause}") from cause
    if len(pair.continuation) > room:
        raise DataError(
            f"{origin}: the target has {len(pair.continuation)} tokens and the context length is {room}; remove the "
            "line, or use a model with a longer context."
        )
    return pair


def _need_items(items: Sequence[object]) -> None:
    if not items:
        raise DataError("a task needs at least one question, got none; check the file.")


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))
