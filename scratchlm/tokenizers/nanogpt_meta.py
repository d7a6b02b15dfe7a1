"""Read the character vocabulary in nanoGPT's `meta.pkl` without running the pickle."""

import pickletools
import reprlib
import warnings
from pathlib import Path
from typing import Any

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.word import LosslessWordTokenizer

META_FILE = "meta.pkl"  # of nanoGPT's character-level data
MAX_META_BYTES = 16 << 20


def characters_of_nanogpt(path: Path) -> LosslessWordTokenizer:
    """Load nanoGPT's character tokenizer, a vocabulary of single characters, from its `meta.pkl`.

    Raises: TokenizerError for a file that is missing, damaged or of another kind; nothing in it is executed.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_META_BYTES else b""
    except OSError as cause:
        raise TokenizerError(f"{path} cannot be read ({cause.strerror}); check the path.") from cause
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from the disassembler, about escapes in text
            meta = _dicts_of_pickle(data)
    except (ValueError, LookupError, TypeError, AttributeError) as cause:
        raise TokenizerError(
            f"{path} is not nanoGPT's meta.pkl, a pickle of plain values of at most {MAX_META_BYTES:,} bytes "
            f"({cause!s:.200}); use the file that its prepare.py wrote."
        ) from cause
    ids = meta.get("stoi") if isinstance(meta, dict) else None
    if not isinstance(ids, dict) or not all(isinstance(char, str) and len(char) == 1 for char in ids):
        raise TokenizerError(
            f"{path} must hold nanoGPT's stoi, an id for each character, got {reprlib.repr(meta)}; use the meta.pkl of "
            "a character-level data set."
        )
    try:
        return LosslessWordTokenizer(ids)
    except TokenizerError as cause:
        raise TokenizerError(f"{path}: {cause}") from cause


def _dicts_of_pickle(data: bytes) -> Any:
    """The value of a pickle of dicts, strings and integers.

    Python's disassembler lists the instructions, and the few that build such a value are interpreted here.
    Raises: ValueError, LookupError or TypeError for any other instruction, and for a damaged pickle.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    for instruction, argument, _ in pickletools.genops(data):
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "EMPTY_DICT":
                stack.append({})
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2":
                stack.append(argument)
            case "MARK":
                marks.append(len(stack))
            case "SETITEM" | "SETITEMS":
                start = marks.pop() if instruction.name == "SETITEMS" else len(stack) - 2
                items = stack[start:]
                del stack[start:]
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                memo[len(memo) if argument is None else argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case other:
                raise ValueError(f"it has the instruction {other}")
    raise ValueError("it is truncated")
