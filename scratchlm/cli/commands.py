"""The table of commands: where each lives and what it does, in the order of a model's life."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command."""

    module: str  # its `main(args, prog=...)` is called; imported only then
    summary: str


COMMANDS: dict[tuple[str, ...], Entry] = {
    ("run",): Entry("scratchlm.cli.run", "one complete named run, from text to report"),
    ("tokenizer", "train"): Entry("scratchlm.cli.tokenizer_train", "learn a vocabulary from text"),
    ("tokenizer", "encode"): Entry("scratchlm.cli.tokenizer_encode", "text to token ids"),
    ("tokenizer", "decode"): Entry("scratchlm.cli.tokenizer_decode", "token ids to text"),
    ("tokenizer", "compare"): Entry(
        "scratchlm.cli.tokenizer_compare", "the same text through several tokenizers"
    ),
    ("data", "list"): Entry("scratchlm.cli.data_list", "known data sets, and which are here"),
    ("data", "fetch"): Entry("scratchlm.cli.data_fetch", "download a known data set, with checks"),
    ("data", "inspect"): Entry("scratchlm.cli.data_inspect", "an audit of a data set before training on it"),
    ("data", "split"): Entry(
        "scratchlm.cli.data_split", "labelled texts to train, validate and test on, as files"
    ),
    ("weights", "list"): Entry("scratchlm.cli.weights_list", "known pretrained weights, and which are here"),
    ("weights", "fetch"): Entry("scratchlm.cli.weights_fetch", "download pretrained weights, with checks"),
    ("pretrain",): Entry("scratchlm.cli.pretrain", "teach a new model to write"),
    ("finetune", "classify"): Entry("scratchlm.cli.finetune_classify", "make a classifier out of a model"),
    ("finetune", "instruct"): Entry("scratchlm.cli.finetune_instruct", "make an assistant out of a model"),
    ("finetune", "prefer"): Entry("scratchlm.cli.finetune_prefer", "tune an assistant on pairs of answers"),
    ("generate",): Entry("scratchlm.cli.generate", "continue a prompt"),
    ("classify",): Entry("scratchlm.cli.classify", "label texts"),
    ("chat",): Entry("scratchlm.cli.chat", "ask an assistant, line by line"),
    ("evaluate", "loss"): Entry(
        "scratchlm.cli.evaluate_loss", "loss, perplexity and bits per byte of a text"
    ),
    ("evaluate", "classify"): Entry(
        "scratchlm.cli.evaluate_classify", "accuracy of a classifier on labelled texts"
    ),
    ("evaluate", "task"): Entry(
        "scratchlm.cli.evaluate_task", "cloze, multiple choice or exact answers of a file"
    ),
    ("evaluate", "memorization"): Entry(
        "scratchlm.cli.evaluate_memorization", "how much of its writing a model recites from training"
    ),
    ("evaluate", "judge"): Entry(
        "scratchlm.cli.evaluate_judge", "scores of answers by a judge, with controls and intervals"
    ),
    ("evaluate", "compare"): Entry(
        "scratchlm.cli.evaluate_compare", "is one model better than another on the same items?"
    ),
    ("report",): Entry("scratchlm.cli.report", "a page of one run, or of several beside each other"),
    ("runs", "list"): Entry("scratchlm.cli.runs_list", "what is in the runs folder"),
    ("runs", "show"): Entry("scratchlm.cli.runs_show", "one run: settings, figures, checkpoints"),
    ("runs", "compare"): Entry("scratchlm.cli.runs_compare", "runs beside each other, in the terminal"),
    ("runs", "rm"): Entry("scratchlm.cli.runs_rm", "delete runs, after asking"),
    ("convert",): Entry("scratchlm.cli.convert", "a model for other programs, and back"),
    ("verify",): Entry("scratchlm.cli.verify", "the book's figures, recomputed here"),
    ("bench",): Entry("scratchlm.cli.bench", "measure speed beside a peer"),
    ("doctor",): Entry("scratchlm.cli.doctor", "versions, devices, caches, and what is missing"),
}

_LESS_TEXT = "give less text at once (--data), or close other programs"
_SMALLER_BATCH = "lower --batch-size, choose a smaller model, or close other programs"
_TUNING = "lower --batch-size or --max-length, choose a smaller --base, or close other programs"
OUT_OF_MEMORY: dict[tuple[str, ...], str] = {  # what to lower when memory runs out in a command
    ("tokenizer", "train"): _LESS_TEXT,
    ("data", "inspect"): _LESS_TEXT,
    ("data", "split"): _LESS_TEXT,
    (
        "pretrain",
    ): "lower --batch-size or --model.context-length, give less text (--data), or close other programs",
    ("finetune", "classify"): _TUNING,
    ("finetune", "instruct"): _TUNING,
    ("finetune", "prefer"): _TUNING,
    (
        "generate",
    ): "lower --max-new-tokens or --beams, give fewer prompts, choose a smaller model, or close other "
    "programs",
    ("chat",): "lower --max-new-tokens or --memory, choose a smaller model, or close other programs",
    ("classify",): _SMALLER_BATCH,
    ("evaluate", "loss"): _SMALLER_BATCH,
    ("evaluate", "task"): _SMALLER_BATCH,
}
OUT_OF_MEMORY_ELSEWHERE = "use a smaller model or less data, or close other programs"

REMOVED: dict[tuple[str, ...], str] = {  # commands of earlier versions, and what to use instead
    ("evaluate", "harness"): "lm-evaluation-harness runs on the Hugging Face export: "
    "`scratchlm convert RUN OUT --to hf`, then `lm_eval --model hf --model_args pretrained=OUT --tasks TASKS` "
    "(`pip install 'lm-eval[hf]'`)",
}
