"""Load GPT-2's published weights, under the names of chapter 5 and of the book's `gpt_download` module."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.assets.known_weights import GPT2_SIZES, gpt2_files, gpt2_size
from scratchlm.book.downloads import errors_of_the_book, progress_in_a_terminal
from scratchlm.checkpoints.tensorflow.bundle import open_bundle
from scratchlm.checkpoints.tensorflow.gpt2_fetching import fetch_gpt2_file
from scratchlm.checkpoints.tensorflow.openai import load_params_into as load_weights_into_gpt
from scratchlm.checkpoints.tensorflow.openai import params_from_bundle
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import read_json

__all__ = ["assign", "download_and_load_gpt2", "load_gpt2_params_from_tf_ckpt", "load_weights_into_gpt"]

SIZES = tuple(size.folder for size in GPT2_SIZES)


def assign(left: Tensor, right: Any) -> nn.Parameter:
    """Make a parameter with the values of `right`, which must have the shape of `left`.

    Raises: CheckpointError (a ValueError, as in the book) when the shapes differ.
    """
    values = right.detach().clone() if isinstance(right, Tensor) else torch.tensor(right)
    if left.shape != values.shape:
        raise CheckpointError(
            f"values of shape {tuple(values.shape)} do not fit a parameter of shape {tuple(left.shape)}; "
            "build the model with the config of these weights."
        )
    return nn.Parameter(values)


def load_gpt2_params_from_tf_ckpt(ckpt_path: str | Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arrays of a TensorFlow checkpoint, without TensorFlow, into the book's nested dictionary.

    ckpt_path: the common prefix of the files, such as `gpt2/124M/model.ckpt`.
    Raises: CheckpointError for files that are missing or damaged; ConfigError for settings without n_layer.
    """
    n_layers = settings.get("n_layer")
    if type(n_layers) is not int:
        raise ConfigError(
            f"settings must hold n_layer as an integer, got {n_layers!r}; read them from hparams.json."
        )
    return params_from_bundle(open_bundle(ckpt_path), n_layers)


def download_and_load_gpt2(model_size: str, models_dir: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load GPT-2's settings and weights as OpenAI published them, from `models_dir/model_size`.

    Existing files are checked by sha256 or structure; only missing or damaged ones are downloaded, with progress in a
    terminal. A failed download raises an error, where the book's function prints a message and continues.

    Raises: ConfigError (a ValueError, as in the book) for an unknown size; DownloadError when a download fails;
        CheckpointError for damaged files.
    """
    if model_size not in SIZES:
        raise ConfigError(f"model_size must be one of {', '.join(SIZES)}, got {model_size!r}; choose one.")
    folder = Path(models_dir) / model_size
    for asset in gpt2_files(gpt2_size(model_size), "openai"):
        target = folder / asset.id.rpartition("/")[2]
        with errors_of_the_book():
            fetch_gpt2_file(asset, target=target, progress=progress_in_a_terminal(asset.id))
    settings = read_json(folder / "hparams.json", error=CheckpointError)
    if not isinstance(settings, dict) or type(settings.get("n_layer")) is not int:
        raise CheckpointError(
            f"{folder / 'hparams.json'} must hold n_layer, got {settings!r}; delete it to fetch it again."
        )
    return settings, load_gpt2_params_from_tf_ckpt(folder / "model.ckpt", settings)
