"""`scratchlm convert`: convert a model to the format of another program, or back."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from torch import Tensor

from scratchlm.checkpoints.comparison import OutsideLogits, n_classes
from scratchlm.checkpoints.conversion import Conversion, DType, ExportFormatName, convert
from scratchlm.checkpoints.gguf.modelfile import PromptFrame
from scratchlm.checkpoints.gguf.writer import QUANTIZED_TYPES
from scratchlm.checkpoints.open_model import cropped, open_model
from scratchlm.checkpoints.store import ADAPTER_CONFIG, LoadedModel
from scratchlm.cli.parsing import Common, command_line
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import read_json
from scratchlm.data.prompt_templates import answer_end_id, template
from scratchlm.finetuning.lora import merge_lora
from scratchlm.finetuning.peft import ADAPTER_FOLDER, import_peft
from scratchlm.finetuning.peft_copy import adapter_logits, copy_adapter


@dataclass(frozen=True, kw_only=True)
class Convert(Common):
    """Write a model in another format, read it back, and compare the logits (with transformers and peft if installed).

    native: our model folder. hf: a folder for Hugging Face transformers. gguf: a file for llama.cpp and Ollama, with a
    Modelfile beside it (Modelfile.NAME if another model's is there). book: a .pth file that the book's GPTModel loads,
    with config.json and tokenizer.json beside it. onnx: a graph from ids to logits. peft: the LoRA adapter alone, as a
    folder for Hugging Face peft.

    Example: scratchlm convert runs/quickstart quickstart.gguf --to gguf --dtype q8_0
    """

    source: tyro.conf.Positional[Path | None] = None  # a model, run or Hugging Face folder, or a weights file
    target: tyro.conf.Positional[Path | None] = None  # where to write
    to: ExportFormatName | Literal["peft"] | None = None  # the format
    # number format; default: that of the source (gguf: f32); q8_0, q4_0, q4_1 for gguf only
    dtype: DType | None = None
    base: Path | None = None  # the base model of a peft adapter; default: the one its settings name
    context_length: int | None = None  # shorten the context; learned positions beyond it are dropped
    no_verify: bool = False  # skip reading the result back and comparing its logits
    overwrite: bool = False  # replace an existing target that holds only a model

    def __post_init__(self) -> None:
        check_at_least(1, context_length=self.context_length)
        if self.dtype in QUANTIZED_TYPES and self.to not in (None, "gguf"):
            raise ConfigError(
                f"dtype {self.dtype} is for gguf only, got --to {self.to}; choose f32, f16 or bf16."
            )


@command_line(Convert)
def main(command: Convert, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Convert the model and print the largest difference between logits; returns the `--json` keys."""
    if command.source is None or command.target is None or command.to is None:
        raise ConfigError(
            "convert needs a source, a target and --to; e.g. `scratchlm convert runs/quickstart "
            "quickstart.gguf --to gguf`."
        )
    inside = command.source / ADAPTER_FOLDER  # of a run trained with LoRA
    places = (command.source, inside) if command.to == "peft" else (command.source,)
    adapter = next((place for place in places if (place / ADAPTER_CONFIG).is_file()), None)
    if command.base is not None and adapter is None and command.to != "peft":
        raise ConfigError(
            f"--base is for a LoRA adapter, but {command.source} has no {ADAPTER_CONFIG}; leave --base out, or name "
            "the adapter's folder."
        )
    kind = "adapter"
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
        kind = str(loaded.task.get("kind", "language model"))
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
    print(f"wrote {', '.join(map(str, (done.out, *done.others)))}")
    if done.max_logit_difference is None:
        print("not compared (--no-verify)")
    else:
        print(
            f"largest difference between logits: {done.max_logit_difference:.3g} (compared with {done.compared_with})"
        )
    return {
        "kind": kind,
        "max_logit_difference": done.max_logit_difference,
        "compared_with": done.compared_with,
        "out": str(done.out),
    }


def _peft_logits(base: Path, adapter: Path, ids: Tensor, *, n_classes: int | None) -> OutsideLogits:
    return adapter_logits(open_model(base), adapter, ids, n_classes=n_classes)


def _base(command: Convert, adapter: Path) -> Path:
    """The base model of an adapter: `--base`, or the one that its settings name if it is on this machine."""
    if command.base is not None:
        return command.base
    settings = read_json(adapter / ADAPTER_CONFIG, error=CheckpointError)
    named = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if isinstance(named, str) and named and Path(named).exists():
        return Path(named)
    raise ConfigError(
        f"{adapter} is a LoRA adapter and needs its base model (its settings name {named!r:.200}, which is not here); "
        "name the base, e.g. --base path/to/gpt2."
    )


def _to_peft(command: Convert, adapter: Path | None) -> Conversion:
    """Copy the adapter alone, and compare the logits of the base with the old and with the new folder."""
    assert command.source is not None
    assert command.target is not None
    if adapter is None:
        raise ConfigError(
            f"{command.source} has no LoRA adapter for --to peft; fine-tune with --lora-rank N from a saved base, or "
            "choose another format."
        )
    without_effect = {"--dtype": command.dtype, "--context-length": command.context_length}
    given = [flag for flag, value in without_effect.items() if value is not None]
    if given:
        raise ConfigError(f"--to peft copies the adapter unchanged, got {given[0]}; leave it out.")
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
    loaded = open_model(base)
    import_peft(loaded.model, adapter)
    merge_lora(loaded.model)
    if n_classes(loaded.model) is None:
        return loaded
    # an adapter does not name them
    classes = [f"LABEL_{i}" for i in range(loaded.model.out_head.out_features)]
    task = {"kind": "classification", "classes": classes, "max_length": loaded.model.config.context_length}
    return dataclasses.replace(loaded, task=task)


def _frame(loaded: LoadedModel) -> PromptFrame:
    """The prompt format of the model's training; empty for a base model."""
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
