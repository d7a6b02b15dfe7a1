"""Our models inside EleutherAI's lm-evaluation-harness, so that its hundreds of tasks can be asked of them.

The harness is optional and slow to import, so it is imported only here and only when asked for. Its numbers equal those
of the Hugging Face export of the same weights.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import ConfigError, DataError, DownloadError, MissingDependencyError
from scratchlm.core.protocols import ShowsProgress, Tokenizer, no_progress
from scratchlm.evaluation.likelihood import (
    EncodedPair,
    continuation_likelihoods,
    encode_pair,
    start_tokens,
)
from scratchlm.generation.batches import texts_in_batches
from scratchlm.generation.config import GenerationConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.special_tokens import end_ids

MOST_NEW_TOKENS = 256  # of an answer whose task names no length; the harness's own default
LENGTH_NAMES = (
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
)  # the first given counts


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessScore:
    """One figure of one task, as the harness reports it."""

    task: str
    metric: str
    filter: str  # how answers were prepared; "none" for as they are
    value: float | None  # None: the harness made no finite number of it
    stderr: float | None
    n: int  # questions asked


class HarnessAnswers:
    """The three questions that the harness asks a model; `harness_model` joins them with its base class."""

    def __init__(
        self,
        model: GPTModel,
        tokenizer: Tokenizer,
        *,
        stop_ids: Sequence[int] | None = None,
        batch_size: int = 16,
        show: ShowsProgress = no_progress,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}; 16 is the default.")
        self._show = show
        self._gpt = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._stop_ids = tuple(end_ids(tokenizer, {}) if stop_ids is None else stop_ids)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """How likely is each continuation after its context, and would the model write it?"""
        pairs = [encode_pair(self._tokenizer, *request.args) for request in requests]
        with self._show("scoring continuations") as report:
            found = continuation_likelihoods(self._gpt, pairs, batch_size=self._batch_size, progress=report)
        return [(one.log_prob, one.is_greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """How likely is each whole text, every token counted once?"""
        windows = [list(self._windows(request.args[0])) for request in requests]
        flat = [window for text in windows for window in text]
        with self._show("scoring texts") as report:
            scores = continuation_likelihoods(self._gpt, flat, batch_size=self._batch_size, progress=report)
        found = iter(scores)
        return [sum(next(found).log_prob for _ in text) for text in windows]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What the model writes after each context, up to the task's stop texts."""
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(i)
        texts: dict[int, str] = {}
        with self._show("writing answers") as report:
            for rows in groups.values():
                config = self._generation_config(requests[rows[0]].args[1])
                room = self._gpt.config.context_length - config.max_new_tokens
                prompts = [self._prompt(requests[i].args[0])[-room:] for i in rows]
                n_before = len(texts)
                written = texts_in_batches(
                    self._gpt,
                    prompts,
                    config,
                    tokenizer=self._tokenizer,
                    batch_size=self._batch_size,
                    progress=lambda done, _, n=n_before: report(n + done, len(requests)),  # type: ignore[misc]
                )
                texts |= dict(zip(rows, written))
        return [texts[i] for i in range(len(requests))]

    def _prompt(self, text: str) -> list[int]:
        return start_tokens(self._tokenizer) + self._tokenizer.encode(text)

    def _windows(self, text: str) -> Iterator[EncodedPair]:
        """The text in stretches that fill the context; the last one sees as much before it as there is room for.

        Source: lm-evaluation-harness, `get_rolling_token_windows` with context_len 1.
        """
        ids = tuple(self._tokenizer.encode(text))
        before = tuple(start_tokens(self._tokenizer)) or (self._end_of_text(),)
        room = self._gpt.config.context_length
        for begin in range(0, len(ids), room):
            end = min(begin + room, len(ids))
            context = before if begin == 0 else ids[end - room - 1 : begin]
            yield EncodedPair(context=context, continuation=ids[begin:end])

    def _end_of_text(self) -> int:
        if self._tokenizer.end_of_text_id is None:
            raise ConfigError(
                "whole texts need a token to begin with, found a vocabulary without end-of-text; train a tokenizer "
                "that has one."
            )
        return self._tokenizer.end_of_text_id

    def _generation_config(self, settings: dict[str, Any]) -> GenerationConfig:
        """The harness's words for how to write, in ours.

        Raises: ConfigError for a setting that is not known here, or an answer that leaves no room for its prompt.
        """
        left = dict(settings)
        until = left.pop("until", None) or []
        lengths = [left.pop(name) for name in LENGTH_NAMES if left.get(name) is not None]
        context = self._gpt.config.context_length
        length = int(lengths[0]) if lengths else min(MOST_NEW_TOKENS, context // 2)
        temperature = float(left.pop("temperature", None) or 0.0)
        do_sample = left.pop("do_sample", None)
        filters = {name: left.pop(name) for name in ("top_k", "top_p", "repetition_penalty") if name in left}
        if left or not 0 < length < context:
            found = f"{', '.join(left)}" if left else f"{length} new tokens for a context of {context}"
            raise ConfigError(
                f"a task may set until, {', '.join(LENGTH_NAMES)}, temperature, do_sample, top_k, top_p and "
                f"repetition_penalty, and must leave room for the prompt, found {found}; change the task's "
                "generation_kwargs, or take another model."
            )
        if do_sample and not temperature:
            temperature = 1.0
        stops = [until] if isinstance(until, str) else list(until)
        return GenerationConfig(
            max_new_tokens=length,
            temperature=0.0 if do_sample is False else temperature,
            stop_texts=tuple(stop for stop in stops if stop),
            stop_ids=self._stop_ids,
            start_id=self._tokenizer.end_of_text_id,
            **filters,
        )


def harness_model(
    model: GPTModel,
    tokenizer: Tokenizer,
    *,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 16,
    show: ShowsProgress = no_progress,
) -> Any:
    """A model of ours as an `lm_eval.api.model.LM`, for callers who drive the harness themselves.

    stop_ids: the ids that end an answer; left out, end-of-text.
    Raises: MissingDependencyError without lm-eval.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as cause:
        raise _missing() from cause
    kind = type("HarnessModel", (HarnessAnswers, LM), {})
    return kind(model, tokenizer, stop_ids=stop_ids, batch_size=batch_size, show=show)


def run_harness(
    model: GPTModel,
    tokenizer: Tokenizer,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    n_fewshot: int | None = None,
    stop_ids: Sequence[int] | None = None,
    batch_size: int = 16,
    show: ShowsProgress = no_progress,
) -> list[HarnessScore]:
    """Ask a model the tasks of these names, patterns, groups or .yaml files.

    include_path: a folder with tasks of your own. limit: only so many questions of each task. n_fewshot: solved
    examples before each question; None is what the task says. stop_ids: what ends an answer; None is end-of-text.
    Raises: MissingDependencyError without lm-eval; ConfigError for an unknown task or a limit below 1; DataError for a
        task file that the harness cannot use; DownloadError when a task's data is neither here nor to be had.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as cause:
        raise _missing() from cause
    for name, value, least in (("limit", limit, 1), ("n_fewshot", n_fewshot, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}; leave it out for the default.")
    if include_path is not None and not Path(include_path).is_dir():
        raise ConfigError(f"include_path must be a folder of tasks, found none at {include_path}; check it.")
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    manager.load = _told_in_our_words(manager.load)
    names = [name for task in tasks for name in _known(task, manager)]
    try:
        found = simple_evaluate(
            model=harness_model(model, tokenizer, stop_ids=stop_ids, batch_size=batch_size, show=show),
            tasks=names,
            num_fewshot=n_fewshot,
            limit=limit,
            task_manager=manager,
            log_samples=False,
        )
    except OSError as cause:
        raise DownloadError(
            f"the data of {', '.join(tasks)} should be on this machine or to be had, got: {cause}; fetch it with the "
            "datasets library where there is a network, or name a task with data of your own."
        ) from cause
    return list(_scores(found))


def _told_in_our_words(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The harness's loading of tasks, which lets anything out that a task file can do wrong."""

    def guarded(tasks: Any) -> Any:
        try:
            return load(tasks)
        except OSError:  # data that is not here
            raise
        except Exception as cause:  # other people's templates and settings
            raise DataError(
                f"a task file must be one that lm-evaluation-harness can use, got {type(cause).__name__}: {cause}; "
                "correct the .yaml file, or its data."
            ) from cause

    return guarded


def _known(name: str, manager: Any) -> list[str]:
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return [name]
    matches: list[str] = manager.match_tasks([name])
    if not matches:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3)
        raise ConfigError(
            f"a task must be one that the harness knows, or a .yaml file, found {name!r}; "
            f"{'did you mean ' + ' or '.join(near) if near else 'name the folder of your own with --include-path'}."
        )
    return matches


def _scores(found: dict[str, Any]) -> Iterator[HarnessScore]:
    """`acc,none` and `acc_stderr,none` of each task as one figure."""
    for task, figures in found["results"].items():
        n = found.get("n-samples", {}).get(task, {}).get("effective", 0)
        for key, value in figures.items():
            metric, comma, used = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            yield HarnessScore(
                task=task,
                metric=metric,
                filter=used,
                value=_finite(value),
                stderr=_finite(figures.get(f"{metric}_stderr,{used}")),
                n=int(n),
            )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _missing() -> MissingDependencyError:
    return MissingDependencyError(
        "evaluate harness needs lm-eval, which is not installed: pip install 'scratchlm[harness]'"
    )
