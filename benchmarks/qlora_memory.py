"""Peak memory of LoRA on a base in floating point, and on one in 8 and 4 bits (QLoRA).

    python -m benchmarks.qlora_memory --data FOLDER                      # the shape of GPT-2 124M, random weights
    python -m benchmarks.qlora_memory --data FOLDER --base MODEL         # any base

Each case is a process of its own that opens the base and trains rank-8 adapters on the book's instruction data for
three steps. The peak of opening, which rounds the weights where --base-bits does, and that of training count apart,
both without what Python and the packages take. `FOLDER` has the layout of SCRATCHLM_ASSETS. Linux only: it resets the
high-water mark in /proc.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

import scratchlm
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import save_model
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.quantization.apply import dequantize_model, quantize_model
from scratchlm.quantization.config import QuantizationConfig

TRAIN = """
import json, sys
import torch
from scratchlm.core.device import pick_device
from scratchlm.core.seed import seed_everything
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import read_instructions
from scratchlm.data.prompt_templates import template
from scratchlm.finetuning.base import load_base
from scratchlm.finetuning.fine_tune import make_loader
from scratchlm.finetuning.instruction import InstructionTask, InstructSettings
from scratchlm.training.trainer import Trainer

base, data, bits, batch_size, max_length = json.loads(sys.argv[1])
seed_everything(0)
def peak_mb():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
before = peak_mb()
opened = load_base(base, training_texts=[], device=torch.device("cpu"), base_bits=bits)
peaks = [peak_mb() - before]
open("/proc/self/clear_refs", "w").write("5")
settings = InstructSettings(lora_rank=8, max_steps=3, batch_size=batch_size, max_length=max_length)
settings.add_lora(opened.model)
examples = InstructionExamples(read_instructions(data)[:64], opened.tokenizer, template=template("alpaca"),
                               max_length=max_length)
loader = make_loader(examples, settings, shuffle=True, bucket_by_length=False)
Trainer(opened.model, InstructionTask(), settings).fit(loader)
print(json.dumps([*peaks, peak_mb() - before]))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with gpt2_bpe/ and instruction/")
    parser.add_argument("--base", help="a model; default: the shape of GPT-2 124M with random weights")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        if options.base is None:
            torch.manual_seed(0)
            model = GPTModel(GPTConfig(drop_rate=0.0, qkv_bias=True, tie_embeddings=True, init="gpt2"))
            tokenizer = scratchlm.gpt2_tokenizer(options.data / "gpt2_bpe")
        else:
            opened = open_model(options.base)
            model, tokenizer = dequantize_model(opened.model), opened.tokenizer
        base = str(save_model(Path(work) / "base", model, tokenizer))
        quantize_model(model, QuantizationConfig(bits=4, kind="nf4"))
        quantized = str(save_model(Path(work) / "quantized", model, tokenizer))
        del model
        cases: list[tuple[str, str, int | None]] = [
            ("LoRA", base, None),
            ("--base-bits 8", base, 8),
            ("--base-bits 4", base, 4),
            ("a folder of 4 bits", quantized, None),
        ]
        first_mb = 0.0
        for name, folder, bits in cases:
            data = str(options.data / "instruction" / "instruction-data.json")
            job = json.dumps([folder, data, bits, options.batch_size, options.max_length])
            found = subprocess.run(
                [sys.executable, "-c", TRAIN, job], capture_output=True, text=True, check=True
            )
            opening_mb, training_mb = json.loads(found.stdout.splitlines()[-1])
            first_mb = first_mb or training_mb
            print(
                f"{name:20s} opening {opening_mb:6,.0f} MB, training {training_mb:6,.0f} MB, "
                f"{training_mb / first_mb:.2f} of LoRA's",
                flush=True,
            )


if __name__ == "__main__":
    main()
