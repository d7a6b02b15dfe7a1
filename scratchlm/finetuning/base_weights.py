"""Which base an adapter belongs to: a fingerprint of the weights under the corrections."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.fingerprint import weights_fingerprint
from scratchlm.checkpoints.store import own_weights
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import read_json, write_json
from scratchlm.finetuning.lora import LinearWithLoRA

BASE_FILE = "base.json"  # in an adapter's folder; other programs leave it alone
_KEY = "weights_sha256"


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights by their usual names, as if it had no corrections; a shared one appears once.

    Raises: ConfigError while a correction is merged into its weight.
    """
    corrected = {name: m for name, m in model.named_modules() if isinstance(m, LinearWithLoRA)}
    merged = [name for name, layer in corrected.items() if layer.is_merged]
    if merged:
        raise ConfigError(
            f"the base's weights can be read while no correction is merged, found {merged[0]} merged; call "
            "unmerge first."
        )
    weights: dict[str, Tensor] = {}
    for name, tensor in own_weights(model).items():
        layer = next((path for path in corrected if name.startswith(f"{path}.")), None)
        if layer is None:
            weights[name] = tensor
        elif name.startswith(f"{layer}.linear."):
            weights[f"{layer}.{name.removeprefix(f'{layer}.linear.')}"] = tensor
    embedding, head = weights.get("tok_emb.weight"), weights.get("out_head.weight")
    if embedding is not None and head is not None and torch.equal(embedding, head):
        del weights["out_head.weight"]  # tied, whether as one tensor or as two equal ones
    return weights


def base_fingerprint(model: nn.Module, *, has_head: bool = True) -> str:
    """Hex sha256 of a model's weights without its corrections: the same for the same numbers, whatever file they
    came from. Without the head, which a classifier replaces, when has_head is False.

    Raises: ConfigError while a correction is merged.
    """
    weights = base_weights(model)
    return weights_fingerprint(
        {name: tensor for name, tensor in weights.items() if has_head or not name.startswith("out_head.")}
    )


def save_base(folder: Path, model: nn.Module, *, has_head: bool = True) -> None:
    """Note in an adapter's folder which base it was trained on."""
    noted = {_KEY: base_fingerprint(model, has_head=has_head)}
    write_json(folder / BASE_FILE, noted, error=CheckpointError)


def check_base(folder: Path, model: nn.Module, *, has_head: bool = True) -> None:
    """Refuse an adapter that was trained on other weights; one that does not say, as peft's, is believed.

    Raises: CheckpointError for another base, or a damaged note about it.
    """
    if not (folder / BASE_FILE).exists():
        return
    noted = read_json(folder / BASE_FILE, error=CheckpointError)
    expected = noted.get(_KEY) if isinstance(noted, dict) else None
    if not isinstance(expected, str):
        raise CheckpointError(f"{folder / BASE_FILE} must hold {_KEY}, found none; take the adapter anew.")
    found = base_fingerprint(model, has_head=has_head)
    if found != expected:
        raise CheckpointError(
            f"{folder} corrects a base of weights {expected[:12]}..., found a model of weights {found[:12]}...; load "
            "the base that the adapter was trained on."
        )
