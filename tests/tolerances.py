"""How far two computations of the same numbers may lie apart: derived from the arithmetic, never from one machine.

Processors add a sum in different orders, join a product and an addition, and round an exponential their own way.
Each rounding is off by at most half of eps, relative to the numbers at hand, and about as often up as down: after n
of them the error is below LAMBDA sqrt(n) eps / 2 of their size, but for 2 exp(-LAMBDA^2 / 2) of all
cases, here one in 130,000. Two computations lie at most twice as far apart.

Source: Higham and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis", theorem 2.4.
"""

import math

import torch
from torch import Tensor

from scratchlm.model import GPTConfig

LAMBDA = 6.0
SUMS_PER_BLOCK = (
    8  # one after the other: norm, queries and keys, scores, softmax, values, output, two of the MLP
)


def rounding(scale: float, *, n: int, condition: float = 1.0, dtype: torch.dtype = torch.float32) -> float:
    """The largest difference that rounding explains.

    scale: the size of the numbers, results and what they are made of; n: roundings that follow each other, the terms
    of a sum included; condition: by how much a relative error of what goes in may grow in what comes out.
    """
    return LAMBDA * math.sqrt(n) * torch.finfo(dtype).eps * scale * condition


def n_roundings(config: GPTConfig) -> int:
    """From ids to logits: the terms of every sum on the way, one after the other."""
    block = (
        5 * config.emb_dim  # two norms, queries, output, the feed-forward network's first layer
        + config.head_dim  # scores
        + 2 * config.context_length  # softmax, weighted values
        + config.feed_forward_dim  # its second layer
    )
    return config.n_layers * block + 2 * config.emb_dim  # the last norm and the head


def assert_same_logits(found: Tensor, expected: Tensor, config: GPTConfig) -> None:
    """Both are what this model makes of the same ids, up to rounding."""
    scale = max(1.0, expected.abs().max().item())  # 1: what a norm gives the sums before the head
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding(scale, n=n_roundings(config)))
