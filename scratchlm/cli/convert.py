"""`scratchlm convert`: a model for other programs, and back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from torch import Tensor

from scratchlm.checkpoints.comparison import n_classes
from scratchlm.checkpoints.conversion import Conversion, DType, TargetName, convert
from scratchlm.checkpoints.gguf.modelfile import PromptFrame
from scratchlm.checkpoints.open_model import cropped, open_model
from scratchlm.checkpoints.outside_logits import OutsideLogits
from scratchlm.checkpoints.store import ADAPTER_CONFIG, LoadedModel
from scratchlm.cli.parsing import Common, run_command
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import read_json
from scratchlm.data.prompt_templates import answer_end_id, template
from scratchlm.finetuning.lora import merge_lora
from scratchlm.finetuning.peft import ADAPTER_FOLDER, import_peft
from scratchlm.finetuning.peft_copy import adapter_logits, copy_adapter


@dataclass(frozen=True, kw_only=True)
class Convert(Common):
    """Write a model in another format, then read it back and compare, also with transformers and peft if installed.

    native: a model folder of ours. hf: a folder for Hugging Face's transformers. gguf: a file for llama.cpp and Ollama,
    with a Modelfile beside it (Modelfile.NAME if the folder has another model's). book: the weights as a .pth that the
    book's own GPTModel loads, with config.json and tokenizer.json beside it, so that it can be opened again. onnx: a
    graph from ids to logits. peft: the LoRA corrections alone, as the folder that Hugging Face's peft reads.
    Example: scratchlm convert runs/quickstart quickstart.gguf --to gguf --dtype q8_0
    """

    source: tyro.conf.Positional[Path | None] = (
        None  # a model folder, run folder, Hugging Face folder, weights file or .gguf
    )
    target: tyro.conf.Positional[Path | None] = None  # where to write
    to: TargetName | Literal["peft"] | None = None  # the format
    dtype: DType | None = None  # how numbers are stored; default: as they are (gguf: f32); q8_0 for gguf only
    base: Path | None = None  # of an adapter of peft: the model that it corrects; default: the one it names
    context_length: int | None = None  # read at most so many tokens: learned positions beyond are left out
    no_verify: bool = False  # do not read the result back and compare its logits
    overwrite: bool = False  # replace an older target, if nothing but a model is in it

    def __post_init__(self) -> None:
        check_at_least(1, context_length=self.context_length)
        if self.dtype == "q8_0" and self.to not in (None, "gguf"):
            raise ConfigError(f"dtype q8_0 is for gguf only, got --to {self.to}; choose f32, f16 or bf16.")


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(Convert, _act, args, prog=prog)


def _act(command: Convert, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Convert and print what was compared; returns the `--json` keys."""
    if command.source is None or command.target is None or command.to is None:
        raise ConfigError(
            "convert needs a source, a target and --to, found one missing; e.g. scratchlm convert runs/quickstart "
            "quickstart.gguf --to gguf"
        )
    adapter = _adapter_folder(command.source, wanted=command.to == "peft")
    if command.base is not None and adapter is None and command.to != "peft":
        raise ConfigError(
            f"--base is of a source that is a LoRA adapter, found no {ADAPTER_CONFIG} in {command.source}; leave "
            "--base out, or name the adapter's folder."
        )
    if command.to == "peft":
        done = _to_peft(command, adapter)
    else:
        outside = None
        if adapter is None:
            loaded = open_model(command.source)
        else:
            base = _base(command, adapter)
            loaded = _with_adapter(adapter, base)
            outside = functools.partial(_peft_logits, base, adapter, n_classes=n_classes(loaded.model))
        if command.context_length is not None:
            loaded = cropped(loaded, command.context_length)
        done = convert(
            loaded,
            command.target,
            to=command.to,
            dtype=command.dtype,
            frame=_frame(loaded),
            verify=not command.no_verify,
            overwrite=command.overwrite,
            outside=outside,
        )
    if not command.json:
        print(f"wrote {', '.join(map(str, (done.out, *done.others)))}")
        told = done.max_logit_difference
        print(
            "not compared (--no-verify)"
            if told is None
            else f"largest difference between logits: {told:.3g} (compared with {done.compared_with})"
        )
    return {
        "max_logit_difference": done.max_logit_difference,
        "compared_with": done.compared_with,
        "out": str(done.out),
    }


def _peft_logits(base: Path, adapter: Path, ids: Tensor, *, n_classes: int | None) -> OutsideLogits:
    return adapter_logits(open_model(base), adapter, ids, n_classes=n_classes)


def _adapter_folder(source: Path, *, wanted: bool) -> Path | None:
    """The adapter that `source` is; with `wanted`, also the one that a run with LoRA left in it."""
    places = (source, source / ADAPTER_FOLDER) if wanted else (source,)
    return next((place for place in places if (place / ADAPTER_CONFIG).is_file()), None)


def _base(command: Convert, adapter: Path) -> Path:
    """The model that an adapter corrects: `--base`, or the one that its settings name where that is here."""
    if command.base is not None:
        return command.base
    settings = read_json(adapter / ADAPTER_CONFIG, error=CheckpointError)
    named = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if isinstance(named, str) and named and Path(named).exists():
        return Path(named)
    raise ConfigError(
        f"{adapter} is a LoRA adapter and corrects another model, found no --base (it names {named!r:.200}); "
        "name that model, e.g. --base path/to/gpt2"
    )


def _to_peft(command: Convert, adapter: Path | None) -> Conversion:
    """The corrections alone, proven by the logits of the base with the old folder and with the new one."""
    assert command.source is not None
    assert command.target is not None
    if adapter is None:
        raise ConfigError(
            f"--to peft needs a LoRA adapter, found none in {command.source}; fine-tune with --lora-rank N from a "
            "saved base, or choose another format."
        )
    without_effect = {"--dtype": command.dtype, "--context-length": command.context_length}
    given = [flag for flag, value in without_effect.items() if value is not None]
    if given:
        raise ConfigError(f"--to peft writes the corrections as they are, got {given[0]}; leave it out.")
    base = _base(command, adapter)
    difference, compared_with = copy_adapter(
        adapter,
        command.target,
        load_base=lambda: open_model(base),
        base=str(base),
        verify=not command.no_verify,
        overwrite=command.overwrite,
    )
    return Conversion(out=command.target, max_logit_difference=difference, compared_with=compared_with)


def _with_adapter(adapter: Path, base: Path) -> LoadedModel:
    """The base model with an adapter folder's corrections added to its weights."""
    loaded = open_model(base)
    import_peft(loaded.model, adapter)
    merge_lora(loaded.model)
    if n_classes(loaded.model) is None:
        return dataclasses.replace(loaded, config=loaded.model.config)
    classes = [
        f"LABEL_{i}" for i in range(loaded.model.out_head.out_features)
    ]  # an adapter does not name them
    task = {"kind": "classification", "classes": classes, "max_length": loaded.model.config.context_length}
    return dataclasses.replace(loaded, config=loaded.model.config, task=task)


def _frame(loaded: LoadedModel) -> PromptFrame:
    """The text around a question that the model was trained with; nothing for a base model."""
    if "template" not in loaded.task:
        return PromptFrame()
    chosen, system = template(str(loaded.task["template"])), str(loaded.task.get("system", ""))
    end = answer_end_id(chosen, loaded.tokenizer)
    return PromptFrame(
        before=chosen.before_system + system + chosen.after_system if system else chosen.before_instruction,
        after=chosen.before_answer,
        answer_lead=chosen.answer_lead,
        answer_end="" if end is None else loaded.tokenizer.decode([end]),
        next_before=chosen.next_instruction,
        before_system=chosen.before_system,
        after_system=chosen.after_system,
    )
