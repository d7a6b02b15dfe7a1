"""Time one epoch of instruction tuning: the book's loop and ours, on the same entries and from the same weights.

    python -m benchmarks.instruction_epoch --data FOLDER --json out.json
    python -m benchmarks.instruction_epoch --data FOLDER --size gpt2-small

FOLDER has the layout of SCRATCHLM_ASSETS (gpt2_bpe/, instruction/). The entries are the book's 1,100 with its split;
935 train in batches of 8.

The book's side: its data set and collate function (batches in random order, padded to their longest row), logits
at every position, attention, LayerNorm and GELU without fused kernels, AdamW with the book's settings. Ours: batches
of similar length (with --packing: packed rows), logits only where there is a target, torch's fused kernels. Both train
on the answers only (the book's exercise 7.2), so that the objective is the same; with --book-prompts the book's side
trains on the prompts too, as in its main text. Tokenizing is not timed, building batches is.

The two take turns, a few batches each, in one process, so that other load on the machine affects both equally. Padding
does not count as tokens. The validation loss is over the answers of the 55 entries for both.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from scratchlm.book.ch07 import InstructionDataset, custom_collate_fn
from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.files import write_json
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction, read_instructions
from scratchlm.data.instruction_split import split_in_order
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.prompt_templates import template
from scratchlm.finetuning.instruction import InstructionTask
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers import load_gpt2_tokenizer
from scratchlm.training.config import TrainingConfig
from scratchlm.training.optim import Optimizers

BATCH_SIZE = 8  # the book's
SIZES = {
    "tiny": GPTConfig(emb_dim=16, n_heads=2, n_layers=1, drop_rate=0.0, qkv_bias=True),
    "4x256": GPTConfig(emb_dim=256, n_heads=4, n_layers=4, drop_rate=0.0, qkv_bias=True),
    "gpt2-small": GPTConfig(drop_rate=0.0, qkv_bias=True),
}


@dataclass
class Side:
    """One of the two programs: its model, its training steps as a generator, and the time they took so far."""

    name: str
    model: GPTModel
    steps: Iterator[tuple[int, int]]  # of each step: real tokens, positions computed
    seconds: float = 0.0
    tokens: int = 0
    positions: int = 0
    is_done: bool = field(default=False)

    def take(self, n_steps: int) -> None:
        """Run some steps and time them."""
        for _ in range(n_steps):
            started_at_s = time.perf_counter()
            step = next(self.steps, None)
            if step is None:
                self.is_done = True
                return
            self.seconds += time.perf_counter() - started_at_s
            self.tokens += step[0]
            self.positions += step[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="An epoch of instruction tuning beside the book's loop.")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("SCRATCHLM_ASSETS"),
        help="folder with gpt2_bpe, instruction",
    )
    parser.add_argument("--size", choices=SIZES, default="4x256", help="of the model")
    parser.add_argument("--entries", type=int, help="use so many entries only")
    parser.add_argument(
        "--packing", action="store_true", help="our side packs rows instead of sorting by length"
    )
    parser.add_argument("--book-prompts", action="store_true", help="the book's side learns the prompts too")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="of both sides, constant")
    parser.add_argument("--turn", type=int, default=10, help="batches before the other side has its turn")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("name the folder of data with --data, or set SCRATCHLM_ASSETS")
    if options.threads:
        torch.set_num_threads(options.threads)
    figures = measure(options)
    for name in ("book", "ours"):
        row = figures[name]
        print(
            f"{name}: {row['tokens']:,} tokens in {row['seconds']:.1f} s, {row['tokens_per_s']:,.0f} tokens/s, "
            f"{row['padding_share']:.1%} padding, validation loss {row['val_loss']:.4f}"
        )
    print(f"ours / book: {figures['ratio']:.2f} times the tokens per second ({figures['machine']})")
    if options.json:
        write_json(options.json, figures)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run both epochs in turns."""
    bpe = options.data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(bpe / "encoder.json", bpe / "vocab.bpe")
    entries = read_instructions(options.data / "instruction" / "instruction-data.json")[: options.entries]
    split = split_in_order(entries)
    config = SIZES[options.size]
    torch.manual_seed(123)
    book_model = GPTModel(replace(config, attention="manual", kernels="manual"))
    our_model = GPTModel(config)
    our_model.load_state_dict(book_model.state_dict())
    sides = [
        Side("book", book_model, book_steps(book_model, split.train, tokenizer, options)),
        Side("ours", our_model, our_steps(our_model, split.train, tokenizer, options)),
    ]
    while not all(side.is_done for side in sides):
        for side in sides:
            side.take(options.turn)
    val = InstructionExamples(split.val, tokenizer, template=template("alpaca"))
    val_loader = BatchLoader(val, batch_size=BATCH_SIZE, shuffle=False, bucket_by_length=True)
    rows = {
        side.name: {
            "tokens": side.tokens,
            "seconds": side.seconds,
            "tokens_per_s": side.tokens / side.seconds,
            "padding_share": 1 - side.tokens / side.positions,
            "val_loss": InstructionTask().metrics(side.model, val_loader)["loss"],
        }
        for side in sides
    }
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    machine = f"{platform.machine()}, {threads} threads, torch {torch.__version__}, load {load:.1f}"
    return {
        **rows,
        "ratio": rows["ours"]["tokens_per_s"] / rows["book"]["tokens_per_s"],
        "size": options.size,
        "parameters": our_model.n_parameters(),
        "entries": len(split.train),
        "machine": machine,
    }


def book_steps(
    model: GPTModel, entries: list[Instruction], tokenizer: Tokenizer, options: argparse.Namespace
) -> Iterator[tuple[int, int]]:
    """The book's train_model_simple over one epoch of chapter 7's loader."""
    masks = not options.book_prompts
    rows = [{"instruction": e.instruction, "input": e.input, "output": e.output} for e in entries]
    torch.manual_seed(123)
    loader = DataLoader(
        InstructionDataset(rows, tokenizer, mask_instruction=masks),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        collate_fn=lambda batch: (
            sum(len(row[1] if masks else row) for row in batch),
            custom_collate_fn(batch, allowed_max_length=1024, mask_instruction=masks),
        ),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.1)
    model.train()
    for n_tokens, (inputs, targets) in loader:
        optimizer.zero_grad()
        logits = model(inputs)  # (B, T, V)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX).backward()
        optimizer.step()
        yield n_tokens, inputs.numel()


def our_steps(
    model: GPTModel, entries: list[Instruction], tokenizer: Tokenizer, options: argparse.Namespace
) -> Iterator[tuple[int, int]]:
    """The steps of the Trainer, without its clock, log and checkpoints."""
    config = TrainingConfig(epochs=1, learning_rate=options.learning_rate, beta2=0.999)
    examples = InstructionExamples(
        entries,
        tokenizer,
        template=template("alpaca"),
        max_length=model.config.context_length,
        packing=options.packing,
    )
    loader = BatchLoader(
        examples, batch_size=BATCH_SIZE, seed=123, drop_last=True, bucket_by_length=not options.packing
    )
    optimizers = Optimizers(model, config)
    task = InstructionTask()
    model.train()
    for batch in loader:
        (task.loss_sum(model, batch) / batch.n_targets).backward()
        optimizers.clip_gradients(0.0)
        optimizers.step()
        yield batch.n_tokens, batch.inputs.numel()


if __name__ == "__main__":
    main(sys.argv[1:])
