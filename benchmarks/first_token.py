"""Seconds from starting a process to the first token of a 124M model, beside transformers.

    python -m benchmarks.first_token --data FOLDER      # of the layout of SCRATCHLM_ASSETS; gpt2_bpe/ is read

Each program is started as a process of its own, in turns, on the same random weights: ours from our folder and from
transformers' folder, transformers from its own. The time ends when the token's text is on standard output. The first
start of each, which compiles Python files and brings the weights into memory, does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import scratchlm
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.store import save_model
from scratchlm.model import GPTConfig, GPTModel

PROMPT = "Once upon a time"
OURS = ["-m", "scratchlm", "generate", "--prompt", PROMPT, "--max-new-tokens", "1", "--model"]
TRANSFORMERS = f"""
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModelForCausalLM.from_pretrained(sys.argv[1])
inputs = tokenizer({PROMPT!r}, return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=0)
print(tokenizer.decode(ids[0]), flush=True)
"""


def first_token_s(command: list[str]) -> float:
    """Seconds from the start of a process to the end of the first line that it prints."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    elapsed_s = time.perf_counter() - begun
    process.communicate()
    assert line.startswith(PROMPT), f"{command} printed {line!r} and ended with {process.returncode}"
    return elapsed_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with gpt2_bpe/")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = GPTModel(GPTConfig(drop_rate=0.0, qkv_bias=True, tie_embeddings=True, init="gpt2"))
    tokenizer = scratchlm.gpt2_tokenizer(options.data / "gpt2_bpe")
    with tempfile.TemporaryDirectory() as work:
        own = save_model(Path(work) / "own", model, tokenizer)
        theirs = export_huggingface(Path(work) / "theirs", model, tokenizer)
        commands = {
            "scratchlm, own folder": [*OURS, str(own)],
            "scratchlm, transformers' folder": [*OURS, str(theirs)],
            "transformers": ["-c", TRANSFORMERS, str(theirs)],
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(options.rounds + 1):
            for name, command in commands.items():
                elapsed_s = first_token_s(command)
                if number:
                    found[name].append(elapsed_s)
    peer_s = statistics.median(found["transformers"])
    for name, times in found.items():
        median_s = statistics.median(times)
        print(
            f"{name:32s} {median_s:.2f} s, best {min(times):.2f} s, {median_s / peer_s:.2f} of transformers"
        )


if __name__ == "__main__":
    main()
