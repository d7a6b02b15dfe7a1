"""Suggest the usual next command after a command that produced a result."""

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

Values = Mapping[str, Any]


def suggested_command(command: str, flags: Values, result: Values) -> str | None:
    """Suggest the command to run after `command`, given its flags and `--json` object; None without one."""
    suggest = _SUGGESTIONS.get(command)
    return None if suggest is None else suggest(flags, result)


def _use(stage: str, folder: str) -> str:
    """The command that uses the model of a finished stage."""
    if stage == "classify":
        return f'scratchlm classify --model {quote(folder)} "You won a prize, reply now"'
    if stage == "pretrain":
        return f'scratchlm generate --model {quote(folder)} --prompt "Once upon a time"'
    return f"scratchlm chat --model {quote(folder)}"


def _after_run(flags: Values, result: Values) -> str:
    stage = flags["settings"].stages[-1]
    return f"open {result['report']} in a browser, or {_use(stage, result[stage]['out'])}"


def _after_convert(flags: Values, result: Values) -> str | None:
    out = Path(result["out"])
    if flags["to"] == "gguf":
        own = out.with_name(f"Modelfile.{out.stem}")
        modelfile = own if own.exists() else out.with_name("Modelfile")
        return f"ollama create {quote(out.stem)} -f {quote(str(modelfile))}"
    if flags["to"] not in ("native", "hf", "book"):
        return None
    return _use(
        {"classification": "classify", "instruction": "chat"}.get(result["kind"], "pretrain"), str(out)
    )


def _after_tokenizer(flags: Values, result: Values) -> str:
    data = " ".join(map(quote, flags["data"]))
    return f"scratchlm pretrain --data {data} --tokenizer.path {quote(result['out'])} --out runs/mine"


def _after_data_fetch(flags: Values, result: Values) -> str | None:  # noqa: ARG001
    paths = [row["path"] for row in result["fetched"] if "gpt2_bpe" not in row["id"]]
    return f"scratchlm data inspect {quote(paths[0])}" if len(paths) == 1 else None


def _after_weights_fetch(flags: Values, result: Values) -> str:
    if not result["tokenizer_here"]:
        return "scratchlm data fetch gpt2_bpe  (GPT-2's tokenizer is not on this machine yet)"
    model = flags["names"][0] if flags["dir"] is None else str(Path(result["fetched"][0]["path"]).parent)
    return f'scratchlm generate --model {quote(model)} --prompt "Hello, I am"'


def _after_judge(flags: Values, result: Values) -> str | None:  # noqa: ARG001
    out = result.get("out")
    return None if out is None else f"scratchlm evaluate compare {quote(out)} OTHER_RESULTS.jsonl"


_SUGGESTIONS: dict[str, Callable[[Values, Values], str | None]] = {
    "run": _after_run,
    "pretrain": lambda flags, result: _use("pretrain", result["out"]) if "out" in result else None,
    "finetune classify": lambda flags, result: _use("classify", result["out"]),
    "finetune instruct": lambda flags, result: _use("instruct", result["out"]),
    "finetune prefer": lambda flags, result: _use("prefer", result["out"]),
    "convert": _after_convert,
    "tokenizer train": _after_tokenizer,
    "data fetch": _after_data_fetch,
    "data split": lambda flags, result: (
        f"scratchlm data inspect {quote(result['out'] + '/train.jsonl')} {quote(result['out'] + '/test.jsonl')}"
    ),
    "weights fetch": _after_weights_fetch,
    "evaluate judge": _after_judge,
}
