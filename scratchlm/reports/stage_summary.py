"""The top of the page: a run in one sentence, and the model's life in four steps."""

from __future__ import annotations

from dataclasses import dataclass

from scratchlm.reports.checks import Data
from scratchlm.reports.formats import (
    count,
    decimal,
    duration,
    interval_text,
    is_number,
    percent,
    short_count,
)


@dataclass(frozen=True, kw_only=True)
class LifeStep:
    """One of the four steps of a model's life, with the figure that sums it up."""

    anchor: str
    title: str
    was_run: bool
    figure: str = ""
    unit: str = ""
    lines: tuple[str, ...] = ()


def life_steps(data: Data) -> list[LifeStep]:
    """The model's life in four steps; a step that was not run says so."""
    stages = [
        ("tokenizer", "tokens", "Text to tokens", _tokens_figure),
        ("pretrain", "pretrain", "Learning to write", _pretrain_figure),
        ("classify", "classify", "Spotting spam", _classify_figure),
        ("instruct", "instruct", "Following instructions", _instruct_figure),
    ]
    timed = {stage.get("name"): stage.get("seconds") for stage in data.get("stages") or []}
    steps = []
    for key, anchor, title, tell in stages:
        stage = data.get(key)
        if stage:
            figure, unit, lines = tell(stage)
            seconds = stage.get("seconds", timed.get(key))
            took = [f"in {duration(seconds)}"] if is_number(seconds) else []
            steps.append(
                LifeStep(
                    anchor=anchor, title=title, was_run=True, figure=figure, unit=unit, lines=(*lines, *took)
                )
            )
        else:
            steps.append(LifeStep(anchor=anchor, title=title, was_run=False))
    return steps


def summary(data: Data) -> str:
    """The run in one or two sentences, made of what is known."""
    pretrain, classify, instruct = data.get("pretrain"), data.get("classify"), data.get("instruct")
    parts = []
    if pretrain:
        size = pretrain.get("parameters")
        model = f"A GPT with {short_count(size)} parameters" if is_number(size) else "A GPT"
        tokens = pretrain.get("train_tokens")
        source = f"{short_count(tokens)} tokens of text" if is_number(tokens) else "plain text"
        is_learning = (data.get("unfinished") or {}).get("stage") == "pretrain"
        parts.append(f"{model} {'is learning' if is_learning else 'learned'} to write from {source}")
    known = (
        (classify, "sort messages"),
        (instruct, "follow instructions"),
        (data.get("prefer"), "answer as people like it"),
    )
    after = [words for stage, words in known if stage]
    if after and parts:
        parts.append("then became a specialist that can " + " and another that can ".join(after))
    elif after:
        parts.append("A GPT learned to " + " and to ".join(after))
    sentence = ", ".join(parts) + "." if parts else ""
    if is_number(data.get("seconds")):
        machine = data.get("machine") or {}
        is_cpu = machine.get("device") == "cpu" and is_number(machine.get("cores"))
        where = f"{count(machine['cores'])} CPU cores" if is_cpu else machine.get("device")
        sentence += f" The whole run took {duration(data['seconds'])}{f' on {where}' if where else ''}."
    return sentence.strip()


def _tokens_figure(stage: Data) -> tuple[str, str, list[str]]:
    lines = [f"{stage['kind']} tokenizer"] if stage.get("kind") else []
    if is_number(stage.get("bytes_per_token")):
        lines.append(f"{decimal(stage['bytes_per_token'])} bytes of text per token")
    return count(stage.get("vocab_size")), "tokens known", lines


def _pretrain_figure(stage: Data) -> tuple[str, str, list[str]]:
    lines = []
    if is_number(stage.get("perplexity")):
        lines.append(f"as unsure as a choice among {decimal(stage['perplexity'], 1)} tokens")
    if is_number(stage.get("train_tokens")):
        lines.append(f"{short_count(stage['train_tokens'])} training tokens")
    return decimal(stage.get("val_loss")), "validation loss", lines


def _classify_figure(stage: Data) -> tuple[str, str, list[str]]:
    return percent(stage.get("test_accuracy")), "classified right", _tested(stage, "messages")


def _instruct_figure(stage: Data) -> tuple[str, str, list[str]]:
    return percent(stage.get("exact_match")), "answered exactly", _tested(stage, "tasks")


def _tested(stage: Data, items: str) -> list[str]:
    lines = [f"of {count(stage['test_n'])} held-out {items}"] if is_number(stage.get("test_n")) else []
    ends = interval_text(stage.get("low"), stage.get("high"))
    return [*lines, f"95% interval {ends}"] if ends else lines
