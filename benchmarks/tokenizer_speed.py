"""Compare the speed of our tokenizer, tiktoken and Hugging Face `tokenizers` on the same text in one process.

    python -m benchmarks.tokenizer_speed --data FOLDER --json tokenizers.json

FOLDER has the layout of SCRATCHLM_ASSETS (gpt2_bpe/, text/), with books as .txt files in text/gutenberg/.

Encoding: GPT-2's merges on tiny Shakespeare. "First" is with an empty cache, "again" the same text once more.
Training: to 4,096 tokens on tiny Shakespeare and on 20 MB. The 20 MB are the Gutenberg books and Shakespeare
over and over, where in every copy one word in ten exchanges its second half with another word's; so new words
keep coming, as they do in 20 MB of real text. The random numbers are seeded.
Pathological text: one character repeated.

All programs are timed in turn, round by round, and the best round of each is reported, so that other load on the
machine affects all equally. Times are wall-clock seconds. Hugging Face may use two threads, ours and tiktoken use one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from scratchlm.core.files import write_json
from scratchlm.tokenizers import BPETokenizer, load_gpt2_tokenizer, train_bpe
from scratchlm.tokenizers.byte_symbols import to_symbols
from scratchlm.tokenizers.pretokenizer import GPT2_PATTERN

PATHOLOGICAL = {"a": "a", "^": "^", "space": " ", "0": "0", "newline": "\n", "CJK": "語"}
Rows = list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure our tokenizers beside tiktoken and Hugging Face's.")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("SCRATCHLM_ASSETS"), help="folder with gpt2_bpe and text"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best one of each contender counts")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("name the folder of data with --data, or set SCRATCHLM_ASSETS")
    os.environ["RAYON_NUM_THREADS"] = "2"  # Hugging Face's threads; read when its first batch starts

    shakespeare = (options.data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    books = [
        path.read_text(encoding="utf-8")
        for path in sorted((options.data / "text" / "gutenberg").glob("*.txt"))
    ]
    figures = {
        "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "encode": measure_encoding(options.data / "gpt2_bpe", shakespeare, rounds=options.rounds),
        "train": [
            *measure_training("1 MB", [shakespeare], rounds=options.rounds),
            *measure_training("20 MB", make_large([*books, shakespeare], size=20_000_000), rounds=2),
        ],
        "pathological": measure_pathological(options.data / "gpt2_bpe", rounds=options.rounds),
    }
    print(f"machine: {figures['machine']}")
    for name in ("encode", "train", "pathological"):
        print_table(name, figures[name])
    if options.json:
        write_json(options.json, figures)


def measure_encoding(folder: Path, text: str, *, rounds: int) -> Rows:
    """Seconds to encode the text with GPT-2's merges, with an empty and with a filled cache."""
    ours, fast = load_gpt2(folder), load_gpt2(folder, "tiktoken")
    reference, peer = reference_encoding(ours), peer_tokenizer(ours)
    assert ours.encode(text) == reference.encode_ordinary(text) == peer.encode(text).ids

    def ours_cold() -> None:
        ours._cache.clear()
        ours.encode(text)

    seconds = best_of(
        {
            "tiktoken": lambda: reference.encode_ordinary(text),
            "ours, first": ours_cold,
            "ours, again": lambda: ours.encode(text),
            'ours, engine="tiktoken"': lambda: fast.encode(text),
            "tokenizers": lambda: peer.encode(text).ids,
        },
        rounds,
    )
    size_mb = len(text.encode()) / 1e6
    return [
        {"who": who, "seconds": s, "MB/s": size_mb / s, "speed / tiktoken": seconds["tiktoken"] / s}
        for who, s in seconds.items()
    ]


def measure_training(name: str, texts: list[str], *, rounds: int) -> Rows:
    """Seconds to train to 4,096 tokens; both must learn the same merges."""
    learned: dict[str, list[list[str]]] = {}

    def ours() -> None:
        merges = train_bpe(texts, 4096, special_tokens=()).merges
        learned["ours"] = [[to_symbols(left), to_symbols(right)] for left, right in merges]

    def peer() -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        learned["tokenizers"] = json.loads(tokenizer.to_str())["model"]["merges"]

    seconds = best_of({"ours": ours, "tokenizers": peer}, rounds)
    assert learned["ours"] == learned["tokenizers"]
    return [
        {"text": name, "who": who, "seconds": s, "time / tokenizers": s / seconds["tokenizers"]}
        for who, s in seconds.items()
    ]


def measure_pathological(folder: Path, *, rounds: int) -> Rows:
    """Seconds for 100,000 and 1,000,000 times the same character; near-linear means a ratio near 10."""
    tokenizer = load_gpt2(folder)
    rows = []
    for name, character in PATHOLOGICAL.items():
        short, long = character * 100_000, character * 1_000_000
        seconds = best_of(
            {"100 k": lambda s=short: tokenizer.encode(s), "1 M": lambda s=long: tokenizer.encode(s)}, rounds
        )
        rows.append({"character": name, **seconds, "ratio": seconds["1 M"] / seconds["100 k"]})
    return rows


def make_large(texts: list[str], *, size: int) -> list[str]:
    """At least `size` characters of text: copies in which words exchange their second halves."""
    generator = random.Random(0)
    large, length = [], 0
    while length < size:
        for text in texts:
            words = re.split(r"(\s+)", text)
            for i in range(0, len(words), 2):
                if generator.random() < 0.1:
                    other = words[2 * generator.randrange(len(words) // 2)]
                    words[i] = words[i][: len(words[i]) // 2] + other[len(other) // 2 :]
            large.append("".join(words))
            length += len(large[-1])
    return large


def best_of(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best of several rounds in seconds; in each round the contenders take turns."""
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for who, run in contenders.items():
            started_at_s = time.perf_counter()
            run()
            best[who] = min(best[who], time.perf_counter() - started_at_s)
    return best


def load_gpt2(folder: Path, engine: Any = "python") -> BPETokenizer:
    return load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe", engine=engine)


def reference_encoding(ours: BPETokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ours.vocab, special_tokens={})


def peer_tokenizer(ours: BPETokenizer) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder) / "tokenizer.json")
        return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def print_table(title: str, rows: Rows) -> None:
    """Rows as text with aligned columns."""
    cells = [
        list(rows[0]),
        *([f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    print(f"\n{title}")
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
