"""Measure the memory used to open GPT-2: the peak of a fresh process relative to the file's size, for each format.

    python -m benchmarks.import_memory           # 124M with random weights: needs 2 GB of disk and 1 GB of memory
    python -m benchmarks.import_memory --xl      # 1558M as well: needs 13 GB of disk and 8 GB of memory

Each file is created, opened and deleted before the next one.

Linux only: it reads the high-water mark in /proc. Limits: the peak of 124M, without the memory of Python and torch,
is at most 1.3 times the file's size; 1558M loads within 8 GB in total.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from scratchlm.checkpoints.store import own_weights
from scratchlm.model.config import GPTConfig, named_config
from scratchlm.model.gpt import GPTModel
from tests.checkpoints.tensorflow.writer import table, tensor_entry, varint

LIMIT_SHARE = 1.3  # of the file's size, for 124M
LIMIT_XL_BYTES = 8 << 30
SIZES = {"124M": "gpt2-small", "1558M": "gpt2-xl"}
NEEDED = {"124M": (2 << 30, 1 << 30), "1558M": (13 << 30, 8 << 30)}  # disk and memory, in bytes
OPEN = """
import json, sys
import torch
from scratchlm.checkpoints import open_model
from scratchlm.tokenizers.word import WordTokenizer
def peak():  # Linux: getrusage's peak begins with the parent's, this one with the process
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
before = peak()
words = WordTokenizer({"<|endoftext|>": 0, "<|unk|>": 1})  # GPT-2's own files are not part of this
open_model._tokenizer = lambda *given: words
model = open_model.import_model(sys.argv[1]).model
print(json.dumps({"before": before, "peak": peak(), "n": sum(p.numel() for p in model.parameters())}))
"""


def openai_config(size: str) -> GPTConfig:
    """The configuration of OpenAI's weights of this size."""
    return named_config(SIZES[size], qkv_bias=True, tie_embeddings=True, drop_rate=0.0, init="gpt2")


def numbers(n: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random numbers, generated quickly."""
    return np.random.default_rng(seed).standard_normal(n, dtype=np.float32) * np.float32(0.02)


def openai_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of OpenAI's arrays."""
    e, names = config.emb_dim, {}
    names["model/wte"], names["model/wpe"] = (config.vocab_size, e), (config.context_length, e)
    names["model/ln_f/g"], names["model/ln_f/b"] = (e,), (e,)
    for i in range(config.n_layers):
        for norm in ("ln_1", "ln_2"):
            names[f"model/h{i}/{norm}/g"], names[f"model/h{i}/{norm}/b"] = (e,), (e,)
        for layer, n_in, n_out in (
            ("attn/c_attn", e, 3 * e),
            ("attn/c_proj", e, e),
            ("mlp/c_fc", e, 4 * e),
            ("mlp/c_proj", 4 * e, e),
        ):
            names[f"model/h{i}/{layer}/w"], names[f"model/h{i}/{layer}/b"] = (1, n_in, n_out), (n_out,)
    return names


def make_tensorflow(folder: Path, config: GPTConfig) -> Path:
    """OpenAI's files, written array by array."""
    items = {b"": varint(1 << 3) + varint(1)}
    at = 0
    with (folder / "model.ckpt.data-00000-of-00001").open("wb") as file:
        for seed, (name, shape) in enumerate(sorted(openai_shapes(config).items())):
            array = numbers(math.prod(shape), seed).reshape(shape)
            items[name.encode()] = tensor_entry(array, at)
            array.tofile(file)
            at += array.nbytes
    (folder / "model.ckpt.index").write_bytes(table(items))
    sizes = {"n_ctx": config.context_length, "n_embd": config.emb_dim, "n_head": config.n_heads}
    settings = {"n_vocab": config.vocab_size, "n_layer": config.n_layers, **sizes}
    (folder / "hparams.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def make_safetensors(folder: Path, config: GPTConfig) -> Path:
    """A Hugging Face folder, written array by array, which the library's writer cannot do."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in openai_shapes(config).items():
        parts = name.removeprefix("model/").split("/")
        parts[:1] = ["h", parts[0][1:]] if parts[0][0] == "h" else parts[:1]
        if parts[0] in ("wte", "wpe"):
            parts.append("weight")
        else:
            parts[-1] = "bias" if parts[-1] == "b" else "weight"
        shapes[".".join(parts)] = tuple(n for n in shape if n != 1)
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for seed, shape in enumerate(shapes.values()):
            numbers(math.prod(shape), seed).tofile(file)
    values = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.emb_dim,
        "n_head": config.n_heads,
        "n_layer": config.n_layers,
    }
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def make_book(folder: Path, config: GPTConfig) -> Path:
    """The book's `.pth`, built in memory."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in own_weights(GPTModel(config)).items()}
    state = {
        name: torch.from_numpy(numbers(math.prod(shape), i).reshape(shape))
        for i, (name, shape) in enumerate(shapes.items())
    }
    torch.save(state | {"out_head.weight": state["tok_emb.weight"]}, folder / "model.pth")
    values = {"emb_dim": config.emb_dim, "n_heads": config.n_heads, "n_layers": config.n_layers}
    values |= {"vocab_size": config.vocab_size, "context_length": config.context_length, "qkv_bias": True}
    (folder / "config.json").write_text(json.dumps({**values, "tie_embeddings": True}), encoding="utf-8")
    return folder / "model.pth"


FORMS: Mapping[str, Callable[[Path, GPTConfig], Path]] = {
    "safetensors": make_safetensors,
    "TensorFlow checkpoint": make_tensorflow,
    "the book's .pth": make_book,
}


def measure(size: str, form: str, folder: Path) -> dict[str, Any]:
    """Create the files of one format and size, open them in a fresh process, and delete them."""
    config = openai_config(size)
    place = folder / size
    place.mkdir()
    source = FORMS[form](place, config)
    n_file = max(file.stat().st_size for file in place.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(source)], capture_output=True, text=True, check=False
    )
    shutil.rmtree(place)
    if done.returncode != 0:
        raise RuntimeError(f"{form} of {size} could not be opened: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    grown = told["peak"] - told["before"]
    limit = LIMIT_SHARE * n_file if size == "124M" else LIMIT_XL_BYTES
    taken = grown if size == "124M" else told["peak"]
    return {
        "size": size,
        "form": form,
        "file_mb": round(n_file / 2**20),
        "grown_mb": round(grown / 2**20),
        "peak_mb": round(told["peak"] / 2**20),
        "times_the_file": round(grown / n_file, 3),
        "is_within": taken <= limit,
    }


def main() -> int:
    """Print a row per format; exit code 1 if one exceeds its limit, 2 if this machine is too small."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--xl", action="store_true", help="1558M as well: 13 GB of disk, 8 GB of memory")
    parser.add_argument(
        "--folder", type=Path, help="where the files may lie meanwhile; default: the system's"
    )
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in ("124M", "1558M") if arguments.xl else ("124M",):
            disk, memory = NEEDED[size]
            found = (shutil.disk_usage(folder).free, psutil.virtual_memory().available)
            if found[0] < disk or found[1] < memory:
                sys.stderr.write(
                    f"{size} needs {disk:,} bytes of disk and {memory:,} of memory, found {found}\n"
                )
                return 2
            for form in FORMS:
                rows.append(measure(size, form, Path(folder)))
                sys.stdout.write(json.dumps(rows[-1]) + "\n")
    return 0 if all(row["is_within"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
