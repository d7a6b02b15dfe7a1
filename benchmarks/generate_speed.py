"""Speed of generation beside transformers, llama.cpp, CTranslate2 and others, on the same weights, in one run.

    python -m benchmarks.generate_speed --data FOLDER                      # the shape of GPT-2 124M
    python -m benchmarks.generate_speed --shape quickstart --only "scratchlm f32,transformers"
    python -m benchmarks.generate_speed --data FOLDER --rounds 3 --json speeds.json

Every row is measured in turns with all others: a round times each program once. The best time of all rounds counts, of
one new token (the time to read the prompts) and of all new tokens; the difference is for the other tokens. Weights are
random; greedy decoding, end-of-text ignored. `FOLDER` has the layout of SCRATCHLM_ASSETS; only GPT-2's BPE files are
read. Peers that are not installed (ctranslate2, xllamacpp for llama.cpp) are left out, by name.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import scratchlm
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.engine import Engine
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig

SHAPES = {
    "124m": GPTConfig(drop_rate=0.0, qkv_bias=True, tie_embeddings=True, init="gpt2"),
    "quickstart": GPTConfig(
        vocab_size=1024, context_length=128, emb_dim=128, n_heads=4, n_layers=4, drop_rate=0.0, tie_embeddings=True,
        init="gpt2",
    ),
}  # fmt: skip
Generate = Callable[[list[list[int]], int], None]  # prompts and the number of new tokens for each


@dataclass(frozen=True)
class Contender:
    """A program with one model loaded."""

    name: str
    weight_bytes: int  # read for each token
    generate: Generate
    close: Callable[[], None] = lambda: None


def ours(model: GPTModel, kernel: str) -> Generate:
    """This package's engine."""

    def generate(prompts: list[list[int]], n_new: int) -> None:
        longest = len(prompts[0]) + n_new
        engine = Engine(model, n_slots=len(prompts), capacity=longest, kernel=kernel)
        for prompt in prompts:
            engine.add(prompt, GenerationConfig(max_new_tokens=n_new))
        while engine.has_work:
            engine.step()
        assert engine.stats.generated_tokens == n_new * len(prompts)
        engine.close()

    return generate


def in_transformers(folder: Path) -> Generate:
    """transformers' generate."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def generate(prompts: list[list[int]], n_new: int) -> None:
        ids = torch.tensor(prompts)
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        assert out.shape[1] == len(prompts[0]) + n_new

    return generate


def in_ctranslate2(folder: Path, target: Path, kind: str, n_threads: int) -> Generate:
    """CTranslate2's generator."""
    import ctranslate2

    quantization = None if kind == "float32" else kind
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(target), quantization=quantization)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config |= {
        name: "<|endoftext|>" for name, value in config.items() if value is None and name.endswith("_token")
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    generator = ctranslate2.Generator(str(target), intra_threads=n_threads, compute_type=kind)
    words = json.loads((target / "vocabulary.json").read_text(encoding="utf-8"))

    def generate(prompts: list[list[int]], n_new: int) -> None:
        found = generator.generate_batch(
            [[words[i] for i in prompt] for prompt in prompts], max_length=n_new, min_length=n_new, sampling_topk=1,
            include_prompt_in_result=False, end_token=[],
        )  # fmt: skip
        assert all(len(one.sequences_ids[0]) == n_new for one in found)

    return generate


LLAMA_CPP = """
import concurrent.futures, json, sys, urllib.request
import xllamacpp as llama

job = json.loads(sys.stdin.readline())
params = llama.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = job["path"], job["n_ctx"], job["n_slots"]
params.n_gpu_layers, params.verbosity = 0, -1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["n_threads"]
server = llama.Server(params)

def ask(prompt, n_new):
    body = {"prompt": prompt, "n_predict": n_new, "temperature": 0, "top_k": 1, "ignore_eos": True,
            "cache_prompt": False, "return_tokens": True}
    request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return len(json.load(answer)["tokens"])

print("ready", flush=True)
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for line in sys.stdin:
        prompts, n_new = json.loads(line)
        counts = list(pool.map(lambda prompt: ask(prompt, n_new), prompts))
        print(json.dumps(counts), flush=True)
import os
os._exit(0)
"""


def in_llama_cpp(path: Path, n_threads: int, n_ctx: int) -> tuple[Generate, Callable[[], None]]:
    """llama.cpp's server, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", LLAMA_CPP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def say(value: Any) -> str:
        stdin.write(json.dumps(value) + "\n")
        stdin.flush()
        while not (line := stdout.readline()).startswith(("[", "ready")):
            if not line:
                raise RuntimeError(f"llama.cpp ended while it worked on {path.name}")
        return line

    say({"path": str(path), "n_threads": n_threads, "n_ctx": n_ctx * 16, "n_slots": 16})

    def generate(prompts: list[list[int]], n_new: int) -> None:
        counts = json.loads(say([prompts, n_new]))
        assert counts == [n_new] * len(prompts), counts

    return generate, process.kill


def nanogpt(checkout: Path, model: GPTModel) -> Generate:
    """nanoGPT's own generate (no cache), with weights of the same shape."""
    sys.path.insert(0, str(checkout))
    from model import GPT as TheirGPT  # noqa: N811
    from model import GPTConfig as TheirConfig

    config = model.config
    theirs = TheirGPT(
        TheirConfig(
            block_size=config.context_length, vocab_size=config.vocab_size, n_layer=config.n_layers,
            n_head=config.n_heads, n_embd=config.emb_dim, dropout=0.0, bias=True,
        )
    ).eval()  # fmt: skip

    def generate(prompts: list[list[int]], n_new: int) -> None:
        with torch.no_grad():
            theirs.generate(torch.tensor(prompts), n_new, top_k=1)

    return generate


def books_cached(model: GPTModel) -> Generate:
    """Decoding as in the book's cached code: PyTorch, one token a call, all rows equally long."""
    from scratchlm.model import KVCache

    def generate(prompts: list[list[int]], n_new: int) -> None:
        with torch.no_grad():
            cache = KVCache(model.config, len(prompts), capacity=len(prompts[0]) + n_new)
            logits = model(torch.tensor(prompts), cache=cache)[:, -1]
            for _ in range(n_new - 1):
                logits = model(logits.argmax(dim=-1, keepdim=True), cache=cache)[:, -1]

    return generate


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


def stored_bytes(model: GPTModel) -> int:
    """Bytes of all weights, which one token reads once."""
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def contenders(arguments: argparse.Namespace, work: Path) -> list[Contender]:
    """Load every program that is here."""
    torch.manual_seed(0)
    config = SHAPES[arguments.shape]
    model = GPTModel(config).eval()
    found = [
        Contender("scratchlm f32", stored_bytes(model), ours(model, "native")),
        Contender("scratchlm f32, SCRATCHLM_KERNEL=torch", stored_bytes(model), ours(model, "torch")),
        Contender("the book's cached loop", stored_bytes(model), books_cached(model)),
    ]
    for bits in (8, 4):
        quantized = copy.deepcopy(model)
        quantize_model(quantized, QuantizationConfig(bits=bits))  # type: ignore[arg-type]
        found.append(Contender(f"scratchlm int{bits}", stored_bytes(quantized), ours(quantized, "native")))
    if arguments.nanogpt is not None:
        found.append(Contender("nanoGPT", stored_bytes(model), nanogpt(arguments.nanogpt, model)))
    if arguments.shape != "124m":
        found.append(_in_transformers_alone(model, work))
        return found
    tokenizer = scratchlm.gpt2_tokenizer(arguments.data / "gpt2_bpe")
    export_huggingface(work / "hf", model, tokenizer)
    found.append(Contender("transformers", stored_bytes(model), in_transformers(work / "hf")))
    try:
        for kind in ("float32", "int8"):
            generate = in_ctranslate2(work / "hf", work / f"ct2-{kind}", kind, arguments.threads)
            size = (work / f"ct2-{kind}" / "model.bin").stat().st_size
            found.append(Contender(f"CTranslate2 {kind}", size, generate))
    except ImportError:
        print("CTranslate2 is left out: pip install ctranslate2", file=sys.stderr)
    try:
        import xllamacpp  # noqa: F401

        for dtype in ("f32", "q8_0", "q4_0"):
            path = export_gguf(work / f"{dtype}.gguf", model, tokenizer, dtype=dtype)  # type: ignore[arg-type]
            generate, close = in_llama_cpp(path, arguments.threads, config.context_length + 256)
            found.append(Contender(f"llama.cpp {dtype}", path.stat().st_size, generate, close))
    except ImportError:
        print("llama.cpp is left out: pip install xllamacpp", file=sys.stderr)
    return found


def _in_transformers_alone(model: GPTModel, work: Path) -> Contender:
    """transformers for a shape without GPT-2's vocabulary: a tokenizer is not needed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size, n_positions=config.context_length, n_embd=config.emb_dim,
            n_layer=config.n_layers, n_head=config.n_heads, eos_token_id=None, bos_token_id=None,
        )
    )  # fmt: skip
    theirs.save_pretrained(work / "hf")
    return Contender("transformers", stored_bytes(model), in_transformers(work / "hf"))


def measure(one: Contender, batch: int, n_prompt: int, n_new: int, vocab_size: int) -> tuple[float, float]:
    """Seconds for the prompts and one new token each, and for the prompts and all new tokens."""
    generator = torch.Generator().manual_seed(batch * 1000 + n_prompt)
    prompts = torch.randint(vocab_size - 1, (batch, n_prompt), generator=generator).tolist()
    begun = time.perf_counter()
    one.generate(prompts, 1)
    between = time.perf_counter()
    one.generate(prompts, n_new)
    return between - begun, time.perf_counter() - between


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
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT to compare with")
    parser.add_argument(
        "--only", default="", help="names to measure, separated by commas; each may be a beginning"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    if options.shape == "124m" and options.data is None:
        parser.error("the 124m shape needs --data FOLDER with gpt2_bpe/")
    config = SHAPES[options.shape]
    bandwidth = bandwidth_bytes_per_s(options.threads)
    print(f"memory bandwidth {bandwidth / 1e9:.1f} GB/s with {options.threads} threads")
    print(f"processor: {torch.backends.cpu.get_cpu_capability()}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        programs = contenders(options, Path(folder))
        wanted = [name for name in options.only.split(",") if name]
        programs = [
            one for one in programs if not wanted or any(one.name.startswith(name) for name in wanted)
        ]
        for batch in map(int, options.batches.split(",")):
            for n_prompt in map(int, options.prompts.split(",")):
                n_new = min(options.new, config.context_length - n_prompt)
                if n_new < 2:
                    continue
                best: dict[str, tuple[float, float]] = {}
                for one in programs:  # so that its weights are in memory
                    measure(one, batch, n_prompt, 2, config.vocab_size)
                for _ in range(options.rounds):
                    for one in programs:
                        found = measure(one, batch, n_prompt, n_new, config.vocab_size)
                        before = best.get(one.name, found)
                        best[one.name] = (min(before[0], found[0]), min(before[1], found[1]))
                for one in programs:
                    reading, growing = best[one.name][0], best[one.name][1] - best[one.name][0]
                    row = {
                        "program": one.name,
                        "batch": batch,
                        "prompt": n_prompt,
                        "new": n_new,
                        "prompt_tokens_per_s": batch * n_prompt / reading,
                        "tokens_per_s": batch * (n_new - 1) / growing,
                        "bandwidth_share": one.weight_bytes * (n_new - 1) / growing / bandwidth,
                    }
                    rows.append(row)
                    print(
                        f"{batch:3d} x {n_prompt:4d} + {n_new:3d}  {one.name:40s} "
                        f"prompt {row['prompt_tokens_per_s']:9,.0f}/s  new {row['tokens_per_s']:9,.1f}/s  "
                        f"{row['bandwidth_share']:.0%} of the bandwidth",
                        flush=True,
                    )
        for one in programs:
            one.close()
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
