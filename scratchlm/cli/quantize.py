"""`scratchlm quantize`: store a model's weights in 8 or 4 bits, and measure what it costs."""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

from scratchlm.checkpoints.comparison import HUGGING_FACE
from scratchlm.checkpoints.conversion import check_target, convert
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import LoadedModel, own_weights
from scratchlm.cli.evaluate_loss import tokens_of
from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.cli.progress import work_progress
from scratchlm.core.atomic_replace import standing
from scratchlm.core.config import check_at_least
from scratchlm.core.device import pick_device
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import ShowsProgress
from scratchlm.data.samples.stories import sample_stories
from scratchlm.evaluation.loss import text_loss
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import check_dense, dequantize_model, quantize_model, quantized_layers
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.reports.formats import file_size
from scratchlm.training.settings import resolve_data

N_STORIES = 30  # of the built-in validation stories, about 5,000 words
PROMPT_TOKENS, NEW_TOKENS = 16, 32  # of the speed measurement
CALIBRATION_WINDOW = 512  # tokens that are read together


@dataclass(frozen=True, kw_only=True)
class Quantize(Common):
    """Store the weights of a model in 8 or 4 bits each, and show loss, size and speed before and after.

    All matrices get --bits, but the output head, which is the most sensitive, gets 8 bits by default. Every command
    that uses a model uses the result in the same way. Its weights cannot be trained further, but LoRA adapters beside
    them can.

    Example: scratchlm quantize --model runs/quickstart --out small --bits 4 --kind gptq --calibrate chapter.txt
    """

    model: Path | None = None  # a model folder, run folder, Hugging Face folder or weights file
    out: Path | None = None  # the model folder to write
    settings: Annotated[QuantizationConfig, tyro.conf.arg(name="")] = field(
        default_factory=QuantizationConfig
    )
    calibrate: str | None = None  # gptq: text similar to what the model will read
    calibration_tokens: int = 16_384  # gptq: maximum tokens of that text, spread over it
    text: str | None = None  # text on which the loss is computed; default: the built-in validation stories
    loss_tokens: int = 8192  # maximum tokens of that text, from its beginning
    overwrite: bool = False  # replace an existing target that holds only a model

    def __post_init__(self) -> None:
        check_at_least(2, calibration_tokens=self.calibration_tokens, loss_tokens=self.loss_tokens)
        if (self.settings.kind == "gptq") != (self.calibrate is not None):
            raise ConfigError(
                f"--calibrate names the text for --kind gptq, got --kind {self.settings.kind} and --calibrate "
                f"{self.calibrate}; give both or neither."
            )


class _Measured(NamedTuple):
    n_bytes: int  # of its weights
    loss: float | None  # nats per token; None for a classifier
    tokens_per_s: float | None


@command_line(Quantize)
def main(command: Quantize, console: Console) -> dict[str, Any]:
    """Quantize the model, save it and print the figures; returns the `--json` keys."""
    source, out = required(command, "quantize needs a model and a folder for the result", "model", "out")
    loaded, show = open_model(source), work_progress(console)
    check_target(loaded, standing(out), is_folder=True, overwrite=command.overwrite)  # before the long work
    if "files" not in loaded.manifest:
        dequantize_model(loaded.model)  # another program's file is the original
    check_dense(loaded.model)
    is_classifier = loaded.task.get("kind") == "classification"
    if is_classifier and command.text is not None:
        raise ConfigError(f"{source} is a classifier, which has no loss on --text; leave it out.")
    model = loaded.model.to(pick_device(command.device))
    ids = [] if is_classifier else _loss_ids(command, loaded, show)
    calibration = _calibration(command, loaded, show)
    before = _measure(model, loaded, ids, show, "loss before")
    with show("quantizing") as report:
        left = quantize_model(model, command.settings, calibration=calibration, progress=report)
    after = _measure(model, loaded, ids, show, "loss after")
    layers = quantized_layers(model.cpu())
    # A folder of transformers would be compared with transformers' logits, which are not those of quantized weights.
    manifest = {} if loaded.manifest.get("format") == HUGGING_FACE else loaded.manifest
    result = dataclasses.replace(loaded, model=model, manifest=manifest)
    convert(result, out, to="native", overwrite=command.overwrite)
    kinds = sorted({f"{layer.kind} in groups of {layer.group_size}" for layer in layers.values()})
    print(f"wrote {out}: {len(layers)} matrices as {', '.join(kinds)}")
    if left:
        print(
            f"in floating point: {', '.join(left[:5])}{f' and {len(left) - 5} more' if len(left) > 5 else ''}"
        )
    size_bytes = (out / "model.safetensors").stat().st_size
    print(
        f"size: {file_size(before.n_bytes)} -> {file_size(size_bytes)} ({size_bytes / before.n_bytes:.3f}x)"
    )
    print(f"memory of the weights: {file_size(before.n_bytes)} -> {file_size(after.n_bytes)}")
    if before.loss is not None and after.loss is not None:
        rise = 100 * (after.loss / before.loss - 1)
        print(
            f"loss: {before.loss:.4f} -> {after.loss:.4f} nats per token ({rise:+.2f} %) over {len(ids):,} tokens of "
            f"{command.text or 'built-in stories'}"
        )
        print(f"speed: {before.tokens_per_s:,.0f} -> {after.tokens_per_s:,.0f} tokens/s, one text at a time")
    return {
        "out": str(out),
        "bits": command.settings.bits,
        "size_bytes": size_bytes,
        "size_before_bytes": before.n_bytes,
        "memory_bytes": after.n_bytes,
        "loss": after.loss,
        "loss_before": before.loss,
        "loss_tokens": len(ids),
        "tokens_per_s": after.tokens_per_s,
        "tokens_per_s_before": before.tokens_per_s,
        "floating_point": left,
    }


def _loss_ids(command: Quantize, loaded: LoadedModel, show: ShowsProgress) -> list[int]:
    if command.text is not None:
        found = _ids_of(command.text, loaded, show)
    else:
        found = np.array(loaded.tokenizer.encode("\n\n".join(sample_stories(n=N_STORIES, split="val"))))
    if len(found) < 2:
        raise DataError(f"{command.text} has {len(found)} tokens, too few for a loss; name a longer text.")
    ids: list[int] = found[: command.loss_tokens].tolist()
    return ids


def _calibration(command: Quantize, loaded: LoadedModel, show: ShowsProgress) -> Tensor | None:
    """Windows of the calibration text, spread over it: (N, T)."""
    if command.calibrate is None:
        return None
    ids = _ids_of(command.calibrate, loaded, show)
    length = min(CALIBRATION_WINDOW, loaded.config.context_length, command.calibration_tokens, len(ids))
    if length < 2:
        raise DataError(
            f"{command.calibrate} has {len(ids)} tokens, too few to calibrate with; name a longer text."
        )
    n_windows = min(command.calibration_tokens // length, len(ids) // length)
    starts = np.linspace(0, len(ids) - length, n_windows).astype(int)
    windows = torch.from_numpy(np.stack([ids[start : start + length] for start in starts]).astype(np.int64))
    return windows.to(next(loaded.model.parameters()).device)


def _ids_of(name: str, loaded: LoadedModel, show: ShowsProgress) -> Any:
    return tokens_of(resolve_data([name])[0], loaded.tokenizer, show).train


def _measure(
    model: GPTModel, loaded: LoadedModel, ids: list[int], show: ShowsProgress, what: str
) -> _Measured:
    n_bytes = sum(tensor.nbytes for tensor in own_weights(model).values())
    if not ids:
        return _Measured(n_bytes, None, None)
    with show(what) as report:
        start = loaded.tokenizer.end_of_text_id
        loss = text_loss(model, ids, n_bytes=len(ids), start_id=start, batch_size=4, progress=report).loss
    return _Measured(n_bytes, loss, _tokens_per_s(model, ids))


def _tokens_per_s(model: GPTModel, ids: list[int]) -> float:
    """Speed of greedy generation, without the time of the first call, which may compile the kernel."""
    n_new = min(NEW_TOKENS, max(1, model.config.context_length - PROMPT_TOKENS))
    prompt = ids[: max(1, min(PROMPT_TOKENS, model.config.context_length - n_new))]
    generate_ids(model, [prompt], GenerationConfig(max_new_tokens=1))
    started_at_s = time.perf_counter()
    generate_ids(model, [prompt], GenerationConfig(max_new_tokens=n_new))
    return n_new / (time.perf_counter() - started_at_s)
