"""Opening a model wherever it comes from: our own folders, Hugging Face's, OpenAI's, and single weight files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scratchlm.checkpoints.gguf import read_gguf
from scratchlm.checkpoints.huggingface import find_weights, model_from_huggingface, read_huggingface
from scratchlm.checkpoints.openai import (
    HEAD_SIZE,
    config_from_hparams,
    model_from_bundle,
    model_from_params,
    published_config,
    put_array,
)
from scratchlm.checkpoints.store import MANIFEST, LoadedModel, build_model, load_model
from scratchlm.checkpoints.tensorflow_bundle import open_bundle
from scratchlm.checkpoints.weight_files import SUFFIXES, open_weights
from scratchlm.core.assets import asset_path, find_file
from scratchlm.core.config import from_dict
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.core.files import read_json
from scratchlm.core.gpt2_assets import GPT2_SIZES, gpt2_files, gpt2_size
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.config import CONFIGS, GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

GPT2_VOCAB_SIZE = 50257
_PUBLISHED = {name.lower() for size in GPT2_SIZES for name in size.names}
_OUR_BLOCK = re.compile(r"trf_blocks\.(\d{1,5})\.")
_THEIR_BLOCK = re.compile(r"(?:transformer\.)?h\.(\d{1,5})\.")


def open_model(path: str | Path) -> LoadedModel:
    """Open any MODEL: a model folder, a run folder, a foreign folder or file that `import_model` reads, or the
    name of published weights that were fetched, such as `gpt2-small`.

    The model is in evaluation mode, on the CPU.
    Raises: CheckpointError naming the file that is missing, damaged or of a kind that we do not have; DataError
        for published weights that are not here, with the command that fetches them.
    """
    if not Path(path).exists() and str(path).lower() in _PUBLISHED:
        return import_model(_fetched_weights(str(path)))
    return import_model(path) if _is_foreign(Path(path)) else load_model(path)


def import_model(path: str | Path, *, context_length: int | None = None) -> LoadedModel:
    """Open a model of another program: its weights as float32, each read once.

    Reads a Hugging Face folder (GPT-2, Llama, Mistral, Qwen 2 and 3, SmolLM 2), a folder with OpenAI's
    TensorFlow checkpoint, a `.gguf` file, and `.safetensors`, `.bin`, `.pth` or `.npz` files with Hugging
    Face's, OpenAI's or the book's names. The tokenizer is the one beside it; for GPT-2's vocabulary without
    one, GPT-2's own.

    context_length: read fewer positions than the file has; learned positions are cropped.
    Raises: CheckpointError naming what is missing, damaged or unknown; TokenizerError for the tokenizer's files;
        ConfigError for a context_length beyond the model's.
    """
    source = Path(path)
    if source.suffix == ".gguf" and source.is_file():
        loaded = read_gguf(source)
        if context_length is None:
            return loaded
        return cropped(loaded, context_length)
    folder = source if source.is_dir() else source.parent
    task: dict[str, Any] = {}
    if source.is_dir() and _tensorflow_prefix(source) is not None:
        kind, weights = "TensorFlow checkpoint", _data_files(source)
        bundle = open_bundle(_tensorflow_prefix(source) or source)
        model = model_from_bundle(bundle, config_from_hparams(source / "hparams.json"), where=source)
    elif source.is_dir():
        kind, weights = "Hugging Face folder", [find_weights(source)]
        model, task = read_huggingface(source, weights[0])
    else:
        kind, weights = "weights file", [source]
        model, task = _read_file(source)
    tokenizer = _tokenizer(folder, model.config)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{source} should have a row for each of its tokenizer's {tokenizer.vocab_size} ids, found "
            f"{model.config.vocab_size}; the files do not belong together."
        )
    loaded = LoadedModel(
        model=model.eval(),
        config=model.config,
        tokenizer=tokenizer,
        task=task,
        manifest={"format": kind, "weights": [str(file) for file in weights]},
        folder=folder,
    )
    return loaded if context_length is None else cropped(loaded, context_length)


def cropped(loaded: LoadedModel, context_length: int) -> LoadedModel:
    """The same model for shorter texts, and its task with it.

    Raises: ConfigError when it cannot read that many tokens.
    """
    model = crop_context(loaded.model, context_length).eval()
    task = dict(loaded.task)
    if isinstance(task.get("max_length"), int):
        task["max_length"] = min(task["max_length"], context_length)
    return dataclasses.replace(loaded, model=model, config=model.config, task=task)


def crop_context(model: GPTModel, context_length: int) -> GPTModel:
    """The same model for shorter texts.

    Raises: ConfigError when it cannot read that many tokens.
    """
    if not 1 <= context_length <= model.config.context_length:
        raise ConfigError(
            f"context_length must be 1 to {model.config.context_length} for this model, got {context_length}; "
            "positions that were never trained cannot be added."
        )
    state = dict(model.state_dict())
    if "pos_emb.weight" in state:
        state["pos_emb.weight"] = state["pos_emb.weight"][:context_length].clone()
    if model.config.tie_embeddings and model.out_head.weight is model.tok_emb.weight:
        del state["out_head.weight"]
    config = dataclasses.replace(model.config, context_length=context_length)
    return build_model(config, {name: t.detach() for name, t in state.items()}, where=Path("the model"))


def _fetched_weights(name: str) -> Path:
    """Where published weights lie: as Hugging Face's folder, or else as OpenAI's checkpoint."""
    size = gpt2_size(name)
    for source in ("hf", "openai"):
        files = gpt2_files(size, source)
        if all(find_file(asset.id) is not None for asset in files):
            paths = [asset_path(asset.id) for asset in files]
            return next((path for path in paths if path.name == "model.safetensors"), paths[0].parent)
    return asset_path(gpt2_files(size, "hf")[-1].id)  # which says how to fetch it


def _is_foreign(path: Path) -> bool:
    if path.is_file():
        return True
    if (path / MANIFEST).is_file() or (path / "checkpoints").is_dir():
        return False
    return _tensorflow_prefix(path) is not None or _has_model_type(path / "config.json")


def _has_model_type(config: Path) -> bool:
    """Is it a config.json of transformers, and not of a model folder whose manifest is lost?"""
    if not config.is_file():
        return False
    value = read_json(config, error=CheckpointError)
    return isinstance(value, dict) and "model_type" in value


def _tensorflow_prefix(folder: Path) -> Path | None:
    index = next(iter(sorted(folder.glob("*.ckpt.index"))), None) if folder.is_dir() else None
    return None if index is None else index.with_suffix("")


def _data_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ckpt.data-*"))


def _read_file(path: Path) -> tuple[GPTModel, dict[str, Any]]:
    """A model from one file of weights; what it does not say stands in a config.json beside it."""
    if path.suffix not in SUFFIXES:
        raise CheckpointError(
            f"{path} should be a model folder or one of {', '.join(SUFFIXES)}, found {path.suffix or 'no suffix'};"
            " check the path."
        )
    weights = open_weights(path)
    if "tok_emb.weight" in weights:
        config = _config_beside(path) or _config_of_our_weights(weights, path)
        model = _build_ours(config, weights, path)
        return model, _task_beside(path, model)
    if any(name.removeprefix("model/") == "wte" for name in weights):
        return _from_openai_arrays(weights), {}
    beside = path.parent / "config.json"
    if beside.is_file():
        return read_huggingface(path.parent, path)
    return model_from_huggingface(_config_of_gpt2_weights(weights, path), weights, where=path), {}


def _build_ours(config: GPTConfig, weights: Mapping[str, Tensor], path: Path) -> GPTModel:
    state = {name: weights[name].float() for name in weights if not name.endswith("att.mask")}
    head = state.get("out_head.weight")
    if head is not None and config.tie_embeddings and head.shape == state["tok_emb.weight"].shape:
        if head.equal(state["tok_emb.weight"]):
            del state["out_head.weight"]
        else:
            config = dataclasses.replace(config, tie_embeddings=False)
    return build_model(config, state, where=path)


def _from_openai_arrays(weights: Mapping[str, Tensor]) -> GPTModel:
    params: dict[str, Any] = {"blocks": []}
    blocks: dict[int, dict[str, Any]] = {}
    for name in weights:
        parts = name.removeprefix("model/").split("/")
        target = params
        if match := re.fullmatch(r"h(\d{1,4})", parts[0]):
            target, parts = blocks.setdefault(int(match[1]), {}), parts[1:]
        elif parts[0] == "ln_f":
            parts = parts[1:]
        tensor = weights[name]  # NumPy has no bfloat16
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        put_array(target, parts, array, name=name)
    params["blocks"] = [blocks.get(i, {}) for i in range(1 + max(blocks, default=-1))]
    return model_from_params(params)


def _config_beside(path: Path) -> GPTConfig | None:
    """Our own or Hugging Face's settings in a config.json beside the file."""
    file = path.parent / "config.json"
    if not file.is_file():
        return None
    values = read_json(file, error=CheckpointError)
    if not isinstance(values, dict) or "emb_dim" not in values:
        return None
    try:
        return from_dict(GPTConfig, values, where=str(file))
    except ConfigError as cause:
        raise CheckpointError(str(cause)) from cause


def _task_beside(path: Path, model: GPTModel) -> dict[str, Any]:
    """What the model was made for: as a task.json beside the file says, or as its head shows.

    A head that is not as wide as the vocabulary scores classes. A file of weights does not name them, so they are
    called by their numbers.
    """
    file, n_scores = path.parent / "task.json", model.out_head.out_features
    is_classifier = n_scores != model.config.vocab_size
    if not file.is_file():
        classes = [str(number) for number in range(n_scores)]
        about = {"classes": classes, "max_length": model.config.context_length}
        return {"kind": "classification", **about} if is_classifier else {}
    task: dict[str, Any] = read_json(file, error=CheckpointError)
    is_about_it = isinstance(task, dict) and (task.get("kind") == "classification") == is_classifier
    if not is_about_it or (is_classifier and len(task.get("classes", ())) != n_scores):
        raise CheckpointError(
            f"{file} should be about {path.name}, whose head has {n_scores} scores, found the task {task!r:.80}; "
            "move it away from there."
        )
    return task


def _config_of_our_weights(weights: Mapping[str, Tensor], path: Path) -> GPTConfig:
    """Everything but the number of heads can be read off the weights' shapes; that follows GPT-2's sizes."""
    numbers = [int(match[1]) for name in weights if (match := _OUR_BLOCK.match(name))]
    if "pos_emb.weight" not in weights or not numbers:
        raise CheckpointError(
            f"{path} should hold pos_emb.weight and blocks of a GPT, found none; put its config.json beside it."
        )
    token_rows, positions = weights["tok_emb.weight"], weights["pos_emb.weight"]
    return _gpt2_sized(
        token_rows,
        positions,
        n_layers=1 + max(numbers),
        path=path,
        qkv_bias="trf_blocks.0.att.W_query.bias" in weights,
        tie_embeddings="out_head.weight" not in weights,
    )


def _config_of_gpt2_weights(weights: Mapping[str, Tensor], path: Path) -> GPTConfig:
    names = {name.removeprefix("transformer."): name for name in weights}
    numbers = [int(match[1]) for name in weights if (match := _THEIR_BLOCK.match(name))]
    if "wte.weight" not in names or "wpe.weight" not in names or not numbers:
        raise CheckpointError(
            f"{path} should hold weights of GPT-2 or of this package, found {sorted(weights)[:3]}; put the "
            "config.json of its folder beside it."
        )
    is_tied = "lm_head.weight" not in weights or weights["lm_head.weight"].equal(weights[names["wte.weight"]])
    return _gpt2_sized(
        weights[names["wte.weight"]],
        weights[names["wpe.weight"]],
        n_layers=1 + max(numbers),
        path=path,
        qkv_bias=True,
        tie_embeddings=is_tied,
    )


def _gpt2_sized(
    tokens: Tensor, positions: Tensor, *, n_layers: int, path: Path, qkv_bias: bool, tie_embeddings: bool
) -> GPTConfig:
    if tokens.dim() != 2 or positions.dim() != 2:
        raise CheckpointError(f"{path} must hold two embedding matrices, found other shapes; it is damaged.")
    emb_dim = tokens.shape[1]
    known = {config.emb_dim: config.n_layers for config in CONFIGS.values() if config.vocab_size == 50257}
    if known.get(emb_dim) != n_layers:
        raise CheckpointError(
            f"{path} does not say how many heads it has, and {n_layers} blocks of width {emb_dim} are none of "
            "GPT-2's sizes; put a config.json with the book's settings (n_heads among them) beside it."
        )
    config = published_config(
        vocab_size=tokens.shape[0],
        context_length=positions.shape[0],
        emb_dim=emb_dim,
        n_heads=emb_dim // HEAD_SIZE,
        n_layers=n_layers,
    )
    return dataclasses.replace(config, qkv_bias=qkv_bias, tie_embeddings=tie_embeddings)


def _tokenizer(folder: Path, config: GPTConfig) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return load_tokenizer(folder / "tokenizer.json")
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocab).is_file() and (folder / merges).is_file():
            return load_gpt2_tokenizer(folder / vocab, folder / merges)
    if config.vocab_size != GPT2_VOCAB_SIZE:
        raise CheckpointError(
            f"{folder} should hold tokenizer.json, or vocab.json and merges.txt, found neither; a model is of no "
            "use without its tokenizer: put it beside the weights."
        )
    try:
        return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))
    except DataError as cause:
        raise CheckpointError(
            f"{folder} holds no tokenizer, and GPT-2's is not here either ({cause})"
        ) from cause
