"""Where a judge's service listens: what the user says, what the environment says, or the service's usual place."""

from __future__ import annotations

import os
import urllib.parse

from scratchlm.core.errors import ConfigError

OLLAMA_PORT = 11434
OPENAI_URL = "https://api.openai.com/v1"
USUAL_PORTS = {"http": 80, "https": 443}
THIS_MACHINE = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104, a server's "all of my addresses"


def ollama_address(base_url: str | None = None) -> str:
    """Ollama's address as `http://host:port`: the one given, `OLLAMA_HOST`, or this machine's port 11434.

    Takes what Ollama takes: a host, `host:port`, `:port`, an IPv6 address, a URL (whose usual port is then 80 or
    443), with or without a path. The path of the chat itself may stand at its end.
    Raises: ConfigError for anything else.

    Example:
        >>> ollama_address("0.0.0.0"), ollama_address("judge:8080/"), ollama_address("https://judge.example")
        ('http://127.0.0.1:11434', 'http://judge:8080', 'https://judge.example:443')
    """
    setting = "OLLAMA_HOST" if base_url is None else "--base-url"
    given = (os.environ.get("OLLAMA_HOST", "") if base_url is None else base_url).strip().strip("\"'")
    is_url = "://" in given
    if not is_url:
        is_bare_ipv6 = given.count(":") > 1 and not given.startswith("[")
        given = f"http://[{given}]" if is_bare_ipv6 else f"http://{given}"
    url = _checked(given, setting, "a host, host:port or http(s) URL, such as localhost:11434")
    host = THIS_MACHINE.get(url.hostname or "", url.hostname or "")
    port = url.port or (USUAL_PORTS[url.scheme] if is_url else OLLAMA_PORT)
    path = url.path.rstrip("/").removesuffix("/api/chat").removesuffix("/api")
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def openai_address(base_url: str | None = None) -> str:
    """The address before `/chat/completions`: the one given, `OPENAI_BASE_URL`, or OpenAI's own.

    Raises: ConfigError for what is no http(s) URL.

    Example:
        >>> openai_address("http://localhost:8000/v1/")
        'http://localhost:8000/v1'
    """
    setting = "OPENAI_BASE_URL" if base_url is None else "--base-url"
    given = (os.environ.get("OPENAI_BASE_URL", "") if base_url is None else base_url).strip()
    if not given and base_url is None:
        return OPENAI_URL
    url = _checked(given, setting, "an http(s) URL, such as http://localhost:8000/v1")
    if not url.hostname:
        raise ConfigError(f"{setting} should name a host, found {given!r}; write http://localhost:8000/v1.")
    return url.geturl().rstrip("/").removesuffix("/chat/completions")


def _checked(given: str, setting: str, expected: str) -> urllib.parse.SplitResult:
    """The URL's parts. Its text is shown in messages and files, so it may hold no password."""
    try:
        url = urllib.parse.urlsplit(given)
        is_right = url.port is None or url.port > 0
    except ValueError:  # a port that is no number, an open bracket
        is_right = False
    if not is_right or url.scheme not in USUAL_PORTS or url.query or url.fragment or " " in given:
        shown = given.rpartition("@")[2]
        raise ConfigError(f"{setting} should be {expected}, found {shown!r}; correct it.")
    if url.username is not None:
        raise ConfigError(
            f"{setting} should be {expected}, found a user name before {url.hostname}; "
            "give the key by OPENAI_API_KEY or OLLAMA_API_KEY."
        )
    return url
