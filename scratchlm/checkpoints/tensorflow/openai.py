"""Load GPT-2 from the arrays of OpenAI's TensorFlow checkpoint, flat or nested as in the book."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratchlm.checkpoints.lazy_mapping import LazyMapping
from scratchlm.checkpoints.names import OPENAI, to_ours
from scratchlm.checkpoints.store import build_model, expected_shapes
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import read_json
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel

HEAD_SIZE = 64  # of all four sizes of GPT-2
_BLOCK = re.compile(r"h(\d{1,4})/")


def config_from_hparams(path: Path) -> GPTConfig:
    """Read the config from OpenAI's `hparams.json`.

    Raises: CheckpointError when a value is missing or impossible.
    """
    values = read_json(path, error=CheckpointError)
    names = {
        "n_vocab": "vocab_size",
        "n_ctx": "context_length",
        "n_embd": "emb_dim",
        "n_head": "n_heads",
        "n_layer": "n_layers",
    }
    missing = [name for name in names if not isinstance(values, dict) or name not in values]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}; fetch it again.")
    try:
        return published_config(**{ours: values[theirs] for theirs, ours in names.items()})
    except ConfigError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause


def published_config(**sizes: int) -> GPTConfig:
    """A config of these sizes with the settings of all published GPT-2 models: biases and a tied head."""
    return GPTConfig(qkv_bias=True, tie_embeddings=True, init="gpt2", **sizes)  # type: ignore[arg-type]


def model_from_bundle(bundle: Mapping[str, NDArray[Any]], config: GPTConfig, *, where: Path) -> GPTModel:
    """Build a GPT from the arrays of a TensorFlow checkpoint, reading one at a time.

    Raises: CheckpointError listing every array that is missing, unexpected or of another shape.
    """
    return build_model(config, _state(bundle, config, where=str(where)), where=where)


def params_from_bundle(bundle: Mapping[str, NDArray[Any]], n_layers: int) -> dict[str, Any]:
    """The arrays nested as in the book: `params["blocks"][0]["attn"]["c_attn"]["w"]`, and so on.

    Raises: CheckpointError when an array belongs to a block at or beyond n_layers.
    """
    params: dict[str, Any] = {"blocks": [{} for _ in range(n_layers)]}
    for name in bundle:
        path = name.removeprefix("model/")
        place, parts = params, path.removeprefix("ln_f/").split("/")
        if match := _BLOCK.match(path):
            if int(match[1]) >= n_layers:
                raise CheckpointError(
                    f"the checkpoint has {name}, but hparams.json says {n_layers} blocks; use the hparams.json that "
                    "belongs to it."
                )
            place, parts = params["blocks"][int(match[1])], path[match.end() :].split("/")
        for part in parts[:-1]:
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict) or parts[-1] in place:
            raise CheckpointError(
                f"these are not GPT-2's weights: {name!r:.200} conflicts with another array; use another copy."
            )
        place[parts[-1]] = np.squeeze(bundle[name])
    return params


def load_params_into(gpt: GPTModel, params: Mapping[str, Any]) -> None:
    """Copy GPT-2's arrays, in the book's nested dictionary, into a model built with `qkv_bias=True`.

    The head of an untied model gets a copy of the token embedding, as in the book.
    Raises: CheckpointError listing every array that is missing, unexpected or of another shape.
    """
    state = _state(_flat(params), gpt.config, where="params")
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            source = "tok_emb.weight" if name == "out_head.weight" else name
            parameter.copy_(state[source])


def model_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> GPTModel:
    """Build a GPT of the size of arrays named as in the checkpoint, without `model/`; heads have size 64.

    Raises: CheckpointError when arrays are missing or do not fit each other.
    """
    for name in ("wte", "wpe"):
        if name not in arrays or np.ndim(arrays[name]) != 2:
            raise CheckpointError(f"GPT-2's weights lack the matrix {name}; load the checkpoint again.")
    vocab_size, emb_dim = np.shape(arrays["wte"])
    config = published_config(
        vocab_size=vocab_size,
        context_length=len(arrays["wpe"]),
        emb_dim=emb_dim,
        n_heads=max(1, emb_dim // HEAD_SIZE),
        n_layers=1 + max((int(match[1]) for name in arrays if (match := _BLOCK.match(name))), default=0),
    )
    return build_model(config, _state(arrays, config, where="the weights"), where=Path("the weights"))


def _state(arrays: Mapping[str, NDArray[Any]], config: GPTConfig, *, where: str) -> dict[str, Tensor]:
    theirs = LazyMapping(arrays, lambda name: torch.from_numpy(np.array(arrays[name])))
    shapes = expected_shapes(config, n_weights=len(arrays), where=where)
    shapes.pop("out_head.weight")
    return to_ours(OPENAI, theirs, shapes, where=where)


def _flat(params: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The nested arrays by names joined with slashes, as in the checkpoint."""
    flat: dict[str, NDArray[Any]] = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, f"{prefix}/{key}" if prefix else str(key))
        else:
            flat["ln_f/" + prefix if prefix in ("g", "b") else prefix] = np.asarray(value)

    for key, value in params.items():
        if key == "blocks":
            for i, block in enumerate(value):
                walk(block, f"h{i}")
        else:
            walk(value, key)
    return flat
