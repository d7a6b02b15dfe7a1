"""The commands, read from commands.toml."""

from __future__ import annotations

from typing import NamedTuple

from scratchlm.core.toml_tables import package_table


class Entry(NamedTuple):
    """One command."""

    module: str  # module with `main(args, prog=...)`; imported only when the command runs
    summary: str
    group: str  # heading in `scratchlm --help`


TABLE = package_table("scratchlm.cli", "commands.toml")
_GROUPS: dict[str, dict[str, str]] = {
    "start here": {
        "run": "run a complete recipe: pre-train, fine-tune, evaluate, report",
        "doctor": "show versions, devices, caches, and what is missing",
    },
    "tokenizers": {
        "tokenizer train": "learn a vocabulary from text",
        "tokenizer encode": "text to token ids",
        "tokenizer decode": "token ids to text",
        "tokenizer compare": "split the same text with several tokenizers",
    },
    "data and weights": {
        "data list": "list known data sets, and which are on this machine",
        "data fetch": "download a known data set and check it",
        "data inspect": "audit a data set before training on it",
        "data split": "split labelled texts into training, validation and test files",
        "weights list": "list known pretrained weights, and which are on this machine",
        "weights fetch": "download pretrained weights and check them",
    },
    "training": {
        "pretrain": "train a new language model on text",
        "finetune classify": "fine-tune a model as a classifier",
        "finetune instruct": "fine-tune a model to follow instructions",
        "finetune prefer": "tune an assistant on pairs of answers (DPO)",
    },
    "using a model": {
        "generate": "continue a prompt",
        "classify": "label texts",
        "chat": "talk to an assistant in the terminal",
        "serve": "web page, and an API for clients of OpenAI and Ollama",
        "convert": "convert a model to the format of another program, or back",
        "quantize": "store a model's weights in 8 or 4 bits",
    },
    "evaluation": {
        "evaluate loss": "loss, perplexity and bits per byte of a text",
        "evaluate classify": "accuracy of a classifier on labelled texts",
        "evaluate task": "cloze, multiple-choice or exact-answer questions from a file",
        "evaluate memorization": "how much training text a model reproduces",
        "evaluate judge": "scores of answers by a judge, with controls and intervals",
        "evaluate compare": "is one model better than another on the same items?",
        "verify": "recompute the book's figures on this machine",
        "bench": "run a speed benchmark",
    },
    "runs and reports": {
        "runs list": "list the runs in the runs folder",
        "runs show": "show one run: settings, figures, checkpoints",
        "runs compare": "compare runs in the terminal",
        "runs rm": "delete runs, after confirmation",
        "report": "write an HTML page about one run, or comparing several",
    },
}
COMMANDS: dict[tuple[str, ...], Entry] = {
    tuple(name.split()): Entry(f"scratchlm.cli.{name.replace(' ', '_')}", summary, group)
    for group, commands in TABLE["groups"].items()
    for name, summary in commands.items()
}
REMOVED: dict[str, str] = TABLE["removed"]  # commands of earlier versions -> their replacements
OUT_OF_MEMORY: dict[str, str] = TABLE["out_of_memory"]  # command -> settings to lower
EVERYDAY: dict[str, dict[str, str]] = TABLE["everyday"]  # command -> heading of its short help -> flags
REMOVED: dict[tuple[str, ...], str] = {  # commands of earlier versions, and their replacements
    ("evaluate", "harness"): "lm-evaluation-harness runs on the Hugging Face export: "
    "`scratchlm convert RUN OUT --to hf`, then `lm_eval --model hf --model_args pretrained=OUT --tasks TASKS` "
    "(`pip install 'lm-eval[hf]'`)",
}

_LESS_TEXT = "give less text at once (--data), or close other programs"
_SMALLER_BATCH = "lower --batch-size, choose a smaller model, or close other programs"
_TUNING = "lower --batch-size or --max-length, choose a smaller --base, or close other programs"
OUT_OF_MEMORY: dict[str, str] = {  # settings to lower when a command runs out of memory
    "tokenizer train": _LESS_TEXT,
    "data inspect": _LESS_TEXT,
    "data split": _LESS_TEXT,
    "pretrain": "lower --batch-size or --model.context-length, give less text (--data), or close other programs",
    "finetune classify": _TUNING,
    "finetune instruct": _TUNING,
    "finetune prefer": _TUNING,
    "generate": "lower --max-new-tokens or --beams, give fewer prompts, choose a smaller model, or close other "
    "programs",
    "chat": "lower --max-new-tokens or --memory, choose a smaller model, or close other programs",
    "classify": _SMALLER_BATCH,
    "quantize": "lower --calibration-tokens or --loss-tokens, choose a smaller model, or close other programs",
    "evaluate loss": _SMALLER_BATCH,
    "evaluate task": _SMALLER_BATCH,
}
OUT_OF_MEMORY_ELSEWHERE = "use a smaller model or less data, or close other programs"


def command_name(prog: str) -> str:
    """The command's name in `scratchlm run quickstart` (`run`); "" for a program that is not in the table."""
    words = prog.split()[1:]
    return next((" ".join(words[:n]) for n in (2, 1) if tuple(words[:n]) in COMMANDS), "")
