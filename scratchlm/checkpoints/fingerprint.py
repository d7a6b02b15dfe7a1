"""Compute a hash that identifies a set of weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Hex sha256 of names, dtypes, shapes and values; equal weights give the same hash in any file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()
