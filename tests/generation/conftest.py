"""Models and a tokenizer that are small enough to know beforehand what they must write."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from scratchlm.model import GPTConfig, GPTModel

N_COUNT = 32  # vocabulary of the counting model


@pytest.fixture
def tiny_config() -> GPTConfig:
    return GPTConfig(vocab_size=61, context_length=12, emb_dim=16, n_heads=4, n_layers=2, drop_rate=0.5)


@pytest.fixture
def tiny_model(tiny_config: GPTConfig) -> GPTModel:
    """In training mode with much dropout: generation must not notice."""
    torch.manual_seed(0)
    return GPTModel(tiny_config).train()


@pytest.fixture
def counting_model() -> GPTModel:
    """Writes the number after the last one: 5 is followed by 6, 7, 8 ... and 31 by 0."""
    model = GPTModel(GPTConfig(vocab_size=N_COUNT, context_length=64, emb_dim=N_COUNT, n_heads=1, n_layers=1))
    with torch.no_grad():
        model.tok_emb.weight.copy_(torch.eye(N_COUNT))
        model.pos_emb.weight.zero_()
        for layer in (model.trf_blocks[0].att.out_proj, model.trf_blocks[0].ff.layers[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        model.out_head.weight.copy_(torch.eye(N_COUNT).roll(1, dims=0))
    return model.eval()


class PieceTokenizer:
    """A tokenizer whose ids stand for given bytes; it has no stream decoder of its own."""

    end_of_text_id = None
    special_tokens: dict[str, int] = {}
    fingerprint = "pieces"

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = list(pieces)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        return [self.pieces.index(letter.encode()) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", errors="replace")

    def save(self, path: str | Path) -> None:
        raise NotImplementedError


class StreamingPieceTokenizer(PieceTokenizer):
    """The same with a stream decoder of its own."""

    def stream_decoder(self) -> PieceStream:
        return PieceStream(self.pieces)


class PieceStream:
    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self.decoder.decode(self.pieces[token_id])

    def flush(self) -> str:
        return self.decoder.decode(b"", final=True)


@pytest.fixture(params=[PieceTokenizer, StreamingPieceTokenizer], ids=["plain", "streaming"])
def make_tokenizer(request: pytest.FixtureRequest) -> type[PieceTokenizer]:
    """A tokenizer class; give it the pieces that ids 0, 1, 2 ... of the counting model stand for."""
    return request.param
