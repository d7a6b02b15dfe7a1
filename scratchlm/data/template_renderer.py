"""Render a chat template in a separate process: a request on standard input, a JSON object on standard output.

Started by chat_template.py; it imports nothing from this package, so that it starts quickly.
"""

import contextlib
import json
import sys
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

if sys.platform != "win32":
    import resource

MAX_SECONDS = 2  # CPU time
MAX_MEMORY = 512 << 20  # bytes; Python and Jinja take 30 MB
MAX_TEXT = 1 << 22  # characters, more than fit into any context


class RefusedError(TemplateError):
    """The template rejects this conversation."""


class Generation(Extension):
    """`{% generation %}` marks assistant text for training; here the text inside is written unchanged."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja wants it

    def parse(self, parser: Parser) -> nodes.Node:
        """Read up to `{% endgeneration %}`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Macro) -> str:
        return caller()


class PlainNamespace(Namespace):
    """`namespace()` without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace may not hold {name!r}")
        super().__setitem__(name, value)


def plain_dict(*args: Any, **more: Any) -> dict[str, Any]:
    """`dict()` without access to the attributes of the type."""
    return dict(*args, **more)


def render(template: str, values: dict[str, Any]) -> str:
    """Render a template with the settings of transformers."""

    def refuse(message: str) -> None:
        raise RefusedError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = plain_dict
    environment.globals["namespace"] = PlainNamespace
    pieces, n_left = [], MAX_TEXT
    for piece in environment.from_string(template).generate(**values):
        pieces.append(piece)
        n_left -= len(piece)
        if n_left < 0:
            raise TemplateError(f"more than {MAX_TEXT:,} characters")
    return "".join(pieces)


def limit_this_process() -> None:
    """Limit CPU time and memory where the system supports it; elsewhere only the caller's timeout applies."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    limit_this_process()
    try:
        reply = {"text": render(request["template"], request["values"])}
    except RefusedError as refusal:
        reply = {"refused": str(refusal)}
    except (
        TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError
    ) as error:  # fmt: skip
        reply = {"wrong": f"{type(error).__name__}: {error}"}
    json.dump(reply, sys.stdout)


if __name__ == "__main__":
    main()
