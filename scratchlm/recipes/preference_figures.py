"""The stage of preference tuning: its pairs from files, and its result as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scratchlm.data.preference_rows import PreferenceSplit, read_preferences, split_preferences
from scratchlm.data.row_fields import RowNotes
from scratchlm.data.row_files import ANSWERED, RowSettings
from scratchlm.evaluation.intervals import wilson_interval
from scratchlm.finetuning.preference import PreferResult, PreferSettings
from scratchlm.training.settings import resolve_texts


def read_pairs(
    names: Sequence[str], rows: RowSettings | None = None
) -> tuple[PreferenceSplit, int, list[str]]:
    """Pairs from files, cut in the book's way; how many rows were left out for equal answers; and what of the rows was
    not taken as it stands, in sentences.
    """
    rows = (rows or RowSettings()).only(*ANSWERED)
    notes = RowNotes()
    found = [read_preferences(path, rows, notes=notes) for path in resolve_texts(names, kind="preference")]
    pairs = [pair for entries in found for pair in entries.pairs]
    return split_preferences(pairs), sum(entries.n_equal for entries in found), notes.sentences()


def prefer_figures(
    split: PreferenceSplit, n_equal: int, settings: PreferSettings, result: PreferResult
) -> dict[str, Any]:
    """What preference tuning changed, measured on the test pairs; `kl` is None for a loss without a reference."""
    before, after = result.before, result.after
    n_pairs = len(split.train) + len(split.val) + len(split.test)
    test_n = result.test_n
    low, high = wilson_interval(round(after["accuracy"] * test_n), test_n)
    return {
        "rows": n_pairs + n_equal,
        "equal": n_equal,
        "train_n": len(split.train),
        "test_n": test_n,
        "loss": settings.loss,
        "beta": result.beta,
        "template": result.template,
        "val_loss": result.val_loss,
        "test_loss": after["loss"],
        "test_accuracy": after["accuracy"],
        "low": low,
        "high": high,
        "likelier": after["likelier"],
        "base_likelier": before["likelier"],
        "chosen_reward": after["chosen_reward"],
        "rejected_reward": after["rejected_reward"],
        "reward_margin": after["reward_margin"],
        "base_reward_margin": before["reward_margin"],
        "kl": after.get("kl"),
        "answers": [
            {
                "instruction": pair.instruction,
                "input": pair.input,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "answer": answer.text,
            }
            for pair, answer in zip(split.test, result.answers, strict=True)
        ],
        "step": result.progress.step,
        "used_step": result.used_step,
        "seconds": result.progress.elapsed_s,
        "resumed_from": result.resumed_from,
        "earlier_seconds": result.earlier_s,
        "trained_parameters": result.n_trained,
        "adapter": None if result.adapter is None else str(result.adapter),
        "truncated": result.n_truncated,
        "left_out": result.n_left_out,
    }
