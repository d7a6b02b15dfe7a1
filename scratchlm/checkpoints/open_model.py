"""Open a model from any source: our own folders, Hugging Face's, OpenAI's, and single weight files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scratchlm.assets.known_weights import GPT2_SIZES, gpt2_files, gpt2_size
from scratchlm.assets.registry import asset_path, find_file
from scratchlm.checkpoints.comparison import HUGGING_FACE
from scratchlm.checkpoints.config_of_weights import config_of_weights, table_of
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.huggingface import find_weights, model_from_huggingface, read_huggingface
from scratchlm.checkpoints.names import BOOK_LLAMA, GPT2, LLAMA, to_ours
from scratchlm.checkpoints.store import (
    MANIFEST,
    LoadedModel,
    build_model,
    expected_shapes,
    load_model,
    own_weights,
)
from scratchlm.checkpoints.tensorflow.bundle import open_bundle
from scratchlm.checkpoints.tensorflow.openai import config_from_hparams, model_from_arrays, model_from_bundle
from scratchlm.checkpoints.usage import check_usage, usage_of_folder
from scratchlm.checkpoints.weight_files import SUFFIXES, open_weights
from scratchlm.core.atomic_replace import standing
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.core.files import read_json
from scratchlm.core.json_table import read_json_table
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.files import has_tokenizer, load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.nanogpt_meta import META_FILE

GPT2_VOCAB_SIZE, PADDED_VOCAB_SIZE = 50257, 50304  # the second is nanoGPT's, rounded up
_PUBLISHED = {name.lower() for size in GPT2_SIZES for name in size.names}


def open_model(path: str | Path) -> LoadedModel:
    """Open any MODEL: a model folder, a run folder, a folder or file of another program, or downloaded weights by name.

    The model is in evaluation mode, on the CPU. See `import_model` for other programs; a name is such as `gpt2-small`.
    Raises: CheckpointError naming the file that is missing, damaged or not supported; DataError for published weights
        that are not downloaded, with the command that fetches them.
    """
    found = standing(Path(path))
    if not found.exists() and str(path).lower() in _PUBLISHED:
        return import_model(_fetched_weights(str(path)))
    return import_model(found) if _is_foreign(found) else load_model(found)


def import_model(path: str | Path) -> LoadedModel:
    """Open a model of another program: its weights as float32, each read once.

    Reads a Hugging Face folder (GPT-2, Llama, Mistral, Qwen 2 and 3, SmolLM 2), a folder with OpenAI's
    TensorFlow checkpoint, a `.gguf` file, nanoGPT's `ckpt.pt`, and `.safetensors`, `.bin`, `.pth`, `.ckpt` or
    `.npz` files with the names of Hugging Face, OpenAI or the book, including its Llama and Qwen 3. The tokenizer is
    the one beside it, or nanoGPT's `meta.pkl`; for a model with GPT-2's vocabulary and no tokenizer, GPT-2's own.

    Raises: CheckpointError naming what is missing, damaged or unknown; TokenizerError for the tokenizer's files.
    """
    source = standing(Path(path))
    if source.suffix == ".gguf" and source.is_file():
        return read_gguf(source)
    folder = source if source.is_dir() else source.parent
    task: dict[str, Any] = {}
    saved: Mapping[str, Any] = {}
    if (prefix := _tensorflow_prefix(source)) is not None:
        kind, weights = "TensorFlow checkpoint", sorted(source.glob("*.ckpt.data-*"))
        config = config_from_hparams(source / "hparams.json")
        model = model_from_bundle(open_bundle(prefix), config, where=source)
    elif source.is_dir():
        kind, weights = HUGGING_FACE, [find_weights(source)]
        model, task = read_huggingface(source, open_weights(weights[0]), where=weights[0])
    else:
        kind, weights = "weights file", [source]
        model, task, saved = _read_file(source)
    tokenizer = _tokenizer(folder, model.config, saved)
    _check_ids(tokenizer, model.config.vocab_size, where=str(source))
    if task.get("kind") != "classification":
        task = usage_of_folder(folder, tokenizer, n_ids=model.config.vocab_size) | task
        check_usage(task, where=str(source))
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        task=task,
        manifest={"format": kind, "weights": [str(file) for file in weights]},
        folder=folder,
    )


def cropped(loaded: LoadedModel, context_length: int) -> LoadedModel:
    """The model and its task for a shorter context; learned positions are cropped.

    Raises: ConfigError when the model's context is shorter already.
    """
    model = crop_context(loaded.model, context_length).eval()
    task = dict(loaded.task)
    if isinstance(task.get("max_length"), int):
        task["max_length"] = min(task["max_length"], context_length)
    return dataclasses.replace(loaded, model=model, task=task)


def crop_context(model: GPTModel, context_length: int) -> GPTModel:
    """The model for a shorter context.

    Raises: ConfigError when the model's context is shorter already.
    """
    if not 1 <= context_length <= model.config.context_length:
        raise ConfigError(
            f"context_length must be 1 to {model.config.context_length} for this model, got {context_length}; "
            "positions that were never trained cannot be added."
        )
    state = own_weights(model)
    if "pos_emb.weight" in state:
        state["pos_emb.weight"] = state["pos_emb.weight"][:context_length].clone()
    config = dataclasses.replace(model.config, context_length=context_length)
    return build_model(config, {name: t.detach() for name, t in state.items()}, where=Path("the model"))


def _check_ids(tokenizer: Tokenizer, n_ids: int, *, where: str) -> None:
    """Check that the model has an id for every ordinary token.

    Added tokens, such as a [PAD] for which the model was not enlarged, may exceed it: they are never
    generated, and encoding a text with one raises an error.
    """
    added = {*tokenizer.special_tokens.values(), *(t.id for t in getattr(tokenizer, "added_tokens", ()))}
    if not added.issuperset(range(n_ids, tokenizer.vocab_size)):
        raise CheckpointError(
            f"{where} has {n_ids} ids, fewer than the {tokenizer.vocab_size} of its tokenizer; the files do not belong "
            "together."
        )


def _fetched_weights(name: str) -> Path:
    """The path of downloaded weights: Hugging Face's file, or else OpenAI's checkpoint."""
    size = gpt2_size(name)
    for source in ("hf", "openai"):
        files = gpt2_files(size, source)
        if all(find_file(asset.id) is not None for asset in files):
            paths = [asset_path(asset.id) for asset in files]
            return next((path for path in paths if path.name == "model.safetensors"), paths[0].parent)
    return asset_path(gpt2_files(size, "hf")[-1].id)  # raises, with the command to fetch it


def _is_foreign(path: Path) -> bool:
    if path.is_file():
        return True
    if (path / MANIFEST).is_file() or (path / "checkpoints").is_dir():
        return False
    return _tensorflow_prefix(path) is not None or _has_model_type(path / "config.json")


def _has_model_type(config: Path) -> bool:
    """Whether a config.json is that of transformers, and not of a model folder that lost its manifest."""
    if not config.is_file():
        return False
    value = read_json(config, error=CheckpointError)
    return isinstance(value, dict) and "model_type" in value


def _tensorflow_prefix(folder: Path) -> Path | None:
    index = next(iter(sorted(folder.glob("*.ckpt.index"))), None) if folder.is_dir() else None
    return None if index is None else index.with_suffix("")


def _read_file(path: Path) -> tuple[GPTModel, dict[str, Any], Mapping[str, Any]]:
    """Model and task from one weight file, and the settings that a training script saved in it."""
    if path.suffix not in SUFFIXES:
        raise CheckpointError(
            f"{path} must be a model folder or one of {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'};"
            " check the path."
        )
    weights = open_weights(path)
    if any(name.removeprefix("model/") == "wte" for name in weights):
        # no bfloat16 in NumPy
        floats = {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}
        arrays = {name.removeprefix("model/"): tensor.numpy() for name, tensor in floats.items()}
        if len(arrays) < len(weights):
            raise CheckpointError(
                f"{path} holds an array twice, with and without the prefix model/; use another copy."
            )
        return model_from_arrays(arrays), {}, {}
    table, beside = table_of(weights, path), path.parent / "config.json"
    if table in (GPT2, LLAMA) and _has_model_type(beside):
        model, task = read_huggingface(path.parent, weights, where=path)
        return model, task, weights.settings
    config = config_of_weights(weights, path)
    if table in (GPT2, LLAMA):
        return model_from_huggingface(config, weights, where=path), {}, weights.settings
    state: Mapping[str, Tensor] = weights
    if table is BOOK_LLAMA:
        shapes = expected_shapes(config, n_weights=len(weights), where=str(path))
        state = to_ours(table, weights, shapes, where=str(path))
    model = _build_ours(config, state, path)
    return model, _task_beside(path, model), weights.settings


def _build_ours(config: GPTConfig, weights: Mapping[str, Tensor], path: Path) -> GPTModel:
    state = {name: weights[name].float() for name in weights if not name.endswith("att.mask")}
    head = state.get("out_head.weight")
    if head is not None and config.tie_embeddings and head.shape == state["tok_emb.weight"].shape:
        if head.equal(state["tok_emb.weight"]):
            del state["out_head.weight"]
        else:
            config = dataclasses.replace(config, tie_embeddings=False)
    return build_model(config, state, where=path)


def _task_beside(path: Path, model: GPTModel) -> dict[str, Any]:
    """The model's task, from a task.json beside the file.

    Without one, a head whose width is not the vocabulary size is that of a classifier with numbered classes.
    """
    file, n_scores = path.parent / "task.json", model.out_head.out_features
    is_classifier = n_scores != model.config.vocab_size
    if not file.is_file():
        classes = [str(number) for number in range(n_scores)]
        about = {"classes": classes, "max_length": model.config.context_length}
        return {"kind": "classification", **about} if is_classifier else {}
    task = dict(read_json_table(file, error=CheckpointError).values)
    check_usage(task, where=str(file))
    is_about_it = (task.get("kind") == "classification") == is_classifier
    if not is_about_it or (is_classifier and len(task["classes"]) != n_scores):
        raise CheckpointError(
            f"{file} does not fit {path.name}, whose head has {n_scores} scores, got the task {task!r:.80}; move it "
            "away from there."
        )
    return task


def _tokenizer(folder: Path, config: GPTConfig, saved: Mapping[str, Any]) -> Tokenizer:
    if has_tokenizer(folder):
        return load_tokenizer(folder)
    for place in (folder, _nanogpt_data(folder, saved)):
        if place is not None and (place / META_FILE).is_file():
            return load_tokenizer(place / META_FILE)
    if not GPT2_VOCAB_SIZE <= config.vocab_size <= PADDED_VOCAB_SIZE:
        raise CheckpointError(
            f"{folder} has no tokenizer for its {config.vocab_size} tokens: no tokenizer.json, no vocab.json with "
            f"merges.txt and no {META_FILE} of nanoGPT; put one of them beside the weights."
        )
    try:
        return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))
    except DataError as cause:
        raise CheckpointError(f"{folder} has no tokenizer, and GPT-2's cannot be used: {cause}") from cause


def _nanogpt_data(folder: Path, saved: Mapping[str, Any]) -> Path | None:
    """The data folder of a nanoGPT checkpoint, in nanoGPT's layout: `out-.../ckpt.pt`, `data/DATASET`."""
    config = saved.get("config")
    name = config.get("dataset") if isinstance(config, dict) else None
    is_name = isinstance(name, str) and 0 < len(name) < 200 and Path(name).name == name and "\0" not in name
    return folder.absolute().parent / "data" / str(name) if is_name else None
