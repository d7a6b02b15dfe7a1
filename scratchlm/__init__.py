"""A GPT language model built from scratch: train, fine-tune, generate, evaluate.

    import scratchlm
    lm = scratchlm.load("runs/quickstart")
    lm.generate("Once upon a time", max_new_tokens=40, temperature=0.8, seed=1)

Importing this package alone does not import torch; the names below are loaded on first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scratchlm.serving.language_model import LanguageModel, load
    from scratchlm.tokenizers.bpe import BPETokenizer

__version__ = "0.1.0"
__all__ = ["LanguageModel", "__version__", "gpt2_tokenizer", "load"]

_LAZY = {"load": "scratchlm.serving.language_model", "LanguageModel": "scratchlm.serving.language_model"}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _LAZY:
        raise AttributeError(f"module 'scratchlm' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def gpt2_tokenizer(folder: str | Path | None = None) -> BPETokenizer:
    """GPT-2's tokenizer, from a folder with `encoder.json` and `vocab.bpe`, or from the downloaded assets.

    Raises: DataError when the files are missing, with the command that downloads them; TokenizerError when they
    are damaged.
    """
    from scratchlm.assets.registry import asset_path
    from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

    if folder is not None:
        return load_gpt2_tokenizer(Path(folder) / "encoder.json", Path(folder) / "vocab.bpe")
    return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))
