"""Chapter 7, fine-tuning to follow instructions: data set, padded batches, and scores from a judge model.

The functions of its bonus notebook on preference tuning are here too, except for `custom_collate_fn`, a name that the
chapter uses itself: that one is in `scratchlm.book.dpo`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scratchlm.book.alpaca import END_OF_TEXT_ID, as_instruction, encode_plain, format_input
from scratchlm.book.downloads import download_file
from scratchlm.book.dpo import (
    PreferenceDataset,
    compute_dpo_loss,
    compute_dpo_loss_batch,
    compute_dpo_loss_loader,
    compute_logprobs,
    evaluate_dpo_loss_loader,
    train_model_dpo_simple,
)
from scratchlm.book.ollama import check_if_running, generate_model_scores, query_model
from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import read_json
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.packing import pad_right
from scratchlm.data.prompt_templates import TEMPLATES
from scratchlm.generation.speculative import n_common

__all__ = [
    "InstructionDataset",
    "PreferenceDataset",
    "check_if_running",
    "compute_dpo_loss",
    "compute_dpo_loss_batch",
    "compute_dpo_loss_loader",
    "compute_logprobs",
    "custom_collate_draft_1",
    "custom_collate_draft_2",
    "custom_collate_fn",
    "download_and_load_file",
    "evaluate_dpo_loss_loader",
    "format_input",
    "generate_model_scores",
    "query_model",
    "train_model_dpo_simple",
]

Row: TypeAlias = "Sequence[int]"
RowWithPrompt: TypeAlias = "tuple[int, Sequence[int]]"  # number of prompt ids, all ids


def download_and_load_file(file_path: str | Path, url: str) -> Any:
    """Read a JSON file, downloading it first if it is missing; `file:` addresses work too.

    Raises: DownloadError when the download fails; DataError for invalid JSON.
    """
    path = Path(file_path)
    if not path.exists():
        download_file(url, path)
    return read_json(path, max_bytes=None)


class InstructionDataset(Dataset[Any]):
    """Entries as ids: the prompt with its `### Response:` line, and the answer.

    `mask_instruction=True` gives pairs instead, the number of prompt ids and all ids, for
    `custom_collate_fn(mask_instruction=True)`. Special tokens in the text are encoded as ordinary text, where the
    book's class fails, even if the tokenizer is a tiktoken encoding.
    """

    def __init__(
        self, data: Sequence[Mapping[str, str]], tokenizer: Tokenizer, *, mask_instruction: bool = False
    ) -> None:
        self.data = data
        self.mask_instruction = mask_instruction
        alpaca = TEMPLATES["alpaca"]
        entries = [as_instruction(entry) for entry in data]
        self.encoded_texts = [encode_plain(tokenizer, alpaca.full(entry)) for entry in entries]
        self.n_prompt_ids = [
            # An id that spans both prompt and answer belongs to the answer.
            n_common(encode_plain(tokenizer, alpaca.prompt(entry)), ids)
            for entry, ids in zip(entries if mask_instruction else [], self.encoded_texts)
        ]

    def __len__(self) -> int:
        return len(self.encoded_texts)

    def __getitem__(self, index: int) -> list[int] | tuple[int, list[int]]:
        ids = self.encoded_texts[index]
        return (self.n_prompt_ids[index], ids) if self.mask_instruction else ids


def custom_collate_draft_1(
    batch: Sequence[Row], pad_token_id: int = END_OF_TEXT_ID, device: torch.device | str = "cpu"
) -> Tensor:
    """The chapter's first draft: pad rows to the longest.

    Shapes: -> (B, T).
    """
    padded, _ = pad_right([_row(ids) for ids in batch], value=pad_token_id)
    return padded.to(device)


def custom_collate_draft_2(
    batch: Sequence[Row], pad_token_id: int = END_OF_TEXT_ID, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The second draft: also targets, shifted by one id, with all padding as targets.

    Shapes: -> inputs (B, T), targets (B, T).
    """
    targets, _ = pad_right([_row([*ids[1:], pad_token_id]) for ids in batch], value=pad_token_id)
    return custom_collate_draft_1(batch, pad_token_id, device), targets.to(device)


def custom_collate_fn(
    batch: Sequence[Row] | Sequence[RowWithPrompt],
    pad_token_id: int = END_OF_TEXT_ID,
    ignore_index: int = IGNORE_INDEX,
    allowed_max_length: int | None = None,
    device: torch.device | str = "cpu",
    *,
    mask_instruction: bool = False,
) -> tuple[Tensor, Tensor]:
    """Pad a batch and make its targets: the end-of-text after each row is one, the padding after it is not.

    The instruction is a target too, as in the book. `mask_instruction=True` excludes the whole prompt; the book's
    exercise 7.2 keeps the `### Response:` line. An end-of-text inside a row stays a target, where the book masks all
    but the first. A row truncated to `allowed_max_length` may lose its end-of-text.

    Shapes: -> inputs (B, T), targets (B, T).
    Raises: ConfigError when rows and `mask_instruction` do not match, or for an allowed_max_length below 1.
    """
    if allowed_max_length is not None and allowed_max_length < 1:
        raise ConfigError(
            f"allowed_max_length must be at least 1, got {allowed_max_length}; None truncates nothing."
        )
    if any(_is_pair(item) is not mask_instruction for item in batch):
        raise ConfigError(
            f"mask_instruction={mask_instruction} does not match the data set, whose rows come "
            f"{'without' if mask_instruction else 'with'} the length of their prompt; set it for both or neither."
        )
    if mask_instruction:
        pairs = cast("Sequence[RowWithPrompt]", batch)
    else:
        pairs = [(0, ids) for ids in cast("Sequence[Row]", batch)]
    shifted = [_row([*ids[1:], pad_token_id]) for _, ids in pairs]
    for (n_prompt, _), row in zip(pairs, shifted):
        row[: max(n_prompt - 1, 0)] = ignore_index  # the prompt's last id already predicts the answer
    inputs, _ = pad_right([_row(ids) for _, ids in pairs], value=pad_token_id)  # (B, T)
    targets, _ = pad_right(shifted, value=ignore_index)  # (B, T)
    return inputs[:, :allowed_max_length].to(device), targets[:, :allowed_max_length].to(device)


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and not isinstance(item[1], int)


def _row(ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(ids, dtype=np.int64)
