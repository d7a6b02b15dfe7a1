"""A judge on this machine that speaks Ollama's and OpenAI's protocols, and misbehaves on command.

    with JudgeServer(lambda messages: "85") as server:
        server.url               # Ollama's address; server.openai_url is the other's
        server.faults = [reset(after=2), says("about 85")]  # of the next chats, in order of arrival; None is no fault
        server.asked             # every chat so far: .path .body .headers .messages
        server.n_open, .most_at_once  # chats that are open now; that were at the same time

A reply is a function of the request's messages; it may be called by several threads. Faults are used up one a chat;
`server.every_time` is a fault of all chats whose turn in `faults` is over. Models that are not in `server.models`
are not found. The replies stream in pieces of `server.piece_size` characters, as the real ones do in tokens.
`python -m tests.servers.judge_server --port 11500` runs it by itself; its scores are made from the request alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Messages = Sequence[Mapping[str, str]]
CREATED_AT = "2026-01-01T00:00:00.000000Z"
CREATED = 1767225600  # the same instant, as OpenAI writes it
LONGEST_STALL_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one chat."""

    text: str | None = None  # said instead of the reply
    status: int = 200  # another one comes with an error's body
    message: str = "something went wrong"  # in that body, or in the middle of a stream
    retry_after: str | None = None  # that header
    first_after_s: float = 0.0  # before the headers go out
    between_s: float = 0.0  # before each piece but the first
    after: int | None = None  # so many pieces go out before what follows
    end: str = "done"  # then: `done`, `reset`, `cut` (a clean end without its mark), `stall`, `error`
    reason: str = "stop"  # why the reply ended, in that mark
    body: bytes | None = None  # instead of everything, with status


def says(text: str) -> Fault:
    """Another reply than the function's: chatty, no number, 100 KB, ..."""
    return Fault(text=text)


def refuses(
    status: int = 500, message: str = "something went wrong", *, retry_after: str | None = None
) -> Fault:
    """A status and an error's body in the protocol's form; 429 may say when to come back."""
    return Fault(status=status, message=message, retry_after=retry_after)


def slow_first(seconds: float) -> Fault:
    """Nothing at all for a while, then the whole reply: a model that is being loaded."""
    return Fault(first_after_s=seconds)


def slow_between(seconds: float) -> Fault:
    """Time between each two pieces."""
    return Fault(between_s=seconds)


def reset(*, after: int = 1) -> Fault:
    """The connection breaks (RST) when so many pieces are out; 0 is right after the headers."""
    return Fault(after=after, end="reset")


def cut(*, after: int = 1) -> Fault:
    """The stream ends politely, but without `done`, finish_reason and `[DONE]`."""
    return Fault(after=after, end="cut")


def stall(*, after: int = 1) -> Fault:
    """Nothing more comes, and nobody hangs up."""
    return Fault(after=after, end="stall")


def error_inside(message: str, *, after: int = 1) -> Fault:
    """A stream that ends with an error's body."""
    return Fault(after=after, end="error", message=message)


def ends_by(reason: str) -> Fault:
    """The whole reply, but its end says `length`, or `content_filter`."""
    return Fault(reason=reason)


def garbage(body: bytes = b"<html>hello</html>\n", *, status: int = 200) -> Fault:
    """Bytes of no protocol."""
    return Fault(body=body, status=status)


@dataclass(frozen=True)
class Asked:
    """One chat that came in."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]  # names in lower case

    @property
    def messages(self) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = self.body["messages"]
        return messages


class Handler(BaseHTTPRequestHandler):
    """The two protocols' paths."""

    server: JudgeServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_json({})

    def do_GET(self) -> None:
        names = sorted(self.server.models)
        found: dict[str, object] = {
            "/": "Ollama is running",
            "/api/version": {"version": "0.12.3"},
            "/api/tags": {"models": [_tag(name) for name in names]},
            "/v1/models": {"object": "list", "data": [_model(name) for name in names]},
        }
        if self.path in found:
            self.send_json(found[self.path])
        else:
            self.send_json("404 page not found", status=404)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size))
        if self.path not in ("/api/chat", "/v1/chat/completions"):
            self.send_json("404 page not found", status=404)
            return
        fault = self.server.next_fault(
            Asked(self.path, body, {name.lower(): value for name, value in self.headers.items()})
        )
        try:
            self.answer(body, fault)
        except OSError:
            self.close_connection = True  # who asked has left: part of the tests
        finally:
            self.server.leave()

    def answer(self, body: dict[str, Any], fault: Fault) -> None:
        """The whole chat, or what is left of it."""
        protocol = Ollama if self.path == "/api/chat" else OpenAI
        name = str(body.get("model", ""))
        self.server.released.wait(fault.first_after_s)
        if fault.body is not None:
            self.send_bytes(fault.body, status=fault.status)
        elif fault.status != 200:
            extra = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            self.send_json(protocol.error(fault.message, fault.status), status=fault.status, **extra)
        elif name not in self.server.models:
            self.send_json(protocol.not_found(name), status=404)
        else:
            text = self.server.reply(body["messages"]) if fault.text is None else fault.text
            chat = protocol(name, text, self.server.piece_size, body)
            if body.get("stream", protocol is Ollama):  # Ollama streams unless told otherwise
                self.send_stream(chat, fault)
            else:
                self.send_json(chat.whole())

    def send_stream(self, chat: Ollama | OpenAI, fault: Fault) -> None:
        self.send_response(200)
        self.send_header("Content-Type", chat.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(chat.pieces()):
            if fault.after == number:
                break
            if number:
                self.server.released.wait(fault.between_s)
            self.send_chunk(piece)
        if fault.end == "reset":
            self.wfile.flush()
            time.sleep(0.02)  # so that the pieces are read before the connection breaks
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if fault.end == "stall":
            self.server.released.wait(LONGEST_STALL_S)
        if fault.end == "error":
            self.send_chunk(chat.line(chat.error(fault.message, 500)))
        if fault.end == "done":
            for piece in chat.ending(fault.reason):
                self.send_chunk(piece)
        self.wfile.write(b"0\r\n\r\n")

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def send_json(self, value: object, *, status: int = 200, **headers: str) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.send_bytes(text.encode(), status=status, **headers)

    def send_bytes(self, data: bytes, *, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


class Ollama:
    """`POST /api/chat`: a JSON object a line."""

    content_type = "application/x-ndjson"

    def __init__(self, model: str, text: str, piece_size: int, body: dict[str, Any]) -> None:
        self.model, self.text, self.piece_size = model, text, piece_size
        n_characters = sum(len(message.get("content", "")) for message in body["messages"])
        num_ctx = (body.get("options") or {}).get("num_ctx", 4096)
        n_tokens = 10 + n_characters // 4
        self.n_prompt = (
            n_tokens if n_tokens < num_ctx else 4 + (num_ctx - 4) // 2
        )  # the rest is left out, as there

    def pieces(self) -> Iterator[bytes]:
        for piece in _cut_up(self.text, self.piece_size):
            yield self.line(self.message(piece) | {"done": False})

    def ending(self, reason: str) -> Iterator[bytes]:
        yield self.line(self.message("") | self.figures() | {"done_reason": reason})

    def whole(self) -> dict[str, object]:
        return self.message(self.text) | self.figures()

    def message(self, content: str) -> dict[str, object]:
        message = {"role": "assistant", "content": content}
        return {"model": self.model, "created_at": CREATED_AT, "message": message}

    def figures(self) -> dict[str, object]:
        return {
            "done_reason": "stop",
            "done": True,
            "total_duration": 4_883_583_458,
            "load_duration": 1_334_875,
            "prompt_eval_count": self.n_prompt,
            "prompt_eval_duration": 342_546_000,
            "eval_count": len(self.text),
            "eval_duration": 4_535_599_000,
        }

    @staticmethod
    def line(value: dict[str, object]) -> bytes:
        return json.dumps(value).encode() + b"\n"

    @staticmethod
    def error(message: str, status: int) -> dict[str, object]:
        return {"error": message}

    @staticmethod
    def not_found(name: str) -> dict[str, object]:
        return {"error": f"model '{name}' not found"}


class OpenAI:
    """`POST /v1/chat/completions`: server-sent events."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, model: str, text: str, piece_size: int, body: dict[str, Any]) -> None:
        self.model, self.text, self.piece_size = model, text, piece_size
        self.wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def pieces(self) -> Iterator[bytes]:
        yield self.line(self.chunk({"role": "assistant", "content": ""}))
        for piece in _cut_up(self.text, self.piece_size):
            yield self.line(self.chunk({"content": piece}))

    def ending(self, reason: str) -> Iterator[bytes]:
        yield self.line(self.chunk({}, finish_reason=reason))
        if self.wants_usage:
            yield self.line(self.frame("chat.completion.chunk") | {"choices": [], "usage": self.usage()})
        yield b"data: [DONE]\n\n"

    def whole(self) -> dict[str, object]:
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return self.frame("chat.completion") | {"choices": [choice], "usage": self.usage()}

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, object]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self.frame("chat.completion.chunk") | {"choices": [choice]}

    def frame(self, kind: str) -> dict[str, object]:
        fixed = {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": self.model}
        return fixed | {"system_fingerprint": "fp_44709d6fcb"}

    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": 26, "completion_tokens": len(self.text), "total_tokens": 26 + len(self.text)}

    @staticmethod
    def line(value: dict[str, object]) -> bytes:
        return b"data: " + json.dumps(value).encode() + b"\n\n"

    @staticmethod
    def error(message: str, status: int) -> dict[str, object]:
        kind = "rate_limit_error" if status == 429 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    @staticmethod
    def not_found(name: str) -> dict[str, object]:
        message = f"The model `{name}` does not exist or you do not have access to it."
        kind, code = "invalid_request_error", "model_not_found"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class JudgeServer(ThreadingHTTPServer):
    """Runs while its `with` block does, on a port of its own."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, reply: Callable[[Messages], str] = lambda messages: "85", *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.reply = reply
        self.models = {"llama3", "gpt-4o-mini"}
        self.faults: list[Fault | None] = []
        self.every_time: Fault | None = None
        self.piece_size = 4
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.released = threading.Event()  # ends every wait
        self.n_open = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def next_fault(self, asked: Asked) -> Fault:
        with self._lock:
            self.asked.append(asked)
            self.n_open += 1
            self.most_at_once = max(self.most_at_once, self.n_open)
            fault = self.faults.pop(0) if self.faults else self.every_time
            return Fault() if fault is None else fault

    def leave(self) -> None:
        with self._lock:
            self.n_open -= 1

    def __enter__(self) -> JudgeServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody answers at this address any more; may be called twice."""
        if self._thread is not None:
            self.released.set()
            self.shutdown()
            self._thread.join()
            self.server_close()
            self._thread = None

    def handle_error(self, *args: object) -> None:
        """A client that leaves early is part of the tests."""


def _cut_up(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def _tag(name: str) -> dict[str, object]:
    details = {"format": "gguf", "family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_0"}
    digest = hashlib.sha256(name.encode()).hexdigest()
    known = {"name": f"{name}:latest", "model": f"{name}:latest", "modified_at": CREATED_AT}
    return known | {"size": 4_661_224_676, "digest": digest, "details": details}


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "library"}


def score_of_words(messages: Messages) -> str:
    """0 to 100 points, made from the request alone: the same each time, whoever asks in whatever order."""
    text = json.dumps([dict(message) for message in messages], sort_keys=True)
    return str(int(hashlib.sha256(text.encode()).hexdigest(), 16) % 101)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds-a-reply", type=float, default=0.0)
    settings = parser.parse_args()
    with JudgeServer(score_of_words, port=settings.port) as server:
        server.every_time = slow_first(settings.seconds_a_reply)
        print(server.url, flush=True)
        server.released.wait()


if __name__ == "__main__":
    main()
