"""GPT-2 as OpenAI published it: a TensorFlow checkpoint's arrays, and the nested form that the book gives them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratchlm.checkpoints.names import OPENAI, to_ours
from scratchlm.checkpoints.store import build_model, expected_shapes
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import read_json
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel

HEAD_SIZE = 64  # of all four sizes of GPT-2
_BLOCK = re.compile(r"h(\d{1,4})/")


class _Tensors(Mapping[str, Tensor]):
    """Arrays as tensors, each read when it is asked for."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self._arrays[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def config_from_hparams(path: Path) -> GPTConfig:
    """The config behind OpenAI's `hparams.json`.

    Raises: CheckpointError when a figure is missing or impossible.
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
        raise CheckpointError(f"{path} must hold {', '.join(missing)}, found none; fetch it again.")
    try:
        return published_config(**{ours: values[theirs] for theirs, ours in names.items()})
    except ConfigError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause


def published_config(**sizes: int) -> GPTConfig:
    """A config with what all published GPT-2 models share: biased projections and a tied head."""
    return GPTConfig(qkv_bias=True, tie_embeddings=True, init="gpt2", **sizes)  # type: ignore[arg-type]


def model_from_bundle(bundle: Mapping[str, NDArray[Any]], config: GPTConfig, *, where: Path) -> GPTModel:
    """A GPT with the arrays of a TensorFlow checkpoint, read one by one.

    Raises: CheckpointError listing every array that is missing, unexpected or of another shape.
    """
    return build_model(config, _state(_Tensors(bundle), config, where=str(where)), where=where)


def params_from_bundle(bundle: Mapping[str, NDArray[Any]], n_layers: int) -> dict[str, Any]:
    """The arrays in the book's nested form: `params["blocks"][0]["attn"]["c_attn"]["w"]`, and so on.

    Raises: CheckpointError when an array belongs to no block, or to one at or beyond n_layers.
    """
    params: dict[str, Any] = {"blocks": [{} for _ in range(n_layers)]}
    for name in bundle:
        path = name.removeprefix("model/")
        target = params
        parts = path.removeprefix("ln_f/").split("/")
        if match := _BLOCK.match(path):
            if int(match[1]) >= n_layers:
                raise CheckpointError(
                    f"the checkpoint should have {n_layers} blocks, found {name}; take the hparams.json that "
                    "belongs to it."
                )
            target, parts = params["blocks"][int(match[1])], path[match.end() :].split("/")
        put_array(target, parts, np.squeeze(bundle[name]), name=name)
    return params


def put_array(target: dict[str, Any], parts: Sequence[str], array: NDArray[Any], *, name: str) -> None:
    """Put an array into the book's nested form, under the parts of its name.

    Raises: CheckpointError for a name that is another's or lies beneath one, of which no GPT-2 has any.
    """
    place: Any = target
    for key in parts[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict) or not parts or parts[-1] in place:
        raise CheckpointError(
            f"the weights should be GPT-2's, found {name!r:.200} where another array is; take another copy."
        )
    place[parts[-1]] = array


def load_params_into(model: GPTModel, params: Mapping[str, Any]) -> None:
    """Copy arrays in the book's nested form into a model; an untied head gets a copy of the token embedding.

    Raises: CheckpointError listing every array that is missing, unexpected or of another shape.
    """
    state = _state(_Tensors(_flat(params)), model.config, where="params")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            source = "tok_emb.weight" if name == "out_head.weight" else name
            parameter.copy_(state[source])


def model_from_params(params: Mapping[str, Any], *, tie: bool = True, n_heads: int | None = None) -> GPTModel:
    """A GPT of the size that the arrays have; tie=False gives the head a copy of its own, as in the book.

    n_heads: left out, heads are 64 wide, as in all of GPT-2.
    Raises: CheckpointError when arrays are missing or do not fit each other.
    """
    arrays = _flat(params)
    for name in ("wte", "wpe"):
        if name not in arrays or np.ndim(arrays[name]) != 2:
            raise CheckpointError(
                f"params must hold the matrix {name}, found none; load the checkpoint again."
            )
    vocab_size, emb_dim = np.shape(arrays["wte"])
    config = published_config(
        vocab_size=vocab_size,
        context_length=len(arrays["wpe"]),
        emb_dim=emb_dim,
        n_heads=n_heads or max(1, emb_dim // HEAD_SIZE),
        n_layers=len(params.get("blocks", ())),
    )
    state = _state(_Tensors(arrays), config, where="params")
    if not tie:
        config = dataclasses.replace(config, tie_embeddings=False)
        state["out_head.weight"] = state["tok_emb.weight"].clone()
    return build_model(config, state, where=Path("params"))


def _state(theirs: Mapping[str, Tensor], config: GPTConfig, *, where: str) -> dict[str, Tensor]:
    shapes = expected_shapes(config, n_weights=len(theirs), where=where)
    return to_ours(
        OPENAI, theirs, {name: s for name, s in shapes.items() if name != "out_head.weight"}, where=where
    )


def _flat(params: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The nested form with names joined by slashes, as the checkpoint has them."""
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
