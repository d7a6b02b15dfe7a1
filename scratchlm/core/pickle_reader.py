"""Reading the values in a pickle without running it.

A pickle is a small program for a machine with a stack, and Python's own machine obeys every order, "import this
function and call it" among them: that is how a weight file can take over a computer. The machine here knows the
orders that build plain values. It calls what the caller handed in by name, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scratchlm.core.errors import CheckpointError

MAX_STEPS = 500_000  # one tensor takes about 40; GPT-2 XL with its optimizer takes 70,000
MAX_CALLS = 100_000  # as many tensors and ordered dicts
MAX_NESTING = 64
MAX_ITEMS = 500_000  # of the value, counting shared parts each time they appear
_KEYS = (str, int, float, bool, bytes, type(None))

_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_TEXTS = {b"X": "<I", b"\x8c": "<B", b"U": "<B", b"T": "<I"}
_BYTES = {b"C": "<B", b"B": "<I"}
_EMPTY: dict[bytes, Callable[[], Any]] = {b")": tuple, b"]": list, b"}": dict}
_SHORT_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUT = {b"q": "<B", b"r": "<I"}
_GET = {b"h": "<B", b"j": "<I"}


@dataclass(frozen=True)
class Allowed:
    """What a pickle may name: a function of ours that it may call, or, without one, a value such as a dtype."""

    name: str
    call: Callable[..., Any] | None = None
    value: Any = None


class PickleReader:
    """Reads pickled values one after another from bytes.

    allowed: for each "module name" that may be named, what stands for it here.
    load_persistent: turns what the pickle says of data outside it, such as a storage, into that data.
    leaves: the types that may stand in the result, beside dicts, lists, tuples, text, bytes and numbers.

    Raises: CheckpointError for a name that is not allowed, an order that we do not have, a value that is
        damaged, endless or too large.
    Source: CPython's Lib/pickletools.py for what each order means.
    """

    def __init__(
        self,
        data: bytes,
        *,
        allowed: Mapping[str, Allowed],
        load_persistent: Callable[[Any], Any],
        leaves: tuple[type, ...] = (),
        where: str,
    ) -> None:
        self.data = data
        self.at = 0  # the next byte to read
        self._allowed = allowed
        self._load_persistent = load_persistent
        self._leaves = leaves
        self._where = where
        self._n_steps = 0
        self._n_calls = 0

    def read(self) -> Any:
        """The next value; afterwards `at` is where it ended."""
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        while (order := self._take(1)) != b".":
            self._n_steps += 1
            if self._n_steps > MAX_STEPS:
                raise self.wrong(f"has more than {MAX_STEPS:,} steps")
            self._obey(order)
        value = self._pop()
        if self._stack or self._marks:
            raise self.wrong("ends with values left over")
        check_plain(value, leaves=self._leaves, wrong=self.wrong)
        return value

    def wrong(self, problem: str) -> CheckpointError:
        """The error for this pickle."""
        return CheckpointError(
            f"{self._where} must hold weights and plain values, but its pickle {problem}; get the weights as "
            "safetensors, or save a state dict of tensors again."
        )

    def _obey(self, order: bytes) -> None:
        if order in _CONSTANTS:
            self._stack.append(_CONSTANTS[order])
        elif order in _NUMBERS:
            self._stack.append(self._number(_NUMBERS[order]))
        elif order in _TEXTS:
            self._stack.append(self._text(self._take(self._number(_TEXTS[order]))))
        elif order in _BYTES:
            self._stack.append(self._take(self._number(_BYTES[order])))
        elif order in _EMPTY:
            self._stack.append(_EMPTY[order]())
        elif order in _SHORT_TUPLES:
            n = _SHORT_TUPLES[order]
            self._stack.append(tuple(reversed([self._pop() for _ in range(n)])))
        elif order in _PUT:
            self._memo[self._number(_PUT[order])] = self._top()
        elif order in _GET:
            self._stack.append(self._remembered(self._number(_GET[order])))
        elif order in _ORDERS:
            _ORDERS[order](self)
        else:
            raise self.wrong(f"gives the order {order!r} at byte {self.at - 1}, which we do not obey")

    def _protocol(self) -> None:
        if (version := self._number("<B")) > 5:
            raise self.wrong(f"is of protocol {version}, 5 is the newest")

    def _frame(self) -> None:
        self._take(8)  # a hint for buffering only

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _long(self) -> None:
        n = self._number("<B")
        if n > 16:  # the largest number torch writes has 10 bytes
            raise self.wrong(f"holds a whole number of {n} bytes")
        self._stack.append(int.from_bytes(self._take(n), "little", signed=True))

    def _tuple(self) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _append(self) -> None:
        item = self._pop()
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items_of([key, value])

    def _set_items(self) -> None:
        self._set_items_of(self._pop_to_mark())

    def _set_items_of(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise self.wrong("has a dictionary key without a value")
        for key, value in zip(items[::2], items[1::2]):
            if not isinstance(key, _KEYS):
                raise self.wrong(f"uses a {type(key).__name__} as a dictionary key")
            target[key] = value

    def _global(self) -> None:
        names = []
        for _ in range(2):
            end = self.data.find(b"\n", self.at, self.at + 1000)
            if end < 0:
                raise self.wrong("ends inside a name")
            names.append(self._text(self._take(end + 1 - self.at)[:-1]))
        self._name(*names)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        full_name = f"{module} {name}" if isinstance(module, str) and isinstance(name, str) else "?"
        if full_name not in self._allowed:
            raise self.wrong(f"would run code: it names {full_name.replace(' ', '.')!r:.200}")
        allowed = self._allowed[full_name]
        self._stack.append(allowed.value if allowed.call is None else allowed)

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Allowed) or function.call is None or not isinstance(arguments, tuple):
            raise self.wrong(f"would run code: it calls a {type(function).__name__}")
        self._n_calls += 1
        if self._n_calls > MAX_CALLS:
            raise self.wrong(f"makes more than {MAX_CALLS:,} calls")
        try:
            self._stack.append(function.call(*arguments))
        except (TypeError, ValueError, OverflowError, RuntimeError) as cause:
            if isinstance(cause, CheckpointError):
                raise
            raise self.wrong(f"calls {function.name} with what does not fit it ({cause!s:.200})") from cause

    def _build(self) -> None:
        """A state dict carries `_metadata`, the versions of its modules, as an attribute; it is dropped."""
        state = self._pop()
        target = self._top()
        if not isinstance(target, dict) or not isinstance(state, dict) or not state.keys() <= {"_metadata"}:
            raise self.wrong("would run code: it sets the state of an object")

    def _persistent(self) -> None:
        self._stack.append(self._load_persistent(self._pop()))

    def _take(self, n: int) -> bytes:
        piece = self.data[self.at : self.at + n]
        if len(piece) != n:
            raise self.wrong(f"ends {n - len(piece)} bytes too early")
        self.at += n
        return piece

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise self.wrong(f"holds text that is not UTF-8 ({cause.reason})") from cause

    def _top(self, kind: type = object) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self.wrong("takes a value from an empty stack")
        if not isinstance(self._stack[-1], kind):
            raise self.wrong(f"treats a {type(self._stack[-1]).__name__} as a {kind.__name__}")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise self.wrong("looks for a mark that is not there")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _remembered(self, key: int) -> Any:
        if key not in self._memo:
            raise self.wrong(f"asks for value {key}, which it never remembered")
        return self._memo[key]


_ORDERS: dict[bytes, Callable[[PickleReader], Any]] = {
    b"\x80": PickleReader._protocol,
    b"\x95": PickleReader._frame,
    b"(": PickleReader._mark,
    b"0": PickleReader._pop,
    b"1": PickleReader._pop_to_mark,
    b"\x94": PickleReader._memoize,
    b"\x8a": PickleReader._long,
    b"t": PickleReader._tuple,
    b"a": PickleReader._append,
    b"e": PickleReader._appends,
    b"s": PickleReader._set_item,
    b"u": PickleReader._set_items,
    b"c": PickleReader._global,
    b"\x93": PickleReader._stack_global,
    b"R": PickleReader._call,
    b"b": PickleReader._build,
    b"Q": PickleReader._persistent,
}


def check_plain(value: Any, *, leaves: tuple[type, ...], wrong: Callable[[str], CheckpointError]) -> None:
    """Make sure that a value can be walked: no list in itself, no endless depth, no explosion of shared parts.

    A pickle can put a list into itself, or one list twice into the next, forty times over: small in memory,
    endless for whoever visits every item.
    """
    todo, n_items = [(value, 0)], 1
    while todo:
        item, depth = todo.pop()
        if isinstance(item, (dict, list, tuple)):
            n_items += len(item)
            if depth >= MAX_NESTING or n_items > MAX_ITEMS:
                raise wrong("holds a value that is nested or shared without end")
            todo += [(inner, depth + 1) for inner in (item.values() if isinstance(item, dict) else item)]
        elif not isinstance(item, (*_KEYS, *leaves)):
            raise wrong(f"leaves a {type(item).__name__} where a value should be")
