"""Model folders and training checkpoints: written whole or not at all, verified before they are believed.

A model folder holds `config.json`, `model.safetensors`, `tokenizer.json`, `task.json` for a specialist, and
`manifest.json` with the sha256 and size of every other file. A training checkpoint is a model folder with
`training_state.safetensors` and `training_state.json` beside. Nothing is pickled.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scratchlm.assets.file_structure import safetensors_header_problem
from scratchlm.checkpoints.names import misfits
from scratchlm.checkpoints.usage import TEMPLATE_FILE, saved_task
from scratchlm.core.config import from_dict, to_dict
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import new_folder, read_json, sha256_of_file, write_json
from scratchlm.core.json_table import read_json_table
from scratchlm.core.partials import standing, standing_in
from scratchlm.core.protocols import Tokenizer
from scratchlm.core.provenance import device_name, versions
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.files import load_tokenizer

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ADAPTER_CONFIG = "adapter_config.json"  # of a folder in the form of peft: corrections, no model
NEEDED_FILES = {"config.json", "model.safetensors", "tokenizer.json"}
MODEL_FOLDER_FILES = (  # that we write into a model folder, our own or Hugging Face's
    *sorted(NEEDED_FILES),
    MANIFEST,
    "task.json",
    "training_state.json",
    "training_state.safetensors",
    "tokenizer_config.json",
    "generation_config.json",
    TEMPLATE_FILE,
)
MAX_NAME = 200  # characters of a file's name
STEP_FOLDER = re.compile(r"step-\d{8}")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What a model folder holds: everything that is needed to use the model, and where it came from."""

    model: GPTModel
    config: GPTConfig
    tokenizer: Tokenizer
    task: dict[str, Any]  # {} for a plain language model
    manifest: dict[str, Any]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a run needs beside the model to go on as if it had never stopped."""

    tensors: dict[str, Tensor] = field(default_factory=dict)  # optimizer moments, RNG states
    values: dict[str, Any] = field(default_factory=dict)  # counters, best loss, sample position


def save_model(
    folder: str | Path,
    model: GPTModel,
    tokenizer: Tokenizer,
    *,
    task: Mapping[str, Any] | None = None,
    training_state: TrainingState | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder, whole or not at all; the manifest comes last.

    `facts` goes into the manifest: step, validation loss, fingerprint of the training data, and the like.
    Raises: CheckpointError when the disk is full or the folder may not be written.
    """
    target = Path(folder)
    with new_folder(target, error=CheckpointError) as partial:
        write_json(partial / "config.json", to_dict(model.config), error=CheckpointError)
        save_tensors(partial / "model.safetensors", own_weights(model))
        tokenizer.save(partial / "tokenizer.json")
        if task:
            write_json(partial / "task.json", dict(task), error=CheckpointError)
        if training_state is not None:
            save_tensors(partial / "training_state.safetensors", training_state.tensors)
            write_json(partial / "training_state.json", training_state.values, error=CheckpointError)
        manifest = {
            "format": "scratchlm model folder",
            "format_version": FORMAT_VERSION,
            **(facts or {}),
            "versions": versions(),
            "device": device_name(next(model.parameters()).device),
            "files": {
                file.name: {"sha256": sha256_of_file(file), "size_bytes": file.stat().st_size}
                for file in sorted(partial.iterdir())
            },
        }
        write_json(partial / MANIFEST, manifest, error=CheckpointError)
    return target


def load_model(path: str | Path) -> LoadedModel:
    """Open a model folder, or a run folder's newest good checkpoint, after checking every file's hash.

    The model is in evaluation mode, on the CPU.
    Raises: CheckpointError naming the file that is missing or damaged, and what differs.
    """
    folder = resolve_model(path)
    manifest = verify(folder)
    config = _read_config(folder)
    state = load_tensors(folder / "model.safetensors")
    model = build_model(config, state, where=folder / "model.safetensors")
    return LoadedModel(
        model=model.eval(),
        config=config,
        tokenizer=load_tokenizer(folder / "tokenizer.json"),
        task=saved_task(folder / "task.json", n_scores=model.out_head.out_features),
        manifest=manifest,
        folder=folder,
    )


def load_training_state(folder: Path) -> TrainingState:
    """The optimizer, counters and RNG of a checkpoint folder.

    Raises: CheckpointError when the folder is a model without them.
    """
    if not (folder / "training_state.json").exists():
        raise CheckpointError(
            f"{folder} should hold a training state, found only a model; nothing to resume."
        )
    return TrainingState(
        tensors=load_tensors(folder / "training_state.safetensors"),
        values=dict(read_json_table(folder / "training_state.json", error=CheckpointError).values),
    )


def build_model(config: GPTConfig, state: Mapping[str, Tensor], *, where: Path) -> GPTModel:
    """A GPT of that config with these weights; the output head is as wide as the weights say.

    Weights are assigned, not copied, so that loading needs the file's size in memory once.
    Raises: CheckpointError listing every weight that is missing, unexpected or of another shape.
    """
    weights = {name: tensor for name, tensor in state.items() if not name.endswith("att.mask")}
    head = weights.get("out_head.weight")
    model = _empty_model(config, n_weights=len(weights), where=str(where))
    if head is not None and head.dim() == 2:
        has_bias = "out_head.bias" in weights
        if head.shape[0] != config.vocab_size or has_bias:
            with torch.device("meta"):
                model.out_head = nn.Linear(config.emb_dim, head.shape[0], bias=has_bias)
    is_tied = head is None and config.tie_embeddings
    if is_tied and "tok_emb.weight" in weights:
        weights["out_head.weight"] = weights["tok_emb.weight"]
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    misfits(expected, {name: tuple(tensor.shape) for name, tensor in weights.items()}, where=str(where))
    try:
        model.load_state_dict({name: weights[name] for name in expected}, assign=True)
    except RuntimeError as cause:  # the config ties two matrices that differ
        raise CheckpointError(f"{where} must hold the weights of its config: {cause}") from cause
    if is_tied:
        model.out_head.weight = model.tok_emb.weight
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def expected_shapes(config: GPTConfig, *, n_weights: int, where: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a GPT of that config; nothing is set aside for the numbers.

    n_weights: how many the file has; a config with more blocks than that cannot belong to it.
    Raises: CheckpointError for sizes that no file can hold.
    """
    state = _empty_model(config, n_weights=n_weights, where=where).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _empty_model(config: GPTConfig, *, n_weights: int, where: str) -> GPTModel:
    if config.n_layers > n_weights:
        raise CheckpointError(
            f"{where} should hold the weights of {config.n_layers} blocks, found {n_weights} weights; "
            "weights and config do not belong together."
        )
    try:
        with torch.device("meta"):
            return GPTModel(config)
    except (TypeError, RuntimeError, OverflowError) as cause:  # sizes beyond what torch counts
        raise CheckpointError(
            f"{where} should fit a model that can exist, found emb_dim={config.emb_dim}, "
            f"vocab_size={config.vocab_size} ({type(cause).__name__}); the config is damaged."
        ) from cause


def verify(folder: Path) -> dict[str, Any]:
    """Check that a model folder is complete and unchanged; returns its manifest.

    Raises: CheckpointError naming the file that is missing, of another size or of another hash.
    """
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder} should be a model folder with {MANIFEST}, found none; check the path."
        )
    manifest: dict[str, Any] = read_json(folder / MANIFEST, error=CheckpointError)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder / MANIFEST} must be of format version {FORMAT_VERSION} and list its files; "
            "it was written by another program or version."
        )
    unlisted = sorted(NEEDED_FILES - files.keys())
    if unlisted:
        raise CheckpointError(
            f"{folder / MANIFEST} must list {', '.join(unlisted)}, found no entry; use another checkpoint."
        )
    for name, facts in files.items():
        if not isinstance(facts, dict) or Path(name).name != name or len(name) > MAX_NAME or "\0" in name:
            raise CheckpointError(
                f"{folder / MANIFEST} must list plain file names with sha256 and size_bytes, found "
                f"{name!r:.80}; it is damaged: use another checkpoint."
            )
        file = folder / name
        if not file.is_file():
            raise CheckpointError(
                f"{folder} should hold {name}, found none; restore it or use another checkpoint."
            )
        if file.stat().st_size != facts.get("size_bytes"):
            raise CheckpointError(
                f"{file} should have {facts.get('size_bytes')} bytes, found {file.stat().st_size}; "
                "it is damaged: use another checkpoint."
            )
        if sha256_of_file(file, error=CheckpointError) != facts.get("sha256"):
            raise CheckpointError(
                f"{file} differs from its sha256 in {MANIFEST}; it is damaged: use another checkpoint."
            )
    return manifest


def resolve_model(path: str | Path) -> Path:
    """The model folder behind a path: itself, or a run folder's checkpoint (`RUN/last`, `RUN/best`, or `RUN`, which is
    the one that the run's setting `use` names).

    Damaged checkpoints that are passed over are named in a warning.
    Raises: CheckpointError when there is no model there, with what was looked for.
    """
    wanted = standing(Path(path))
    if (wanted / MANIFEST).is_file():
        return wanted
    if wanted.name in ("best", "last") and (wanted.parent / "checkpoints").is_dir():
        run, choice = wanted.parent, wanted.name
    else:
        run, choice = wanted, "use"
    if not (run / "checkpoints").is_dir() and (wanted / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            f"{wanted} should be a whole model, found an adapter, which only corrects one; join it with its base "
            f"first: scratchlm convert {wanted} FOLDER --to native."
        )
    if not (run / "checkpoints").is_dir():
        found = "a file" if wanted.is_file() else "a folder without one" if wanted.is_dir() else "nothing"
        raise CheckpointError(
            f"{wanted} should be a model folder (with {MANIFEST}), a run folder (with checkpoints/) or one of another "
            f"program (with config.json or model.ckpt.index), found {found}; check the path."
        )
    find = {"best": best_checkpoint, "last": newest_good_checkpoint, "use": _checkpoint_in_use}[choice]
    folder, damaged = find(run)
    if folder is None:
        told = f" ({damaged[0]})" if damaged else ""
        raise CheckpointError(f"{run} must hold a good checkpoint, found none{told}; train it first.")
    for complaint in damaged:
        logger.warning("skipping a damaged checkpoint: %s", complaint)
    return folder


def checkpoint_step(folder: Path) -> int:
    """The step of a checkpoint folder."""
    return int(folder.name.partition("step-")[2][:8])  # also of one that is set aside


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return run / "checkpoints" / f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first; unfinished ones are hidden and not among them."""
    found = standing_in(run / "checkpoints")
    return [found[name] for name in sorted(found) if STEP_FOLDER.fullmatch(name)]


def newest_good_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with the newer ones that do not."""
    damaged: list[str] = []
    for folder in reversed(list_checkpoints(run)):
        try:
            verify(folder)
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            return folder, damaged
    return None, damaged


def best_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The good checkpoint with the lowest validation loss, and what is wrong with the damaged ones."""
    damaged: list[str] = []
    evaluated: list[tuple[float, Path]] = []
    for folder in list_checkpoints(run):
        try:
            val_loss = _manifest(folder).get("val_loss")
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            evaluated += [(val_loss, folder)] if isinstance(val_loss, (int, float)) else []
    for _, folder in sorted(evaluated):
        try:
            verify(folder)
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            return folder, damaged
    return None, damaged


def _checkpoint_in_use(run: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint that the run's setting `use` names, as its newest manifest tells; the last of an older run."""
    newest, damaged = newest_good_checkpoint(run)
    if newest is None or _manifest(newest).get("use") != "best":
        return newest, damaged
    best, damaged_too = best_checkpoint(run)
    return best or newest, list(dict.fromkeys(damaged + damaged_too))


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / MANIFEST, error=CheckpointError)
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{folder / MANIFEST} must be a table; use another checkpoint.")
    return manifest


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights, each once: a head tied to the token embedding is not written twice."""
    state = model.state_dict()
    tied = (
        "out_head.weight" in state
        and state["out_head.weight"].data_ptr() == state["tok_emb.weight"].data_ptr()
    )
    return {name: tensor for name, tensor in state.items() if not (tied and name == "out_head.weight")}


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors; the caller's folder is not yet visible, so no rename is needed.

    Raises: CheckpointError when the disk is full.
    """
    try:
        own = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file(own, path, metadata=None if metadata is None else dict(metadata))
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(
            f"{path.name} should have been written, got: {cause}; free some space."
        ) from cause


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises: CheckpointError when it is missing, truncated or not safetensors.
    """
    try:
        problem = safetensors_header_problem(path)
        tensors: dict[str, Tensor] = {} if problem is not None else load_file(path)
    except (OSError, SafetensorError) as cause:
        problem = str(cause)
    if problem is not None:
        raise CheckpointError(f"{path} must be a safetensors file, but {problem}; use another checkpoint.")
    return tensors


def _read_config(folder: Path) -> GPTConfig:
    values = read_json_table(folder / "config.json", error=CheckpointError).values
    try:
        return from_dict(GPTConfig, values, where=str(folder / "config.json"))
    except ConfigError as cause:
        raise CheckpointError(str(cause)) from cause
