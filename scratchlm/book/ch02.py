"""Chapter 2, working with text: tokenizers, and the loader that splits text into training examples.

`SimpleTokenizerV1` and `SimpleTokenizerV2` are the package's word tokenizers. An unknown word is a KeyError, as in the
book.
"""

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scratchlm.assets.registry import asset_path
from scratchlm.book.bpe import BPETokenizerSimple
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.windows import TokenWindows
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT
from scratchlm.tokenizers.word import StrictWordTokenizer as SimpleTokenizerV1
from scratchlm.tokenizers.word import WordTokenizer as SimpleTokenizerV2

__all__ = [
    "BPETokenizerSimple",
    "GPTDatasetV1",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "create_dataloader_v1",
]


class GPTDatasetV1(Dataset[tuple[Tensor, Tensor]]):
    """Training examples from one text: windows of `max_length` ids, and targets shifted by one id.

    A text shorter than a window raises DataError (also a ValueError), where the book's notebook fails an assertion.
    """

    def __init__(self, txt: str, tokenizer: Tokenizer, max_length: int, stride: int) -> None:
        self.tokenizer = tokenizer
        ids = tokenizer.encode(txt, allowed_special={END_OF_TEXT})
        self.windows = TokenWindows(ids, context_length=max_length, stride=stride)

    @property
    def input_ids(self) -> list[Tensor]:
        """The input ids of each example."""
        return [self.windows[i][0] for i in range(len(self))]

    @property
    def target_ids(self) -> list[Tensor]:
        """The target ids of each example."""
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
    """Load batches of GPT-2 ids, shuffled with torch's global random generator as in the book.

    Raises: DataError when GPT-2's two tokenizer files are not on this machine, with the command that fetches them, or
        for a text shorter than a window.
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
