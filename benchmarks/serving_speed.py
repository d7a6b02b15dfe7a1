"""Throughput of the server beside llama.cpp's and transformers' own, on equal weights: 16 clients that stream.

    python -m benchmarks.serving_speed --shape quickstart
    python -m benchmarks.serving_speed --shape 124m --data FOLDER
    python -m benchmarks.serving_speed --shape quickstart --model runs/quickstart --only scratchlm,llama --json FILE

Each server is a process of its own, started with its defaults but for 16 slots, and answers `/v1/completions`. Every
client streams one greedy answer after the other, end-of-text ignored, until the time is over; requests that run then
may finish. Rounds measure each server in turn, and the best round counts. Tokens are those that the servers report.
The first token's time is from the request to the first streamed text. Without --model weights are random. `FOLDER` has
the layout of SCRATCHLM_ASSETS; only GPT-2's BPE files are read. Servers that are not installed (xllamacpp for
llama.cpp, transformers[serving]) are left out, by name.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import scratchlm
from benchmarks.generate_speed import SHAPES
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import save_model
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.samples.stories import sample_stories
from scratchlm.model import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe

N_CLIENTS = 16
START_S = 180.0  # for a server to load its model
LLAMA_CPP = """
import sys, time
import xllamacpp as llama

params = llama.CommonParams()
params.model.path, params.port, params.n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) * 16
params.n_parallel, params.n_gpu_layers, params.verbosity = 16, 0, -1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[4])
server = llama.Server(params)
time.sleep(1e6)
"""


@dataclass(frozen=True)
class Program:
    """A server: how it is started, and what its requests say besides the protocol's fields."""

    name: str
    command: Sequence[str]
    port: int
    model: str
    extra: dict[str, Any]  # fields that make every answer as long as asked for


@dataclass
class Round:
    """What one server did in one round."""

    seconds: float = 0.0
    n_tokens: int = 0
    first_token_s: list[float] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float:
        """New tokens of all clients."""
        return self.n_tokens / self.seconds

    def first_token_ms(self, share: float) -> float:
        """A percentile of the time to the first token."""
        return 1000 * sorted(self.first_token_s)[round(share * (len(self.first_token_s) - 1))]


def programs(options: argparse.Namespace, work: Path) -> list[Program]:
    """Write the model in each server's format, and say how to start the servers."""
    model, tokenizer = _model(options)
    length = {"min_new_tokens": options.new}
    save_model(work / "ours", model, tokenizer)
    port = _free_port()
    ours = [sys.executable, "-m", "scratchlm", "serve", f"bench={work / 'ours'}", "--port", str(port)]
    found = [Program("scratchlm", ours, port, "bench", length)]
    if importlib.util.find_spec("xllamacpp") is None:
        print("llama.cpp is left out: pip install xllamacpp", file=sys.stderr)
    else:
        path, port = export_gguf(work / "f32.gguf", model, tokenizer), _free_port()
        numbers = (port, model.config.context_length, options.threads)
        command = [sys.executable, "-c", LLAMA_CPP, str(path), *map(str, numbers)]
        found.append(Program("llama-server", command, port, "bench", {"ignore_eos": True}))
    if any(importlib.util.find_spec(name) is None for name in ("transformers", "accelerate", "fastapi")):
        print("transformers is left out: pip install transformers[serving]", file=sys.stderr)
        return found
    folder = export_huggingface(work / "hf", model, tokenizer)
    # Without ids that end a text; the command line of `transformers serve` has no such setting.
    (folder / "generation_config.json").write_text(
        '{"do_sample": false, "pad_token_id": 0}', encoding="utf-8"
    )
    for name, flags in (
        ("transformers", []),
        ("transformers, continuous batching", ["--continuous-batching", "--cb-max-memory-percent", "0.2"]),
    ):
        port = _free_port()
        main = "from transformers.cli.transformers import main; main()"
        command = [
            sys.executable,
            "-c",
            main,
            "serve",
            str(folder),
            "--device",
            "cpu",
            f"--port={port}",
            *flags,
        ]
        found.append(Program(name, command, port, str(folder), {}))
    return found


def _model(options: argparse.Namespace) -> tuple[GPTModel, Tokenizer]:
    if options.model is not None:
        opened = open_model(options.model)
        return opened.model, opened.tokenizer
    torch.manual_seed(0)
    config = SHAPES[options.shape]
    if options.shape == "124m":
        return GPTModel(config).eval(), scratchlm.gpt2_tokenizer(options.data / "gpt2_bpe")
    return GPTModel(config).eval(), train_bpe(sample_stories(n=200), config.vocab_size)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def started(program: Program, options: argparse.Namespace) -> Iterator[None]:
    """Run a server until the block ends; it has answered once when the block begins."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    output = None if options.verbose else subprocess.DEVNULL
    with subprocess.Popen(program.command, env=environment, stdout=output, stderr=output) as process:
        try:
            until = time.monotonic() + START_S
            while True:
                try:
                    asyncio.run(_ask(program, "once", options.new, Round()))
                    break
                except OSError as cause:  # it still loads
                    if process.poll() is not None or time.monotonic() > until:
                        raise RuntimeError(
                            f"{program.name} did not start ({cause}); try --verbose"
                        ) from cause
                time.sleep(0.2)
            yield
        finally:
            process.kill()


async def _ask(program: Program, prompt: str, n_new: int, found: Round) -> None:
    """Stream one answer on a connection of its own; little more than reading, since the servers need the processor."""
    body = {"model": program.model, "prompt": prompt, "max_tokens": n_new, "temperature": 0, "stream": True}
    content = json.dumps(body | {"stream_options": {"include_usage": True}} | program.extra).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    started_s, first_s, received = time.perf_counter(), 0.0, b""
    writer.write(head.encode() + content)
    while piece := await reader.read(1 << 16):
        received += piece
        if not first_s and b'"text":' in received:
            first_s = time.perf_counter() - started_s
    writer.close()
    usage = received.rfind(b'"completion_tokens":')
    if not received.startswith(b"HTTP/1.1 200") or usage < 0 or not first_s:
        raise OSError(f"{program.name} answered {received[:500]!r}")
    n_tokens = int(received[usage + len(b'"completion_tokens":') :].split(b",")[0].split(b"}")[0])
    if n_tokens != n_new:
        raise RuntimeError(f"{program.name} generated {n_tokens} tokens instead of {n_new}")
    found.first_token_s.append(first_s)
    found.n_tokens += n_tokens


async def measure(
    program: Program, prompts: Sequence[str], options: argparse.Namespace, seconds: float
) -> Round:
    """One round: clients that ask again and again."""
    found, waiting = Round(), iter(prompts)
    started_s = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - started_s < seconds:
            await _ask(program, next(waiting), options.new, found)

    await asyncio.gather(*(client() for _ in range(options.clients)))
    found.seconds = time.perf_counter() - started_s
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write it as JSON when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="quickstart")
    parser.add_argument("--model", type=Path, help="a trained model instead of random weights")
    parser.add_argument("--data", type=Path, help="folder with gpt2_bpe/, for the 124m shape")
    parser.add_argument("--clients", type=int, default=N_CLIENTS)
    parser.add_argument("--prompt", type=int, default=120, help="length of the prompts in characters")
    parser.add_argument("--new", type=int, default=60, help="new tokens of each answer")
    parser.add_argument("--seconds", type=float, default=5.0, help="time in which a round's requests begin")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--only", default="", help="servers to measure, separated by commas; each may be a beginning"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--verbose", action="store_true", help="show what the servers print")
    options = parser.parse_args(arguments)
    if options.model is None and options.shape == "124m" and options.data is None:
        parser.error("the 124m shape needs --data FOLDER with gpt2_bpe/")
    draw, text = random.Random(0), " ".join(sample_stories(n=100)).replace("\n", " ")
    best: dict[str, Round] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        chosen = [
            one
            for one in programs(options, Path(folder))
            if any(one.name.startswith(name) for name in options.only.split(","))
        ]
        for program in chosen:
            running.enter_context(started(program, options))
            asyncio.run(measure(program, _prompts(draw, text, options.prompt), options, 0.5))  # warm
        for _ in range(options.rounds):
            for program in chosen:
                prompts = _prompts(draw, text, options.prompt)
                found = asyncio.run(measure(program, prompts, options, options.seconds))
                best[program.name] = max(
                    best.get(program.name, found), found, key=lambda one: one.tokens_per_s
                )
    rows = [
        {
            "server": name,
            "tokens_per_s": one.tokens_per_s,
            "first_token_p50_ms": one.first_token_ms(0.5),
            "first_token_p99_ms": one.first_token_ms(0.99),
            "answers": len(one.first_token_s),
        }
        for name, one in best.items()
    ]
    for row in rows:
        print(
            f"{row['server']:34s} {row['tokens_per_s']:9,.0f} new tokens/s   first token p50 "
            f"{row['first_token_p50_ms']:7,.0f} ms  p99 {row['first_token_p99_ms']:7,.0f} ms   {row['answers']} answers"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def _prompts(draw: random.Random, text: str, length: int) -> list[str]:
    """Texts that begin in different places, so that no server can reuse another request's beginning."""
    starts = [draw.randrange(len(text) - length) for _ in range(20_000)]
    return [text[start : start + length] for start in starts]


if __name__ == "__main__":
    main()
