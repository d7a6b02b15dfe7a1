"""Speed of generation beside transformers, llama.cpp, CTranslate2 and others, on the same weights, in one run.

    python -m benchmarks.generate_speed --data FOLDER                      # the shape of GPT-2 124M
    python -m benchmarks.generate_speed --shape quickstart --only "scratchlm f32,transformers"
    python -m benchmarks.generate_speed --data FOLDER --peer nanogpt=CHECKOUT --json speeds.json \\
        --peer book=CHECKOUT/ch04/03_kv-cache/gpt_with_kv_cache_optimized.py
    python -m benchmarks.generate_speed --shape quickstart --peer scratchlm=CHECKOUT_OF_ANOTHER_COMMIT

Every row is measured in turns with all others: a round times each program once, and the best of all rounds counts.
Reading ends when every prompt has its first new token; the other tokens are counted from then on. Weights are
random; greedy decoding, end-of-text ignored. `FOLDER` has the layout of SCRATCHLM_ASSETS; only GPT-2's BPE files are
read. GPT-2's shape gets 1,280 positions, so that prompts of 1,000 tokens have room to grow. Peers that are not
installed (ctranslate2, xllamacpp for llama.cpp) are left out, by name.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import scratchlm
from benchmarks import generation_peers as peers
from benchmarks.generation_peers import PEERS, Generate, Peer, Speed, weight_bytes
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.samples.stories import sample_stories
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.engine import Engine
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.tokenizers.bpe_trainer import train_bpe

SHAPES = {
    "124m": GPTConfig(drop_rate=0.0, qkv_bias=True, tie_embeddings=True, init="gpt2", context_length=1280),
    "quickstart": GPTConfig(
        vocab_size=1024, context_length=128, emb_dim=128, n_heads=4, n_layers=4, drop_rate=0.0, tie_embeddings=True,
        qkv_bias=True, init="gpt2",
    ),
}  # fmt: skip
LONG_ROUND_S = 100  # a cell whose first round takes longer has no other


@dataclass(frozen=True)
class Contender:
    """A program with one model loaded."""

    name: str
    generate: Generate
    weight_bytes: int  # read for each token


def ours(model: GPTModel, kernel: str) -> Peer:
    """This package's engine."""

    def generate(prompts: list[list[int]], n_new: int) -> Speed:
        begun, waiting, n_grown, first = time.perf_counter(), set(range(len(prompts))), 0, 0.0
        engine = Engine(model, n_slots=len(prompts), capacity=len(prompts[0]) + n_new, kernel=kernel)
        for prompt in prompts:
            engine.add(prompt, GenerationConfig(max_new_tokens=n_new))
        while engine.has_work:
            events = engine.step()
            n_grown += 0 if waiting else len(events)
            waiting -= {event.row for event in events}
            first = first or (0.0 if waiting else time.perf_counter())
        ended = time.perf_counter()
        assert engine.stats.generated_tokens == n_new * len(prompts)
        engine.close()
        return Speed(first - begun, n_grown, ended - first)

    return generate, weight_bytes(model)


def bandwidth_bytes_per_s(n_threads: int) -> float:
    """How fast memory can be read here: the best of several sums over 1 GB."""
    torch.set_num_threads(n_threads)
    numbers = torch.ones(256 << 20)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - begun)
    return numbers.numel() * 4 / min(seconds)


def contenders(arguments: argparse.Namespace, work: Path) -> list[Contender]:
    """Load every program that is here and wanted."""
    torch.manual_seed(0)
    model = GPTModel(SHAPES[arguments.shape]).eval()
    n_threads = arguments.threads
    tokenizer: Tokenizer
    if arguments.shape == "124m":
        tokenizer = scratchlm.gpt2_tokenizer(arguments.data / "gpt2_bpe")
    else:
        tokenizer = train_bpe(sample_stories(n=400), model.config.vocab_size)
    wanted = [name for name in arguments.only.split(",") if name]
    found: list[Contender] = []

    def load(name: str, peer: Callable[..., Peer], *inputs: object) -> None:
        if wanted and not any(name.startswith(one) for one in wanted):
            return
        try:
            found.append(Contender(name, *peer(*inputs)))
        except ImportError as reason:
            print(f"{name} is left out: {reason}", file=sys.stderr)

    load("scratchlm f32", ours, model, "native")
    for bits in (8, 4):
        quantized = copy.deepcopy(model)
        quantize_model(quantized, QuantizationConfig(bits=bits))  # type: ignore[arg-type]
        load(f"scratchlm int{bits}", ours, quantized, "native")
    load("scratchlm f32, SCRATCHLM_KERNEL=torch", ours, model, "torch")
    load("transformers", peers.in_transformers, model, tokenizer, work)
    for kind in ("float32", "int8"):
        load(f"CTranslate2 {kind}", peers.in_ctranslate2, kind, model, tokenizer, work, n_threads)
    for dtype in ("f32", "q8_0", "q4_0"):
        load(f"llama.cpp {dtype}", peers.in_llama_cpp, dtype, model, tokenizer, work, n_threads)
    for name, _, path in (peer.partition("=") for peer in arguments.peer):
        load(f"{name} ({Path(path).name})", PEERS[name], Path(path), model, n_threads)
    return found


def measure(
    programs: list[Contender], batch: int, n_prompt: int, n_new: int, rounds: int, vocab_size: int
) -> list[Speed]:
    """The best speeds of each program for one batch of random prompts."""
    generator = torch.Generator().manual_seed(batch * 1000 + n_prompt)
    prompts = torch.randint(vocab_size - 1, (batch, n_prompt), generator=generator).tolist()
    found: list[list[Speed]] = [[] for _ in programs]
    begun = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - begun > LONG_ROUND_S:
            break
        for one, speeds in zip(programs, found):
            one.generate([prompt[:32] for prompt in prompts], 2)  # so that its weights are in memory
            speeds.append(one.generate(prompts, n_new))
    return [
        Speed(
            min(speed.reading_s for speed in speeds),
            speeds[0].n_grown,
            min(speed.growing_s / speed.n_grown for speed in speeds) * speeds[0].n_grown,
        )
        for speeds in found
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write it as JSON when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="124m")
    parser.add_argument("--data", type=Path, help="folder with gpt2_bpe/, for the 124m shape")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--prompts", default="32,1000", help="lengths of the prompts in tokens")
    parser.add_argument("--new", type=int, default=200, help="new tokens for each prompt")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PATH",
        help=f"another program to compare with: {', '.join(PEERS)}",
    )  # fmt: skip
    parser.add_argument(
        "--only", default="", help="names to measure, separated by commas; each may be a beginning"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    if options.shape == "124m" and options.data is None:
        parser.error("the 124m shape needs --data FOLDER with gpt2_bpe/")
    unknown = [peer for peer in options.peer if peer.partition("=")[0] not in PEERS]
    if unknown:
        parser.error(f"--peer must be NAME=PATH with a name among {', '.join(PEERS)}, got {unknown[0]}")
    config = SHAPES[options.shape]
    bandwidth = bandwidth_bytes_per_s(options.threads)
    print(f"memory bandwidth {bandwidth / 1e9:.1f} GB/s with {options.threads} threads")
    print(f"processor: {torch.backends.cpu.get_cpu_capability()}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        programs = contenders(options, Path(folder))
        for batch in map(int, options.batches.split(",")):
            for n_prompt in map(int, options.prompts.split(",")):
                n_new = min(options.new, config.context_length - n_prompt)
                if n_new < 2:
                    print(
                        f"prompts of {n_prompt} tokens are left out: the context has {config.context_length}"
                    )
                    continue
                speeds = measure(programs, batch, n_prompt, n_new, options.rounds, config.vocab_size)
                for one, speed in zip(programs, speeds):
                    row = {
                        "program": one.name,
                        "batch": batch,
                        "prompt": n_prompt,
                        "new": n_new,
                        "prompt_tokens_per_s": batch * n_prompt / speed.reading_s,
                        "tokens_per_s": speed.n_grown / speed.growing_s,
                        "bandwidth_share": one.weight_bytes
                        * speed.n_grown
                        / batch
                        / speed.growing_s
                        / bandwidth,
                    }
                    rows.append(row)
                    print(
                        f"{batch:3d} x {n_prompt:4d} + {n_new:3d}  {one.name:40s} "
                        f"prompt {row['prompt_tokens_per_s']:9,.0f}/s  new {row['tokens_per_s']:9,.1f}/s  "
                        f"{row['bandwidth_share']:.0%} of the bandwidth",
                        flush=True,
                    )
        for one in programs:
            if isinstance(one.generate, peers.Worker):
                one.generate.close()
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
