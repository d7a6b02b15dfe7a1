"""Constrain the new text to a regular expression, a list of choices or a JSON schema.

At each step a parser says which tokens can continue a valid text; the others are excluded. The parser is llguidance's;
it sees each token as the bytes that the token adds to the text.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, proxy

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError, DataError, optional_import
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import CONSTRAINTS, GenerationConfig
from scratchlm.generation.token_bytes import bytes_of_ids, writes_spaces

# One space after a comma or a colon and none elsewhere: free white space would let a model write spaces without end.
JSON_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_TOKENIZERS: WeakKeyDictionary[Tokenizer, dict[tuple[int, ...], Any]] = WeakKeyDictionary()


class Constraint:
    """The parser of one text.

    When the text is complete, only the stop ids are allowed; without stop ids, `is_complete` ends the text.
    """

    def __init__(self, name: str, matcher: Any, stop_ids: Sequence[int], tokenizer: Tokenizer) -> None:
        self.name = name  # the setting it comes from
        self._matcher = matcher
        self._stop_ids = frozenset(stop_ids)
        self._tokenizer = tokenizer  # the matcher calls it

    @property
    def is_complete(self) -> bool:
        """Whether the text is valid and nothing but the end may follow."""
        return bool(self._matcher.is_stopped())

    def keep_allowed(self, logits: Tensor) -> Tensor:
        """Exclude the tokens that cannot continue a valid text. Shapes: logits (V,) -> (V,)."""
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        if self._matcher.is_error():
            raise DataError(
                f"{self.name} cannot be continued here ({_first_line(self._matcher)}); simplify the constraint."
            )
        is_allowed = torch.zeros(len(logits), dtype=torch.bool)
        n_known = min(len(mask), len(logits))  # the mask may end with an id of its own for the end
        is_allowed[:n_known] = mask[:n_known] > 0
        return logits.masked_fill(~is_allowed, -torch.inf)

    def took(self, token_id: int) -> None:
        """Advance by a token."""
        if self.is_complete and token_id in self._stop_ids:
            return
        if not self._matcher.consume_token(token_id):
            raise DataError(
                f"{self.name} does not allow the token {token_id} here ({_first_line(self._matcher)}); "
                "take tokens that `choose` allows."
            )


def constraint_of(config: GenerationConfig, tokenizer: Tokenizer | None) -> Constraint | None:
    """Start the parser of the constraint that the config sets, if any.

    Raises: ConfigError for an invalid expression or schema, or no tokenizer; MissingDependencyError without llguidance.
    """
    given = config.given(*CONSTRAINTS)
    if not given:
        return None
    name, value = next(iter(given.items()))
    if tokenizer is None:
        raise ConfigError(
            f"{name} needs a tokenizer, got {name}={value!r:.60} and no tokenizer; pass tokenizer=."
        )
    with optional_import("regex, choices and json_schema need llguidance", extra="constrained"):
        import llguidance
    parts = _TOKENIZERS.setdefault(tokenizer, {})
    if config.stop_ids not in parts:
        parts[config.stop_ids] = _parser_tokenizer(llguidance, tokenizer, config.stop_ids)
    grammar = _grammar(config, has_lead=writes_spaces(tokenizer))
    matcher = llguidance.LLMatcher(parts[config.stop_ids], grammar, log_level=0)
    if matcher.is_error():
        raise ConfigError(f"{name} is invalid, got {value!r:.80}: {_first_line(matcher)}; correct it.")
    return Constraint(name, matcher, config.stop_ids, tokenizer)


def _first_line(matcher: Any) -> str:
    """The parser's message without its state."""
    return " ".join(matcher.get_error().partition("<state>")[0].split())[:200]


def _grammar(config: GenerationConfig, *, has_lead: bool) -> str:
    """The constraint as a Lark grammar for llguidance."""
    if config.json_schema is not None:
        schema = json.loads(str(config.json_schema))
        body = f"%json {json.dumps({**schema, 'x-guidance': JSON_FORM})}"
    elif config.regex is not None:
        body = f"/(?:{_escaped(config.regex)})/"
    else:
        body = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in config.choices)
    lead = '" "? ' if has_lead else ""
    return f"start: {lead}body\nbody: {body}\n"


def _escaped(pattern: str) -> str:
    """A regular expression between slashes on one line."""
    escaped = re.sub(r"(\\[^\n])|/", lambda found: found[1] or r"\/", pattern)
    return escaped.replace("\\\n", r"\n").replace("\n", r"\n")


def _parser_tokenizer(llguidance: Any, tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> Any:
    """The parser's view of a tokenizer: the bytes of each id, and the ids that end a text.

    Without stop ids, an id of its own stands for the end. After it come the 256 bytes, so that the parser can split any
    text into tokens; the model has none of these ids, so that they are never chosen.
    """
    tokens = list(bytes_of_ids(tokenizer))
    tokens += [b""] * (max(stop_ids, default=0) + 1 - len(tokens))
    ends = stop_ids or (len(tokens),)
    tokens += [b""] * (not stop_ids)
    for token_id in {*ends, *tokenizer.special_tokens.values()}:
        tokens[token_id] = b"\xff<%d>" % token_id  # cannot occur in a text
    parts = _Parts(tokens, ends, tokenizer)
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(parts), eos_token=list(ends))


class _Parts:
    """A tokenizer as llguidance wants it."""

    def __init__(self, tokens: list[bytes], ends: Sequence[int], tokenizer: Tokenizer) -> None:
        self.tokens = [*tokens, *(bytes([byte]) for byte in range(256))]
        self.eos_token_id = ends[0]
        self.bos_token_id = None
        self.special_token_ids = [i for i, token in enumerate(tokens) if token.startswith(b"\xff<")]
        self._tokenizer = (
            proxy(tokenizer) if hasattr(tokenizer, "token_bytes") else None
        )  # it is the cache's key
        self._id_of = {token: i for i, token in reversed([*enumerate(self.tokens)]) if token}
        self._longest = max(map(len, self._id_of))

    def __call__(self, text: str | bytes) -> list[int]:
        """Split a text into ids: as the tokenizer does, or from left to right into the longest tokens."""
        if self._tokenizer is not None and isinstance(text, str):
            return list(self._tokenizer.encode(text))
        rest = text.encode() if isinstance(text, str) else text
        ids = []
        while rest:
            length = next(n for n in range(self._longest, 0, -1) if rest[:n] in self._id_of)
            ids.append(self._id_of[rest[:length]])
            rest = rest[length:]
        return ids
