"""Other programs that generate text, for `generate_speed`: each as its users would call it, with the same weights."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.training_peers import _load, _module
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.names import GPT2_LINEAR, to_theirs
from scratchlm.checkpoints.store import own_weights
from scratchlm.core.protocols import Tokenizer
from scratchlm.model import GPTModel


@dataclass(frozen=True)
class Speed:
    """What a program did with one batch."""

    reading_s: float  # until every prompt had its first new token
    n_grown: int  # tokens of all texts after that
    growing_s: float  # for them


Generate = Callable[[list[list[int]], int], Speed]  # prompts and the number of new tokens for each
Peer = tuple[Generate, int]  # and the bytes of weights that each new token reads


def timed(model: nn.Module, generate: Callable[[list[list[int]], int], Any]) -> Generate:
    """Watch a program that calls `model` once for the prompts and once for every further token of all texts."""
    calls: list[float] = []
    model.register_forward_hook(lambda *_: calls.append(time.perf_counter()))

    def watched(prompts: list[list[int]], n_new: int) -> Speed:
        calls.clear()
        begun = time.perf_counter()
        generate(prompts, n_new)
        ended = time.perf_counter()
        return Speed(calls[0] - begun, len(prompts) * (len(calls) - 1), ended - calls[0])

    return watched


def in_transformers(model: GPTModel, tokenizer: Tokenizer, work: Path) -> Peer:
    """transformers' generate."""
    from transformers import AutoModelForCausalLM

    folder = export_huggingface(work / "hf", model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()

    def generate(prompts: list[list[int]], n_new: int) -> None:
        ids = torch.tensor(prompts)
        theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip

    return timed(theirs, generate), weight_bytes(theirs)


def in_ctranslate2(kind: str, model: GPTModel, tokenizer: Tokenizer, work: Path, n_threads: int) -> Peer:
    """CTranslate2's generator, from a folder that is written as for transformers."""
    import ctranslate2

    folder, target = export_huggingface(work / f"hf-{kind}", model, tokenizer), work / f"ct2-{kind}"
    quantization = None if kind == "float32" else kind
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(target), quantization=quantization)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config |= {
        name: "<|endoftext|>" for name, value in config.items() if value is None and name.endswith("_token")
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    generator = ctranslate2.Generator(str(target), intra_threads=n_threads, compute_type=kind)
    words = json.loads((target / "vocabulary.json").read_text(encoding="utf-8"))

    def generate(prompts: list[list[int]], n_new: int) -> Speed:
        first: list[float] = []

        def note(result: Any) -> bool:
            if result.step == 0:  # of every text in turn
                first[:] = [time.perf_counter()]
            return False

        begun = time.perf_counter()
        found = generator.generate_batch(
            [[words[i] for i in prompt] for prompt in prompts], max_length=n_new, min_length=n_new, sampling_topk=1,
            include_prompt_in_result=False, end_token=[], callback=note,
        )  # fmt: skip
        ended = time.perf_counter()
        assert all(len(one.sequences_ids[0]) == n_new for one in found)
        return Speed(first[0] - begun, len(prompts) * (n_new - 1), ended - first[0])

    return generate, (target / "model.bin").stat().st_size


class Worker:
    """A Python process that answers lines of JSON with lines of JSON; `checkout` is where it finds scratchlm."""

    def __init__(self, code: str, job: Any, *, checkout: Path | None = None) -> None:
        environment = {} if checkout is None else {"PYTHONPATH": str(checkout.resolve())}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, **environment}, cwd=checkout,
        )  # fmt: skip
        self.ask(job)

    def ask(self, value: Any) -> Any:
        """Send a value and wait for the answer, which begins with `=`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("="):
            if not line:
                raise RuntimeError(f"the program that worked on {value!r:.200} ended")
        return json.loads(line[1:])

    def __call__(self, prompts: list[list[int]], n_new: int) -> Speed:
        """Generate."""
        return Speed(*self.ask([prompts, n_new]))

    def close(self) -> None:
        """End the process."""
        self._process.kill()


LLAMA_CPP = """
import concurrent.futures, json, sys, time, urllib.request
import xllamacpp as llama

job = json.loads(sys.stdin.readline())
params = llama.CommonParams()
params.model.path, params.n_ctx, params.n_parallel = job["path"], job["n_ctx"] * 16, 16
params.n_gpu_layers, params.verbosity = 0, -1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["n_threads"]
server = llama.Server(params)

def ask(prompt, n_new):
    body = {"prompt": prompt, "n_predict": n_new, "temperature": 0, "top_k": 1, "ignore_eos": True,
            "cache_prompt": False, "return_tokens": True}
    request = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)
    assert len(found["tokens"]) == n_new, found
    return time.perf_counter() - found["timings"]["predicted_ms"] / 1000

print("=0", flush=True)
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for line in sys.stdin:
        prompts, n_new = json.loads(line)
        begun = time.perf_counter()
        first = max(pool.map(lambda prompt: ask(prompt, n_new), prompts))
        # tokens that other texts got before the last one's first count for llama.cpp, too: a few of all
        print("=" + json.dumps([first - begun, len(prompts) * (n_new - 1), time.perf_counter() - first]), flush=True)
"""


def in_llama_cpp(dtype: str, model: GPTModel, tokenizer: Tokenizer, work: Path, n_threads: int) -> Peer:
    """llama.cpp's server with our own GGUF, in a process of its own."""
    import xllamacpp  # noqa: F401 - so that its absence is told before

    path = export_gguf(work / f"{dtype}.gguf", model, tokenizer, dtype=dtype)  # type: ignore[arg-type]
    job = {"path": str(path), "n_threads": n_threads, "n_ctx": model.config.context_length}
    return Worker(LLAMA_CPP, job), path.stat().st_size


OTHER_SCRATCHLM = """
import json, sys, time
import torch
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate
from scratchlm.model import GPTConfig, GPTModel

job = json.loads(sys.stdin.readline())
torch.set_num_threads(job["n_threads"])
model = GPTModel(GPTConfig(**job["config"])).eval()
print("=0", flush=True)
for line in sys.stdin:
    prompts, n_new = json.loads(line)
    begun, waiting, n_grown, first = time.perf_counter(), set(range(len(prompts))), 0, 0
    for event in generate(model, prompts, GenerationConfig(max_new_tokens=n_new)):
        n_grown += not waiting
        waiting.discard(event.row)
        first = first or (0 if waiting else time.perf_counter())
    print("=" + json.dumps([first - begun, n_grown, time.perf_counter() - first]), flush=True)
"""


def nanogpt(path: Path, model: GPTModel, n_threads: int) -> Peer:  # noqa: ARG001
    """nanoGPT's own generate. Without a cache each token reads the whole text: one in its middle stands for all."""
    config, module = model.config, _module(path / "model.py", "nanogpt_model")
    theirs = module.GPT(
        module.GPTConfig(
            block_size=config.context_length, vocab_size=config.vocab_size, n_layer=config.n_layers,
            n_head=config.n_heads, n_embd=config.emb_dim, dropout=0.0, bias=True,
        )
    ).eval()  # fmt: skip
    _load(theirs, to_theirs(GPT2_LINEAR, own_weights(model), config.n_layers))
    watched = timed(theirs, lambda prompts, n_new: theirs.generate(torch.tensor(prompts), n_new, top_k=1))

    def generate(prompts: list[list[int]], n_new: int) -> Speed:
        one_s = watched([prompt + [0] * (n_new // 2) for prompt in prompts], 1).reading_s
        n_prompt = len(prompts[0])
        return Speed(one_s * n_prompt / (n_prompt + n_new // 2), len(prompts), one_s)

    return torch.no_grad()(generate), weight_bytes(theirs)


def book(path: Path, model: GPTModel, n_threads: int) -> Peer:  # noqa: ARG001
    """The book's cached code: its gpt_with_kv_cache.py, or gpt_with_kv_cache_optimized.py."""
    module: Any = _module(path, "book_gpt_with_kv_cache")
    fields = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "drop_rate", "qkv_bias")
    theirs = module.GPTModel({name: getattr(model.config, name) for name in fields}).eval()
    _load(theirs, model.state_dict())
    cached = module.generate_text_simple_cached
    return timed(theirs, lambda prompts, n_new: cached(theirs, torch.tensor(prompts), n_new)), weight_bytes(
        theirs
    )


def other_scratchlm(path: Path, model: GPTModel, n_threads: int) -> Peer:
    """Another commit of this package, in a process of its own, with weights of its own."""
    fields = dataclasses.fields(model.config)
    config = {one.name: getattr(model.config, one.name) for one in fields}
    config = {one.name: config[one.name] for one in fields if config[one.name] != one.default}
    job = {"config": config, "n_threads": n_threads}
    return Worker(OTHER_SCRATCHLM, job, checkout=path), weight_bytes(model)


PEERS = {"nanogpt": nanogpt, "book": book, "scratchlm": other_scratchlm}


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights, which one token reads once."""
    tensors = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())
