"""Chapter 2, working with text: tokenizers, and the loader that cuts text into training examples.

`SimpleTokenizerV1` and `SimpleTokenizerV2` are our word tokenizers. An unknown word is a KeyError as in the
book, one that says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scratchlm.assets.registry import asset_path
from scratchlm.book.bpe import BPETokenizerSimple
from scratchlm.data.windows import TokenWindows
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT
from scratchlm.tokenizers.word import StrictWordTokenizer as SimpleTokenizerV1
from scratchlm.tokenizers.word import WordTokenizer as SimpleTokenizerV2

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

__all__ = [
    "BPETokenizerSimple",
    "GPTDatasetV1",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "create_dataloader_v1",
]


class GPTDatasetV1(Dataset[tuple[Tensor, Tensor]]):
    """Training examples out of one text: windows of `max_length` ids, and the same one id later.

    `TokenWindows` as a torch Dataset. A text shorter than a window is our DataError (also a ValueError), where
    the book's notebook fails an assertion.
    """

    def __init__(self, txt: str, tokenizer: Tokenizer, max_length: int, stride: int) -> None:
        self.tokenizer = tokenizer
        ids = tokenizer.encode(txt, allowed_special={END_OF_TEXT})
        self.windows = TokenWindows(ids, context_length=max_length, stride=stride)

    @property
    def input_ids(self) -> list[Tensor]:
        """What the model reads, one tensor for each example."""
        return [self.windows[i][0] for i in range(len(self))]

    @property
    def target_ids(self) -> list[Tensor]:
        """What the model should predict, one tensor for each example."""
        return [self.windows[i][1] for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, idx: int) -> tuple[Tensor, Tensor]:
        return self.windows[idx]


def create_dataloader_v1(
    txt: str,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of GPT-2 ids. It shuffles with torch's global random numbers, as the book's figures need.

    Raises: DataError when GPT-2's two tokenizer files are not on this machine (the message has the command
        that fetches them), or for a text shorter than a window.
    """
    tokenizer = load_gpt2_tokenizer(
        asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"), engine="tiktoken"
    )
    return DataLoader(
        GPTDatasetV1(txt, tokenizer, max_length, stride),
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
    )
