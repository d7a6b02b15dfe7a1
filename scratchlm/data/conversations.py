"""Read conversations: lists of messages with roles, in the formats of chat data sets."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from scratchlm.core.config import nearest
from scratchlm.core.errors import DataError
from scratchlm.core.files import check_characters
from scratchlm.data.row_fields import RowFields, RowNotes, has_value

_NAMES = {  # our role -> its names in data sets, in lower case
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt chatgpt bot chatbot model ai",
    "call": "function_call tool_call",
    "tool": "tool tool_response function function_response observation ipython",
}
ROLES = {name: ours for ours, names in _NAMES.items() for name in names.split()}
ROLE_KEYS = ("role", "from", "speaker")
TEXT_KEYS = ("content", "value", "text", "parts")
CALL_KEYS = ("tool_calls", "function_call")
PAIR_KEYS = ("input", "output")  # Capybara's: a request and its answer in one object
TEXT_PARTS = ("text", "input_text", "output_text")  # types of a message's parts that are text
BETWEEN = "\n\n"  # consecutive messages of one role


class Exchange(NamedTuple):
    """A request and its answer."""

    request: str
    answer: str


class Conversation(NamedTuple):
    """A system prompt ("" for none) and the exchanges in order."""

    system: str
    exchanges: tuple[Exchange, ...]


class Turn(NamedTuple):
    """One message: its role (system, user, assistant, call or tool) and its text."""

    role: str
    text: str

    @property
    def is_answer(self) -> bool:
        """Whether the model writes this message."""
        return self.role in ("assistant", "call")


def read_turns(value: Any, *, where: str, notes: RowNotes, may_be_texts: bool = False) -> list[Turn]:
    """Read a list of messages in any common format.

    A message is an object with role and content, with from and value (ShareGPT), with input and output
    (Capybara), or a pair of request and answer; with may_be_texts also a plain text, the user's first. The
    list itself may be a JSON string.
    Raises: DataError naming `where` and the message's number for an unknown role, for content that is not text, such
        as an image, and for half a surrogate pair.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):  # the error below shows the text
            value = json.loads(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise DataError(
            f"{where} must be a list of messages, in a table as JSON, got {value!r:.60}; correct it or remove the row."
        )
    turns: list[Turn] = []
    for number, message in enumerate(value, start=1):
        if may_be_texts and isinstance(message, str):
            text = check_characters(message, where=f"{where}, message {number}")
            turns.append(Turn("assistant" if len(turns) % 2 else "user", text))
            continue
        turns += _turns_of(message, where=f"{where}, message {number}", notes=notes)
    return turns


def conversation_of(
    turns: Sequence[Turn], *, system: str = "", where: str, notes: RowNotes
) -> Conversation | None:
    """Group turns into exchanges of a request and an answer; None, with a note, when there is no exchange.

    Turns that do not fit this form are joined to a neighbour or dropped, and counted in `notes`.
    Example:
        >>> turns = [Turn("user", "Hi"), Turn("assistant", "Hello")]
        >>> conversation_of(turns, where="here", notes=RowNotes()).exchanges
        (Exchange(request='Hi', answer='Hello'),)
    """
    opening = list(itertools.takewhile(lambda turn: turn.role == "system", turns))
    texts = dict.fromkeys(text for text in (system, *(turn.text for turn in opening)) if text.strip())
    if len(texts) > 1:
        notes.add("several system prompts are joined", where=where)
    sides = [
        (is_answer, list(group))
        for is_answer, group in itertools.groupby(turns[len(opening) :], key=lambda turn: turn.is_answer)
    ]
    if sides and sides[0][0]:
        notes.add("the assistant's message before the first request is left out", where=where)
        del sides[0]
    if len(sides) % 2 and len(sides) > 1:
        notes.add("the last request has no answer and is left out", where=where)
    texts_of_sides = [_joined(group, where=where, notes=notes) for _, group in sides[: len(sides) // 2 * 2]]
    if not any(text.strip() for text in texts_of_sides[::2]):
        lack = "no request has text" if texts_of_sides else "no request has an answer"
        notes.add(f"{lack}: the row is left out", where=where)
        return None
    return Conversation(BETWEEN.join(texts), tuple(map(Exchange, texts_of_sides[::2], texts_of_sides[1::2])))


def note_empty_texts(exchanges: Sequence[Exchange], *, where: str, notes: RowNotes) -> None:
    """Count empty requests and answers in the notes."""
    for name, texts in (
        ("a request", [e.request for e in exchanges]),
        ("an answer", [e.answer for e in exchanges]),
    ):
        if not all(text.strip() for text in texts):
            notes.add(f"{name} is empty; training uses it unchanged", where=where)


def answer_turns(row: RowFields, ours: str, *, notes: RowNotes) -> list[Turn]:
    """The answer in a field, which may be a text or a list of messages."""
    if row.holds_list(ours):
        return read_turns(row[ours], where=row.place(ours), notes=notes)
    return [Turn("assistant", row.text(ours, is_needed=True))]


def _joined(group: Sequence[Turn], *, where: str, notes: RowNotes) -> str:
    """Join consecutive turns, all read or all written by the model, into one text."""
    roles = [turn.role for turn in group]
    if any(role in ("call", "tool") for role in roles):
        notes.add("tool calls and their results are converted to text in tags", where=where)
    if "system" in roles:
        notes.add("a system message between other messages is added to the request there", where=where)
    if roles.count("user") > 1 or roles.count("assistant") > 1:
        notes.add("consecutive messages of one role are joined with an empty line", where=where)
    text = group[0].text
    for before, turn in itertools.pairwise(group):
        between = "\n" if turn.role == "call" or turn.role == before.role == "tool" else BETWEEN
        text += (between if text and turn.text else "") + turn.text
    return text


def _turns_of(message: Any, *, where: str, notes: RowNotes) -> Iterator[Turn]:
    """The turns of one element of a list of messages."""
    if isinstance(message, list) and len(message) == 2 and all(isinstance(text, str) for text in message):
        message = dict(zip(PAIR_KEYS, message))
    fields = (
        {str(name).strip().casefold(): value for name, value in message.items()}
        if isinstance(message, Mapping)
        else {}
    )
    if set(PAIR_KEYS) <= fields.keys():
        for role, name in zip(("user", "assistant"), PAIR_KEYS):
            yield Turn(role, _text(fields[name], where=f"{where}, {name}"))
        used = set(PAIR_KEYS)
    else:
        role_key, text_key = (
            next((key for key in keys if key in fields), "") for keys in (ROLE_KEYS, TEXT_KEYS)
        )
        call_key = next((key for key in CALL_KEYS if fields.get(key)), "")
        if not role_key or not (text_key or call_key):
            raise DataError(
                f"{where} must be an object with role and content, got {message!r:.60}; correct it."
            )
        used = {role_key, text_key, call_key, "tool_call_id"}
        speaker = fields[role_key]
        role = ROLES.get(speaker.strip().casefold(), "") if isinstance(speaker, str) else ""
        if not role:
            raise DataError(
                f"{where} must have a known role, got {speaker!r:.60}; {nearest(str(speaker), ROLES)}"
            )
        text = _text(fields.get(text_key), where=f"{where}, {text_key}")
        tag = {"call": "tool_call", "tool": "tool_response"}.get(role)
        yield Turn(role, _tagged(tag, text) if tag else text)
        if call_key:
            for call in _calls(fields[call_key]):
                yield Turn("call", _tagged("tool_call", check_characters(call, where=f"{where}, {call_key}")))
    notes.leave_unused(
        f"{key} of messages" for key, value in fields.items() if key not in used and has_value(value)
    )


def _text(content: Any, *, where: str) -> str:
    """A message's text; parts are joined by line ends, null is an empty text."""
    if content is None:
        return ""
    if isinstance(content, list):
        return "\n".join(
            _part(part, where=f"{where}, part {number}") for number, part in enumerate(content, start=1)
        )
    if not isinstance(content, str):
        raise DataError(f"{where} must be text, got {content!r:.60}; correct it or remove the row.")
    return check_characters(content, where=where)


def _part(part: Any, *, where: str) -> str:
    if isinstance(part, str):
        return check_characters(part, where=where)
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind not in TEXT_PARTS or not isinstance(part, Mapping):
        raise DataError(
            f"{where} must be text, since these models read nothing else, got {kind!r:.40}; remove the row."
        )
    return _text(part.get("text"), where=where)


def _calls(calls: Any) -> Iterator[str]:
    """Write each tool call as JSON of its name, arguments, and whatever else it holds but its id and type."""
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else call
        if isinstance(function, Mapping):
            function = {key: value for key, value in function.items() if key not in ("id", "type")}
            if isinstance(arguments := function.get("arguments"), str):
                with contextlib.suppress(ValueError, RecursionError):  # OpenAI writes them as JSON text
                    function["arguments"] = json.loads(arguments)
        yield json.dumps(function, ensure_ascii=False)


def _tagged(tag: str, text: str) -> str:
    """Wrap a text in the tags that Hermes and Qwen use, unless it has them."""
    return text if text.lstrip().startswith(f"<{tag}>") else f"<{tag}>\n{text}\n</{tag}>"
