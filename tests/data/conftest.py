"""A tokenizer that anybody can check by eye: one id per byte, 256 for end-of-text."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest


class ByteTokenizer:
    vocab_size = 257
    end_of_text_id: int | None = 256
    special_tokens = {"<|endoftext|>": 256}
    fingerprint = "bytes-1"

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        if "<|endoftext|>" in allowed_special and "<|endoftext|>" in text:
            before, _, after = text.partition("<|endoftext|>")
            return [*before.encode(), 256, *self.encode(after, allowed_special=allowed_special)]
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def save(self, path: str | Path) -> None:
        Path(path).write_text('{"kind": "bytes"}')


@pytest.fixture(scope="session")
def byte_tokenizer() -> ByteTokenizer:
    return ByteTokenizer()
