"""A model as the page shows it: its parts, their shapes, and the distribution of their weights."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.core.config import to_dict
from scratchlm.model.gpt import GPTModel
from scratchlm.model.linear import PackedWeight, stored_weight

N_BINS = 41  # of a histogram
REACH = 4  # standard deviations on each side of the mean that a histogram covers; the outermost bins hold the rest


def describe_parts(model: GPTModel) -> dict[str, Any]:
    """The configuration and the parts of a model; tied weights count where they occur first."""
    parts: dict[str, dict[str, Any]] = {}
    for part, name, tensor in _weights(model):
        one = parts.setdefault(part, {"name": part, "n_parameters": 0, "tensors": []})
        one["tensors"].append(_plain(name, tensor))
        one["n_parameters"] += tensor.numel()
    return {
        "config": to_dict(model.config),
        "n_parameters": model.n_parameters(),
        "parts": list(parts.values()),
    }


def weight_histograms(model: GPTModel, part: str) -> dict[str, Any]:
    """The tensors of one part with their means, standard deviations and histograms."""
    tensors: list[dict[str, Any]] = []
    for owner, name, tensor in _weights(model):
        if owner == part:
            values = tensor.detach().float().flatten()
            mean, std = values.mean().item(), values.std(correction=0).item()
            reach = REACH * std or 1.0
            bins = ((values - mean + reach) / (2 * reach) * N_BINS).long().clamp(0, N_BINS - 1)
            counts: list[int] = torch.bincount(bins, minlength=N_BINS).tolist()
            ends = {"low": mean - reach, "high": mean + reach}
            tensors.append({**_plain(name, tensor), "mean": mean, "std": std, **ends, "counts": counts})
    return {"name": part, "n_parameters": sum(one["n_parameters"] for one in tensors), "tensors": tensors}


def _plain(name: str, tensor: Tensor) -> dict[str, Any]:
    return {"name": name, "shape": list(tensor.shape), "n_parameters": tensor.numel()}


def _weights(model: GPTModel) -> Iterator[tuple[str, str, Tensor]]:
    """Part, name within it, and values of every tensor of weights; quantized ones as the numbers they stand for."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, stored, tensor in _own_weights(module):
            if id(stored) in seen:
                continue
            seen.add(id(stored))
            words = [*path.split("."), name]
            depth = 2 if words[0] == "trf_blocks" else 1
            yield ".".join(words[:depth]), ".".join(words[depth:]), tensor


def _own_weights(module: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, what the model keeps and shares, and the values."""
    if isinstance(module, PackedWeight):
        yield "weight", next(iter(stored_weight(module).values())), module.dense_weight()
    for name, parameter in module.named_parameters(recurse=False):
        yield name, parameter, parameter
