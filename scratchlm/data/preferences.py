"""Preference data: a request and two answers to it, of which people like one better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import check_characters
from scratchlm.data.conversations import Exchange, read_conversation
from scratchlm.data.instructions import Instruction
from scratchlm.data.json_entries import read_json_entries

ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """A task in words, perhaps an input to it, the answer people like better, and the other one.

    In a conversation of several turns it is the last request; `history` holds the exchanges before it.
    """

    instruction: str
    input: str
    chosen: str
    rejected: str
    system: str = ""  # what the assistant is told about itself; "" = nothing
    history: tuple[Exchange, ...] = ()

    def with_answer(self, output: str) -> Instruction:
        """The task with one of the answers, for a prompt template."""
        return Instruction(
            instruction=self.instruction,
            input=self.input,
            output=output,
            system=self.system,
            history=self.history,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceEntries:
    """The pairs of a file, and how many were left out because both answers are the same."""

    pairs: list[Preference]
    n_equal: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceSplit:
    """Which pairs train, validate and test."""

    train: list[Preference]
    val: list[Preference]
    test: list[Preference]


def read_preferences(path: str | Path) -> PreferenceEntries:
    """The pairs of a preference file: a JSON list, or JSONL by the suffix .jsonl.

    Each entry has the texts `chosen` and `rejected`, and the request as `prompt`, or as `instruction` with an
    optional `input`; other keys are left alone, such as the `output` that the book's entries also have. Or both
    answers are lists of messages: whole conversations that differ in the last answer, or only what follows the
    messages of `prompt`. A pair of equal answers says nothing about what people like: it is left out and counted.
    Raises: DataError naming the file and the entry's number (its line in JSONL), both from 1; DataError for a
        file without a pair.
    """
    path = Path(path)
    entries = [_entry(value, where) for value, where in read_json_entries(path)]
    if not entries:
        raise DataError(f"{path} should hold preference entries, found none; check the file.")
    pairs = [entry for entry in entries if entry.chosen != entry.rejected]
    if not pairs:
        raise DataError(
            f"{path} should hold pairs of different answers, found {len(entries)} with chosen equal to rejected; "
            "check how the file was made."
        )
    return PreferenceEntries(pairs=pairs, n_equal=len(entries) - len(pairs))


def split_preferences(
    pairs: Sequence[Preference], *, train_fraction: float = 0.85, test_fraction: float = 0.1
) -> PreferenceSplit:
    """Cut the pairs in order: first training, then test, the rest validation.

    Source: the book's split, chapter 7 and its bonus on DPO: 1,100 entries give 935, 110 and 55.
    Raises: ConfigError for fractions that leave nothing; DataError when a part would be empty.
    """
    if min(train_fraction, test_fraction) <= 0 or train_fraction + test_fraction >= 1:
        raise ConfigError(
            "train_fraction and test_fraction must be positive and leave something for validation, got "
            f"{train_fraction} and {test_fraction}; 0.85 and 0.1 are usual."
        )
    train_end = int(len(pairs) * train_fraction)
    test_end = train_end + int(len(pairs) * test_fraction)
    split = PreferenceSplit(
        train=list(pairs[:train_end]), val=list(pairs[test_end:]), test=list(pairs[train_end:test_end])
    )
    if not (split.train and split.val and split.test):
        raise DataError(
            f"a split needs pairs in each part, found {len(split.train)} for training, {len(split.val)} for "
            f"validation and {len(split.test)} for test out of {len(pairs)}; give at least 10 or other fractions."
        )
    return split


def _entry(value: Any, where: str) -> Preference:
    if not isinstance(value, dict):
        raise DataError(
            f"{where} must be an object with a request, chosen and rejected, found {value!r:.60}; repair it."
        )
    if holds_messages(value):
        return read_message_pair(value, where=where)
    requests = [key for key in ("prompt", "instruction") if value.get(key) is not None]
    if len(requests) != 1:
        found = "both" if requests else f"only {', '.join(map(repr, value)) or 'no key'}"
        raise DataError(
            f"{where} must have its request under either 'prompt' or 'instruction', found {found}; rename the key "
            "that holds it."
        )
    given = value.get("input")
    if given is not None and not isinstance(given, str):
        raise DataError(f"{where} must have text under 'input', found {given!r:.60}; fill or remove it.")
    check_characters(given or "", where=f"{where}, input,")
    chosen, rejected = (_text(value, key, where) for key in ANSWERS)
    return Preference(
        instruction=_text(value, requests[0], where), input=given or "", chosen=chosen, rejected=rejected
    )


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text.strip():
        found = f"{text!r:.60}" if key in value else f"only {', '.join(map(repr, value))}"
        raise DataError(f"{where} must have text under {key!r}, found {found}; fill it or remove the entry.")
    return check_characters(text, where=f"{where}, {key},")


def holds_messages(value: Mapping[str, Any]) -> bool:
    """Are an entry's answers lists of messages, and not texts?"""
    return any(isinstance(value.get(key), list) for key in ANSWERS)


def read_message_pair(value: Mapping[str, Any], *, where: str) -> Preference:
    """A pair whose answers are lists of messages, as TRL and UltraFeedback write them.

    Raises: DataError naming `where` for messages out of order, or two answers to different conversations.
    """
    both = []
    for key in ANSWERS:
        messages = [*_before(value, key, where), *_messages(value, key, where)]
        both.append(read_conversation({"messages": messages}, where=f"{where}, {key}"))
    chosen, rejected = both
    *history, last = chosen.exchanges
    *other_history, other_last = rejected.exchanges
    if (chosen.system, history, last.request) != (rejected.system, other_history, other_last.request):
        raise DataError(
            f"{where} must have two answers to one conversation, found different messages before them in chosen and "
            "rejected; repair it."
        )
    return Preference(
        instruction=last.request,
        input="",
        chosen=last.answer,
        rejected=other_last.answer,
        system=chosen.system,
        history=tuple(history),
    )


def _messages(value: Mapping[str, Any], key: str, where: str) -> list[Any]:
    messages = value.get(key)
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where} must have a list of messages under {key!r} as under the other answer, found {messages!r:.60}; "
            "write both alike."
        )
    return messages


def _before(value: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """The messages of `prompt`, where the answer's own list does not begin with them."""
    prompt, first = value.get("prompt"), _messages(value, key, where)[0]
    is_whole = not isinstance(first, dict) or first.get("role") != "assistant"
    if prompt is None or is_whole:
        return []
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list):
        raise DataError(
            f"{where} must have text or a list of messages under 'prompt', found {prompt!r:.60}; repair it."
        )
    return prompt
