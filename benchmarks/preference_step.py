"""Time an epoch of DPO with the reference model run once, and the book's loop, which runs it in every step.

    python -m benchmarks.preference_step --data FOLDER --pairs 96 --json out.json

Pairs are built from the book's instruction data: the chosen answer begins with "Certainly!", the rejected one is the
unchanged reference answer. Both programs train the same random model (GPT-2's vocabulary) on the same pairs with the
same batch size and AdamW; the book's is `scratchlm.book.dpo`, which pads and computes as its notebook does. Before
that, one batch is computed both ways with our template and masks, and the two losses must agree.
"""

from __future__ import annotations

import argparse
import copy
import functools
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from scratchlm import gpt2_tokenizer
from scratchlm.book import dpo
from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.files import write_json
from scratchlm.data.instruction_rows import read_instructions
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.preference_batches import PreferenceBatch, PreferenceExamples
from scratchlm.data.preference_rows import Preference
from scratchlm.data.prompt_templates import template
from scratchlm.finetuning.preference_losses import dpo_losses
from scratchlm.finetuning.preference_task import PreferenceTask, add_reference_log_probs
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel

CONTEXT = 256
SIZE = {"emb_dim": 256, "n_heads": 4, "n_layers": 4, "context_length": CONTEXT, "drop_rate": 0.0}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="An epoch of DPO beside the book's loop.")
    parser.add_argument("--data", type=Path, required=True, help="a folder laid out as SCRATCHLM_ASSETS")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    tokenizer = gpt2_tokenizer(options.data / "gpt2_bpe")
    entries = read_instructions(options.data / "instruction" / "instruction-data.json")
    pairs = [
        Preference(
            instruction=e.instruction, input=e.input, chosen=f"Certainly! {e.output}", rejected=e.output
        )
        for e in entries
        if e.output
    ][: options.pairs]
    torch.manual_seed(0)
    base = GPTModel(GPTConfig(**SIZE, qkv_bias=True)).eval()
    examples = PreferenceExamples(pairs, tokenizer, template=template("alpaca"), max_length=CONTEXT)
    started_at_s = time.perf_counter()
    add_reference_log_probs(examples, base, batch_size=options.batch_size)
    asking_s = time.perf_counter() - started_at_s
    difference = loss_difference(base, examples.batch(range(4)))
    loader = BatchLoader(examples, batch_size=options.batch_size, bucket_by_length=True)
    ours_s = our_epoch(copy.deepcopy(base).train(), loader)
    book_s = book_epoch(copy.deepcopy(base).train(), base, pairs, tokenizer, batch_size=options.batch_size)
    figures = {
        "asking_s": asking_s,
        "epoch_s": ours_s,
        "book_epoch_s": book_s,
        "ratio_first_epoch": book_s / (asking_s + ours_s),
        "ratio_later_epochs": book_s / ours_s,
        "loss_difference": difference,
        "threads": torch.get_num_threads(),
    }
    print(
        f"{len(pairs)} pairs: the book's epoch {book_s:.1f} s; ours {ours_s:.1f} s, "
        f"the reference before it {asking_s:.1f} s"
    )
    print(
        f"{figures['ratio_first_epoch']:.2f} times as fast in the first epoch, "
        f"{figures['ratio_later_epochs']:.2f} in later ones"
    )
    print(f"loss of one batch, both ways: {difference:.1e} apart")
    if options.json:
        write_json(options.json, figures)


def our_epoch(model: GPTModel, loader: BatchLoader) -> float:
    """Seconds for one epoch through the task."""
    task = PreferenceTask("dpo")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    started_at_s = time.perf_counter()
    for batch in loader:
        optimizer.zero_grad()
        (task.loss_sum(model, batch) / batch.n_targets).backward()
        optimizer.step()
    return time.perf_counter() - started_at_s


def book_epoch(model: GPTModel, reference: GPTModel, pairs, tokenizer, *, batch_size: int) -> float:
    """Seconds for one epoch of the book's loop."""
    entries = [
        {"instruction": p.instruction, "input": p.input, "chosen": p.chosen, "rejected": p.rejected}
        for p in pairs
    ]
    collate = functools.partial(dpo.custom_collate_fn, allowed_max_length=CONTEXT)
    dataset = dpo.PreferenceDataset(entries, tokenizer)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    started_at_s = time.perf_counter()
    for batch in loader:
        optimizer.zero_grad()
        loss, _, _ = dpo.compute_dpo_loss_batch(batch, model, reference, 0.1)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started_at_s


@torch.no_grad()
def loss_difference(base: GPTModel, batch: PreferenceBatch) -> float:
    """The difference between our loss and one from all logits of both models; the policy is a perturbed base."""
    policy = copy.deepcopy(base)
    for parameter in policy.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.01)
    is_target = batch.targets != IGNORE_INDEX
    sums = []
    for model in (policy, base):
        log_probs = model(batch.inputs, attention_mask=batch.attention_mask).log_softmax(-1)
        taken = log_probs.gather(-1, batch.targets.clamp(min=0)[..., None]).squeeze(-1)
        sums += (taken * is_target).sum(1).chunk(2)
    plain = dpo_losses(*sums, beta=0.1).losses.mean()
    ours = PreferenceTask("dpo").loss_sum(policy, batch) / batch.n_targets
    return abs(float(plain - ours))


if __name__ == "__main__":
    main()
