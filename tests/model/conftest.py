"""A model small enough for every property to be checked in milliseconds."""

from __future__ import annotations

import pytest
import torch

from scratchlm.core import seed
from scratchlm.model import GPTConfig, GPTModel


@pytest.fixture
def tiny_config() -> GPTConfig:
    return GPTConfig(
        vocab_size=61, context_length=12, emb_dim=16, n_heads=4, n_layers=2, drop_rate=0.1, qkv_bias=True
    )


@pytest.fixture
def tiny_model(tiny_config: GPTConfig) -> GPTModel:
    """In evaluation mode, with torch's initialisation, whose logits differ clearly from token to token."""
    torch.manual_seed(0)
    return GPTModel(tiny_config).eval()


@pytest.fixture
def generator() -> torch.Generator:
    return seed.generator(0)
