"""Compare our `shakespeare` recipe with nanoGPT's documented CPU recipe, on the same file, in the same time.

    python -m benchmarks.shakespeare --data tinyshakespeare.txt --nanogpt PATH_TO_A_NANOGPT_CHECKOUT --json out.json

nanoGPT trains first, with the flags its README gives for a computer without a GPU (4 layers, width 128, context 64,
batch 12, 2,000 iterations, one character a token); its evaluation runs only at the last iteration so that
the time is spent on training. The wall-clock time of its `train.py` process is the limit for ours, including start-up
and the training of the tokenizer: `scratchlm pretrain --recipe shakespeare` also runs as a separate process.

Both are evaluated on the last 10 % of the file: sliding windows of each model's own context, half a window
apart, every character counted once; bits per byte of text, so that tokens of different length are comparable.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scratchlm.core.files import write_json

NANOGPT_FLAGS = (  # README of nanoGPT, "I only have a macbook"
    "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=100", "--block_size=64", "--batch_size=12",
    "--n_layer=4", "--n_head=4", "--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Bits per byte beside nanoGPT, in the same time.")
    parser.add_argument("--data", type=Path, required=True, help="tinyshakespeare.txt")
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument("--steps", type=int, help="of ours, in place of the number in the recipe")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        peer = run_nanogpt(options.nanogpt, options.data, Path(folder))
        ours = run_ours(options.data, Path(folder) / "ours", steps=options.steps)
    figures = {
        "nanogpt": peer,
        "scratchlm": ours,
        "ratio_of_bits": ours["bits_per_byte"] / peer["bits_per_byte"],
        "ratio_of_seconds": ours["seconds"] / peer["seconds"],
        "threads": torch.get_num_threads(),
    }
    for name in ("nanogpt", "scratchlm"):
        row = figures[name]
        print(f"{name:>9}: {row['bits_per_byte']:.4f} bits per byte in {row['seconds']:.1f} s")
    bits, seconds = figures["ratio_of_bits"], figures["ratio_of_seconds"]
    print(f"ours / nanoGPT: {bits:.3f} of the bits in {seconds:.2f} of the time")
    if options.json:
        write_json(options.json, figures)


def run_nanogpt(checkout: Path, data: Path, folder: Path) -> dict[str, Any]:
    """Train nanoGPT with the flags of its README on our file; returns its loss on the last tenth."""
    prepared = checkout / "data" / "shakespeare_char"
    shutil.copyfile(data, prepared / "input.txt")  # found there, it is not downloaded
    subprocess.run([sys.executable, "prepare.py"], cwd=prepared, check=True)
    text = data.read_text(encoding="utf-8")
    cut = int(len(text) * 0.9)
    ids = np.concatenate(
        [np.fromfile(prepared / f"{side}.bin", dtype=np.uint16) for side in ("train", "val")]
    )
    out = folder / "nanogpt"
    command = [
        sys.executable, "train.py", "config/train_shakespeare_char.py", *NANOGPT_FLAGS,
        "--eval_interval=2000", "--always_save_checkpoint=True", f"--out_dir={out}",
    ]  # fmt: skip
    started_at_s = time.perf_counter()
    subprocess.run(command, cwd=checkout, check=True)
    seconds = time.perf_counter() - started_at_s
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkpoint = torch.load(out / "ckpt.pt", map_location="cpu", weights_only=True)
    model = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    loss_sum = strided_loss(model.eval(), ids[cut - 1 :].astype(np.int64), context=64, stride=32)
    n_bytes = len(text[cut:].encode("utf-8"))
    return {
        "bits_per_byte": loss_sum / math.log(2) / n_bytes,
        "nats_per_character": loss_sum / (len(ids) - cut),
        "iterations": checkpoint["iter_num"],
        "seconds": seconds,
    }


def run_ours(data: Path, out: Path, *, steps: int | None = None) -> dict[str, Any]:
    """Train with our recipe, as a user would."""
    length = ["--max-steps", str(steps)] if steps else []
    command = [
        sys.executable, "-m", "scratchlm", "pretrain", "--recipe", "shakespeare", "--data", str(data),
        "--out", str(out), "--json", *length,
    ]  # fmt: skip
    started_at_s = time.perf_counter()
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds = time.perf_counter() - started_at_s
    figures = json.loads(printed)
    return {"bits_per_byte": figures["bits_per_byte"], "steps": figures["step"], "seconds": seconds}


@torch.no_grad()
def strided_loss(model: Any, ids: np.ndarray, *, context: int, stride: int) -> float:
    """The summed loss in nats of all ids but the first, each predicted once, in windows `stride` apart."""
    total, predicted = 0.0, 0
    for begin in range(0, len(ids) - 1, stride):
        end = min(begin + context, len(ids) - 1)
        inputs = torch.from_numpy(ids[begin:end])[None]
        targets = torch.from_numpy(ids[begin + 1 : end + 1])[None].clone()
        targets[:, : predicted - begin] = -1  # what an earlier window predicted is not counted again
        logits, _ = model(inputs, targets)  # with targets it returns the logits of every position
        losses = torch.nn.functional.cross_entropy(
            logits[0].float(), targets[0], ignore_index=-1, reduction="sum"
        )
        total += losses.item()
        predicted = end
        if end == len(ids) - 1:
            break
    return total


if __name__ == "__main__":
    main()
