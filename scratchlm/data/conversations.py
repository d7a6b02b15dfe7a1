"""Conversations of several turns: lists of messages, each with a role, as chat data sets write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scratchlm.core.config import nearest
from scratchlm.core.errors import DataError
from scratchlm.core.files import check_characters

ROLES = {  # what data sets call the speakers -> what we call them
    "system": "system",
    "user": "user",
    "human": "user",  # ShareGPT
    "assistant": "assistant",
    "gpt": "assistant",  # ShareGPT
}
KEYS = {"messages": ("role", "content"), "conversations": ("from", "value")}  # of a list -> of its messages


class Exchange(NamedTuple):
    """A request and what was answered to it."""

    request: str
    answer: str


class Conversation(NamedTuple):
    """What an assistant is told about itself, "" for nothing, and the exchanges in order."""

    system: str
    exchanges: tuple[Exchange, ...]


def is_conversation(value: Mapping[str, Any]) -> bool:
    """Does this entry of a data file hold a list of messages?"""
    return any(key in value for key in KEYS)


def read_conversation(value: Mapping[str, Any], *, where: str) -> Conversation:
    """The exchanges of `{"messages": [{"role": ..., "content": ...}]}`, or ShareGPT's `conversations`.

    A system message may stand first; then user and assistant take turns, and the assistant has the last word.
    Raises: DataError naming `where` and the message's number for an unknown role, a turn out of order, or a
        message without text, or with half a surrogate pair in it.
    Example:
        >>> told = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> read_conversation({"messages": told}, where="here").exchanges
        (Exchange(request='Hi', answer='Hello'),)
    """
    key = next(key for key in KEYS if key in value)
    messages = value[key]
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where} must have a list of messages under {key!r}, found {messages!r:.60}; fill it or remove "
            "the entry."
        )
    said = [
        _message(message, KEYS[key], where=f"{where}, message {number}")
        for number, message in enumerate(messages, start=1)
    ]
    system = said[0][1] if said[0][0] == "system" else ""
    turns = said[1:] if system else said
    _check_turns(turns, where=where, n_before=len(said) - len(turns))
    texts = [text for _, text in turns]
    return Conversation(system, tuple(map(Exchange, texts[::2], texts[1::2])))


def _message(message: Any, keys: tuple[str, str], *, where: str) -> tuple[str, str]:
    """Role, in our words, and text of one message."""
    role_key, text_key = keys
    if not isinstance(message, dict) or not {role_key, text_key} <= message.keys():
        raise DataError(f"{where} must be an object with {role_key} and {text_key}, found {message!r:.60}.")
    role, text = message[role_key], message[text_key]
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"{where} must have a known role, found {role!r}; {nearest(str(role), ROLES)}")
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"{where} must have text under {text_key!r}, found {text!r:.60}; fill it or remove the conversation."
        )
    return ROLES[role], check_characters(text, where=f"{where}, {text_key},")


def _check_turns(turns: Sequence[tuple[str, str]], *, where: str, n_before: int) -> None:
    for i, (role, _) in enumerate(turns):
        expected = ("user", "assistant")[i % 2]
        if role != expected:
            raise DataError(
                f"{where}, message {i + 1 + n_before} must be the {expected}'s, found the {role}'s; user and "
                "assistant take turns, the user begins, and a system message stands first or nowhere."
            )
    if not turns or len(turns) % 2:
        raise DataError(
            f"{where} must end with the assistant's answer, found {len(turns)} messages of user and assistant; "
            "add the answer or drop the last request."
        )
