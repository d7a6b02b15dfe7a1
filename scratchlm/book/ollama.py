"""Chapter 7's judge: score answers from 0 to 100 with a larger model served by Ollama."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import httpx
import psutil

from scratchlm.book.alpaca import format_input
from scratchlm.core.errors import DataError, ServiceError
from scratchlm.core.printable import printable
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.ollama import OLLAMA_OPTIONS, chat_pieces, ollama_answers
from scratchlm.evaluation.judge.parse_reply import read_number
from scratchlm.evaluation.judge.prompt_files import read_prompt
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.evaluation.judge.service import ollama_address

SCORE = PROTOCOLS["score"]
TIMEOUT_S = 30.0  # without one byte of the answer


class ModelScores(list[int]):
    """The scores that could be read, in order, and the replies that could not."""

    def __init__(self, points: Sequence[int], unreadable: Sequence[tuple[int, str]]) -> None:
        super().__init__(points)
        self.unreadable = tuple(unreadable)  # the entry's position, the judge's reply


def check_if_running(process_name: str) -> bool:
    """Whether Ollama responds at `OLLAMA_HOST`, or at port 11434 of this machine.

    The book looks for a process of that name, which may hang, use another port or run on another machine. Here the port
    is tested; only a name without "ollama" in it is searched among the processes.
    """
    if "ollama" in process_name.lower():
        return ollama_answers()
    return any(process_name in (process.info["name"] or "") for process in psutil.process_iter(["name"]))


def query_model(prompt: str, model: str = "llama3", url: str | None = None) -> str:
    """The reply of a model served by Ollama, with a fixed seed and temperature 0.

    url: by default the book's, http://localhost:11434/api/chat, or the one at `OLLAMA_HOST`.
    As in the book there is a single attempt; the judges in `scratchlm.evaluation.judge` retry.

    Raises: ServiceError when the service does not respond, for an error or an incomplete or invalid reply, and when the
        request does not fit the context.
    """
    url = f"{ollama_address()}/api/chat" if url is None else url
    payload = {"model": model, "messages": [{"role": "user", "content": prompt}], "options": OLLAMA_OPTIONS}
    try:
        with httpx.stream("POST", url, json=payload, timeout=TIMEOUT_S) as response:
            if response.status_code != HTTPStatus.OK:
                error = response.read().decode("utf-8", errors="replace")
                raise ServiceError(
                    f"{url} returned status {response.status_code}: {error:.300}; "
                    f"fetch the model with `ollama pull {model}`."
                )
            parts = _parts(response.iter_lines(), url)
            return "".join(chat_pieces(parts, who=url, num_ctx=OLLAMA_OPTIONS["num_ctx"]))
    except (httpx.HTTPError, httpx.InvalidURL) as cause:
        raise ServiceError(
            f"Ollama does not respond at {url} ({str(cause) or type(cause).__name__}); "
            f"start it with `ollama serve` and fetch the model with `ollama pull {model}`."
        ) from cause


def generate_model_scores(
    json_data: Sequence[Mapping[str, Any]], json_key: str, model: str = "llama3", *, url: str | None = None
) -> ModelScores:
    """Score the answers under `json_key`; returns the scores as a list of integers.

    A reply that is not an integer from 0 to 100 is printed and skipped, as in the book; then the number of scores is
    printed at the end, and `.unreadable` keeps the reply. The prompt is that of `scratchlm evaluate judge`, not the
    book's, so scores are only roughly comparable with the book's. That command also retries, tests the judge with
    control answers, and reports a confidence interval.

    Raises: ServiceError when the judge does not respond; DataError for an entry without an answer or a reference.
    """
    points: list[int] = []
    unreadable: list[tuple[int, str]] = []
    for place, entry in enumerate(json_data):
        reply = query_model(_request(entry, json_key), model, url)
        score = read_number(reply, low=SCORE.low, high=SCORE.high)
        if score is None:
            sys.stdout.write(printable(f"Could not convert score: {reply}\n"))
            unreadable.append((place, reply))
        else:
            points.append(score)
    if unreadable:
        sys.stdout.write(
            f"Number of scores: {len(points)} of {len(json_data)}; the other replies were not integers\n"
        )
    return ModelScores(points, unreadable)


def _request(entry: Mapping[str, Any], json_key: str) -> str:
    for key in ("output", json_key):
        if key not in entry:
            raise DataError(
                f"an entry to score must have the key {key!r}, got {', '.join(entry)}; write the answers there first."
            )
    item = Item(
        instruction=format_input(entry), input="", reference=str(entry["output"]), answer=str(entry[json_key])
    )
    [question] = SCORE.ask(read_prompt(SCORE.name), item)
    return question.text


def _parts(lines: Iterator[str], url: str) -> Iterator[dict[str, Any]]:
    """The parts of a streamed chat, one JSON object per line, without Ollama's client, which the book does not need."""
    for line in filter(str.strip, lines):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("message", {}), dict):
            raise ServiceError(
                f"{url} must stream chat messages as JSON, got {line[:100]!r}; check that it is Ollama's /api/chat."
            )
        if "error" in value:
            raise ServiceError(f"{url} returned the error {value['error']!s:.300}; check its log.")
        yield value
