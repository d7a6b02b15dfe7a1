"""Write model folders and training checkpoints atomically, and verify their sha256 hashes before loading them.

A model folder holds `config.json`, `model.safetensors`, `tokenizer.json`, `task.json` for a fine-tuned model, and
`manifest.json` with the sha256 and size of every other file. A training checkpoint is a model folder that also has
`training_state.safetensors` and `training_state.json`. Nothing is pickled.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scratchlm.assets.file_structure import safetensors_header_problem
from scratchlm.checkpoints.names import check_shapes
from scratchlm.checkpoints.usage import TEMPLATE_FILE, saved_task
from scratchlm.core.atomic_replace import standing, standing_in
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.config import from_dict, to_dict
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import new_folder, read_json, write_json
from scratchlm.core.json_table import read_json_table
from scratchlm.core.protocols import Tokenizer
from scratchlm.core.provenance import device_name, versions
from scratchlm.model.config import GPTConfig
from scratchlm.model.empty import empty_weights
from scratchlm.model.gpt import GPTModel
from scratchlm.model.linear import build_linear, stored_weight
from scratchlm.quantization.saved import add_quantized_layers, describe_layers
from scratchlm.tokenizers.files import load_tokenizer

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ADAPTER_CONFIG = "adapter_config.json"  # of a folder that peft wrote: an adapter, not a model
NEEDED_FILES = {"config.json", "model.safetensors", "tokenizer.json"}
MODEL_FOLDER_FILES = (  # all files that we write into a model folder, our own or Hugging Face's
    *sorted(NEEDED_FILES),
    *(MANIFEST, "task.json", "training_state.json", "training_state.safetensors"),
    *("tokenizer_config.json", "generation_config.json", TEMPLATE_FILE),
)
QUANTIZATION = "quantization"  # key of config.json: kind and group size of each quantized layer
MAX_NAME = 200  # characters of a file's name
STEP_FOLDER = re.compile(r"step-\d{8}")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with its tokenizer, task and origin: the contents of a model folder."""

    model: GPTModel
    tokenizer: Tokenizer
    task: dict[str, Any]  # {} for a plain language model
    manifest: dict[str, Any]
    folder: Path

    @property
    def config(self) -> GPTConfig:
        """The model's config."""
        return self.model.config


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The state, in addition to the model, from which a run resumes exactly."""

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
    device: torch.device | None = None,
) -> Path:
    """Write a model folder atomically; the manifest comes last.

    `facts` goes into the manifest: step, validation loss, fingerprint of the training data, and the like; so does
    `device`, where the model was trained, if it is a copy on another one.
    Raises: CheckpointError when the disk is full or the folder may not be written.
    """
    target = Path(folder)
    with new_folder(target, error=CheckpointError) as partial:
        config = to_dict(model.config)
        if quantization := describe_layers(model):
            config[QUANTIZATION] = quantization
        write_json(partial / "config.json", config, error=CheckpointError)
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
            "device": device_name(device or next(model.parameters()).device),
            "files": {
                file.name: {"sha256": sha256_of_file(file), "size_bytes": file.stat().st_size}
                for file in sorted(partial.iterdir())
            },
        }
        write_json(partial / MANIFEST, manifest, error=CheckpointError)
    return target


def load_model(path: str | Path) -> LoadedModel:
    """Open a model folder, or a checkpoint of a run folder, after checking every file's hash.

    The model is in evaluation mode, on the CPU.
    Raises: CheckpointError naming the file that is missing or damaged, and what differs.
    """
    folder = resolve_model(path)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(load_tokenizer, folder / "tokenizer.json")
        manifest = verify(folder)
    values = dict(read_json_table(folder / "config.json", error=CheckpointError).values)
    quantization = values.pop(QUANTIZATION, {})
    try:
        config = from_dict(GPTConfig, values, where=str(folder / "config.json"))
    except ConfigError as cause:
        raise CheckpointError(str(cause)) from cause
    weights = folder / "model.safetensors"
    model = build_model(config, load_tensors(weights), where=weights)
    if describe_layers(model) != quantization:
        raise CheckpointError(
            f"{folder / 'config.json'} describes other quantized layers than {weights.name} holds; use another copy."
        )
    return LoadedModel(
        model=model.eval(),
        tokenizer=reading.result(),
        task=saved_task(folder / "task.json", n_scores=model.out_head.out_features),
        manifest=manifest,
        folder=folder,
    )


def load_training_state(folder: Path) -> TrainingState:
    """Read the optimizer state, counters and random states of a checkpoint folder.

    Raises: CheckpointError when the folder holds only a model.
    """
    if not (folder / "training_state.json").exists():
        raise CheckpointError(
            f"{folder} holds a model without training state, so training cannot resume from it; choose a checkpoint of "
            "a run folder."
        )
    return TrainingState(
        tensors=load_tensors(folder / "training_state.safetensors"),
        values=dict(read_json_table(folder / "training_state.json", error=CheckpointError).values),
    )


def build_model(config: GPTConfig, state: Mapping[str, Tensor], *, where: Path) -> GPTModel:
    """Build a GPT from a config and weights; the width of the output head is that of its weights.

    Weights are assigned, not copied, so loading takes the file's size in memory only once. Layers whose weights are
    quantized become quantized layers.
    Raises: CheckpointError listing every weight that is missing, unexpected or of another shape.
    """
    weights = {name: tensor for name, tensor in state.items() if not name.endswith("att.mask")}
    head = weights.get("out_head.weight")
    model = _empty_model(config, n_weights=len(weights), where=str(where))
    if head is not None and head.dim() == 2:
        has_bias = "out_head.bias" in weights
        if head.shape[0] != config.vocab_size or has_bias:
            with empty_weights():
                model.out_head = build_linear(config.emb_dim, head.shape[0], bias=has_bias)
    add_quantized_layers(model, weights, where=str(where))
    if head is None and model.has_tied_head():
        shared = {part: weights.get(f"tok_emb.{part}") for part in stored_weight(model.tok_emb)}
        weights = {f"out_head.{part}": t for part, t in shared.items() if t is not None} | weights
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_shapes(expected, {name: tuple(tensor.shape) for name, tensor in weights.items()}, where=str(where))
    try:
        model.load_state_dict({name: weights[name] for name in expected}, assign=True)
    except RuntimeError as cause:  # the config ties two matrices that differ
        raise CheckpointError(
            f"the weights in {where} do not fit its config: {cause}; use another checkpoint."
        ) from cause
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def expected_shapes(config: GPTConfig, *, n_weights: int, where: str) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight of a GPT with this config, computed without allocating it.

    n_weights: number of weights in the file; a config with more blocks than that cannot belong to it.
    Raises: CheckpointError for invalid sizes.
    """
    state = _empty_model(config, n_weights=n_weights, where=where).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _empty_model(config: GPTConfig, *, n_weights: int, where: str) -> GPTModel:
    if config.n_layers > n_weights:
        raise CheckpointError(
            f"{where} has {n_weights} weights, too few for the {config.n_layers} blocks of its config; weights and "
            "config do not belong together."
        )
    try:
        with empty_weights():
            return GPTModel(config)
    except (TypeError, RuntimeError, OverflowError) as cause:  # sizes that overflow torch's integers
        raise CheckpointError(
            f"the config of {where} describes an impossible model, emb_dim={config.emb_dim} and "
            f"vocab_size={config.vocab_size} ({type(cause).__name__}); it is damaged, use another one."
        ) from cause


def verify(folder: Path) -> dict[str, Any]:
    """Check that a model folder is complete and unchanged, and return its manifest.

    Raises: CheckpointError naming the file that is missing, of another size or of another hash.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a model folder: it has no {MANIFEST}; check the path.")
    manifest: dict[str, Any] = read_json(path, error=CheckpointError)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} must be of format version {FORMAT_VERSION} and list its files, but another program or version "
            "wrote it; use another checkpoint."
        )
    unlisted = sorted(NEEDED_FILES - files.keys())
    if unlisted:
        raise CheckpointError(f"{path} does not list {', '.join(unlisted)}; use another checkpoint.")
    for name, facts in files.items():
        if not isinstance(facts, dict) or Path(name).name != name or len(name) > MAX_NAME or "\0" in name:
            raise CheckpointError(
                f"{path} must list plain file names with sha256 and size_bytes, got {name!r:.80}; use another "
                "checkpoint."
            )
        file, size_bytes = folder / name, facts.get("size_bytes")
        if not file.is_file():
            problem = "is missing"
        elif file.stat().st_size != size_bytes:
            problem = f"has {file.stat().st_size} bytes instead of {size_bytes}"
        elif sha256_of_file(file, error=CheckpointError) != facts.get("sha256"):
            problem = f"differs from its sha256 in {MANIFEST}"
        else:
            continue
        raise CheckpointError(f"{file} {problem}; restore it or use another checkpoint.")
    return manifest


def resolve_model(path: str | Path) -> Path:
    """Find the model folder for a path: the path itself, or a run folder's checkpoint.

    The checkpoint is `RUN/last`, `RUN/best`, or for `RUN` the one that the run's setting `use` names.
    A warning names damaged checkpoints that are skipped.
    Raises: CheckpointError when there is no model.
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
            f"{wanted} is an adapter, not a whole model; merge it into its base model first: "
            f"scratchlm convert {wanted} FOLDER --to native."
        )
    if not (run / "checkpoints").is_dir():
        found = "a file" if wanted.is_file() else "a folder without one" if wanted.is_dir() else "nothing"
        raise CheckpointError(
            f"{wanted} must be a model folder (with {MANIFEST}), a run folder (with checkpoints/) or a folder of "
            f"another program (with config.json or model.ckpt.index), got {found}; check the path."
        )
    find = {"best": best_checkpoint, "last": newest_good_checkpoint, "use": _checkpoint_in_use}[choice]
    folder, damaged = find(run)
    if folder is None:
        reason = f" ({damaged[0]})" if damaged else ""
        raise CheckpointError(f"{run} has no undamaged checkpoint{reason}; train the model first.")
    for problem in damaged:
        logger.warning("skipping a damaged checkpoint: %s", problem)
    return folder


def checkpoint_step(folder: Path) -> int:
    """The step of a checkpoint folder."""
    return int(folder.name.partition("step-")[2][:8])  # also of one that is being replaced


def checkpoint_folder(run: Path, step: int) -> Path:
    """The path of a run's checkpoint at a step."""
    return run / "checkpoints" / f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, without unfinished ones."""
    found = standing_in(run / "checkpoints")
    return [found[name] for name in sorted(found) if STEP_FOLDER.fullmatch(name)]


def newest_good_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint, and the problems of newer, damaged ones."""
    return _first_good(reversed(list_checkpoints(run)))


def best_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The intact checkpoint with the lowest validation loss, and the problems of damaged ones."""
    damaged: list[str] = []
    evaluated: list[tuple[float, Path]] = []
    for folder in list_checkpoints(run):
        try:
            val_loss = _manifest(folder).get("val_loss")
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            evaluated += [(val_loss, folder)] if isinstance(val_loss, (int, float)) else []
    best, damaged_too = _first_good(folder for _, folder in sorted(evaluated))
    return best, damaged + damaged_too


def _first_good(folders: Iterable[Path]) -> tuple[Path | None, list[str]]:
    """The first intact folder, and the problems of those before it."""
    damaged: list[str] = []
    for folder in folders:
        try:
            verify(folder)
        except CheckpointError as error:
            damaged.append(str(error))
        else:
            return folder, damaged
    return None, damaged


def _checkpoint_in_use(run: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint that the run's setting `use`, in its newest manifest, names; the last one when it is absent."""
    newest, damaged = newest_good_checkpoint(run)
    if newest is None or _manifest(newest).get("use") != "best":
        return newest, damaged
    best, damaged_too = best_checkpoint(run)
    return best or newest, list(dict.fromkeys(damaged + damaged_too))


def _manifest(folder: Path) -> dict[str, Any]:
    return dict(read_json_table(folder / MANIFEST, error=CheckpointError).values)


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights without duplicates: a head tied to the token embedding is left out."""
    state = model.state_dict()
    shared = {t.data_ptr() for name, t in state.items() if name.startswith("tok_emb.")}
    tied = {name for name, t in state.items() if name.startswith("out_head.") and t.data_ptr() in shared}
    return {name: tensor for name, tensor in state.items() if name not in tied}


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
        raise CheckpointError(f"{path.name} could not be written: {cause}; free some space.") from cause


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
