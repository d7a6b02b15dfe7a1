"""GPT-2's published weights under the names of chapter 5 and of the book's `gpt_download` module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.core.assets import ASSETS
from scratchlm.core.download import download
from scratchlm.core.errors import CheckpointError


def assign(left: Tensor, right: Any) -> nn.Parameter:
    """A new parameter with the values of `right`, which must have the shape of `left`.

    Raises: CheckpointError (a ValueError, as in the book) when the shapes differ.
    """
    values = right.detach().clone() if isinstance(right, Tensor) else torch.tensor(right)
    if left.shape != values.shape:
        raise CheckpointError(
            f"the parameter has shape {tuple(left.shape)}, found values of shape {tuple(values.shape)}; "
            "build the model with the config that the weights are for."
        )
    return nn.Parameter(values)


def download_file(url: str, destination: str | Path, backup_url: str | None = None) -> None:
    """Fetch a file from its address, or from the backup's.

    The file appears whole or not at all, and a failure is an error, where the book's prints and carries on. An
    address of one of our assets comes with its sha256: then a file that is right already is left as it is
    without asking the server, and a wrong one is replaced.

    Raises: DownloadError when no address delivers.
    """
    known = next((asset for asset in ASSETS if url in asset.urls and asset.archive is None), None)
    urls = [url] if backup_url is None else [url, backup_url]
    if known is None:
        download(urls, destination)
    else:
        download(urls, destination, sha256=known.sha256, size_bytes=known.size_bytes)
