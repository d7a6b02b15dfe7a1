"""Chapter 7's judge: a larger model that runs under Ollama gives each answer 0 to 100 points."""

from __future__ import annotations

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
from scratchlm.evaluation.judge.addresses import ollama_address
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.ollama import OLLAMA_OPTIONS, chat_pieces, ollama_answers
from scratchlm.evaluation.judge.prompt_files import read_prompt
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.evaluation.judge.replies import read_number

SCORE = PROTOCOLS["score"]
TIMEOUT_S = 30.0  # without one byte of the answer


class ModelScores(list[int]):
    """The points of the answers whose judgement was a whole number, in order, and what the others got instead."""

    def __init__(self, points: Sequence[int], unreadable: Sequence[tuple[int, str]]) -> None:
        super().__init__(points)
        self.unreadable = tuple(unreadable)  # the entry's place, the judge's words


def check_if_running(process_name: str) -> bool:
    """Does Ollama answer, where `OLLAMA_HOST` says or at port 11434 of this machine?

    The book looks for a process of that name, which may hang, or serve another port, or be on another machine.
    Here the port is asked. Only for a name without "ollama" in it the processes are looked through.
    """
    if "ollama" in process_name.lower():
        return ollama_answers()
    return any(process_name in (process.info["name"] or "") for process in psutil.process_iter(["name"]))


def query_model(prompt: str, model: str = "llama3", url: str | None = None) -> str:
    """The reply of a model that runs under Ollama, as repeatable as its fixed seed and temperature 0 make it.

    Without `url` it is the book's, http://localhost:11434/api/chat, or where `OLLAMA_HOST` says. It is asked once, as
    in the book; `scratchlm.evaluation.judge` has a judge that comes back.

    Raises: ServiceError when nothing answers, for an answer that is an error, no chat or not complete, and when the
        request does not fit the context.
    """
    url = f"{ollama_address()}/api/chat" if url is None else url
    payload = {"model": model, "messages": [{"role": "user", "content": prompt}], "options": OLLAMA_OPTIONS}
    try:
        with httpx.stream("POST", url, json=payload, timeout=TIMEOUT_S) as response:
            if response.status_code != HTTPStatus.OK:
                said = response.read().decode("utf-8", errors="replace")
                raise ServiceError(
                    f"{url} should answer, found {response.status_code}: {said:.300}; "
                    f"fetch the model with `ollama pull {model}`."
                )
            parts = _parts(response.iter_lines(), url)
            return "".join(chat_pieces(parts, who=url, num_ctx=OLLAMA_OPTIONS["num_ctx"]))
    except (httpx.HTTPError, httpx.InvalidURL) as cause:
        raise ServiceError(
            f"Ollama should answer at {url}, found: {str(cause) or type(cause).__name__}; "
            f"start it with `ollama serve` and fetch the model with `ollama pull {model}`."
        ) from cause


def generate_model_scores(
    json_data: Sequence[Mapping[str, Any]], json_key: str, model: str = "llama3", *, url: str | None = None
) -> ModelScores:
    """The judge's points for the answers under `json_key`, as a list of whole numbers.

    A judgement that is no whole number from 0 to 100 is printed and gives no points, as in the book; at the end it is
    said how many scores there are of how many entries, and `.unreadable` keeps the others. The question is that of
    `scratchlm evaluate judge`, in our own words: the points are comparable with each other, and roughly with the
    book's. That command also asks again, tests the judge with controls, and gives the mean an interval.

    Raises: ServiceError when the judge does not answer; DataError for an entry without an answer or a reference.
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
            f"Number of scores: {len(points)} of {len(json_data)}; the other judgements were no whole number\n"
        )
    return ModelScores(points, unreadable)


def _request(entry: Mapping[str, Any], json_key: str) -> str:
    for key in ("output", json_key):
        if key not in entry:
            raise DataError(
                f"an entry to judge must have the key {key!r}, found {', '.join(entry)}; write the answers there first."
            )
    item = Item(
        instruction=format_input(entry), input="", reference=str(entry["output"]), answer=str(entry[json_key])
    )
    [question] = SCORE.ask(read_prompt(SCORE.name), item)
    return question.text


def _parts(lines: Iterator[str], url: str) -> Iterator[dict[str, Any]]:
    """The parts of a streamed chat, one JSON object a line, as Ollama's own client has them: the book needs none."""
    for line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as cause:
            raise ServiceError(
                f"{url} should stream JSON objects, found {line[:100]!r}; is that address Ollama's /api/chat?"
            ) from cause
        if not isinstance(value, dict) or not isinstance(value.get("message", {}), dict):
            raise ServiceError(
                f"{url} should stream chat messages, found {line[:100]!r}; is that address Ollama's /api/chat?"
            )
        if "error" in value:
            raise ServiceError(f"{url} should answer, found the error {value['error']!s:.300}; see its log.")
        yield value
