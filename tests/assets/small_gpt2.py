"""GPT-2's published files, but small, and a table of weights that promises what they hold."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import pytest

from scratchlm.assets import fetch, known_weights, registry
from scratchlm.assets.download import Patience, download
from scratchlm.assets.known_datasets import Asset

ONE_ATTEMPT = Patience(attempts=1)
PLAIN_FILES = {  # beside the weights and the settings
    "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
    "encoder.json": b'{"!": 0}',
    "model.ckpt.meta": b"\n\x05graph",
    "vocab.bpe": b"#version: 0.2\n",
}


def table_of(
    content: Callable[[str], bytes],
    *,
    url: Callable[[str], str] = lambda asset_id: "http://127.0.0.1:9/nothing",
) -> tuple[Asset, ...]:
    """The table of weights, promising what `content` gives for each id, at these addresses."""
    return tuple(
        dataclasses.replace(
            asset,
            urls=(url(asset.id),),
            size_bytes=asset.size_bytes and len(content(asset.id)),
            sha256=asset.sha256 and hashlib.sha256(content(asset.id)).hexdigest(),
        )
        for asset in known_weights.GPT2_ASSETS
    )


def promise(
    monkeypatch: pytest.MonkeyPatch, table: tuple[Asset, ...], *, patience: Patience = ONE_ATTEMPT
) -> None:
    """Make this the table of weights."""
    for module in (registry, known_weights):
        monkeypatch.setattr(module, "GPT2_ASSETS", table)
    monkeypatch.setattr(fetch, "download", functools.partial(download, patience=patience))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
