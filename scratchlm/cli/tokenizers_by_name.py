"""How the tokenizer commands find a tokenizer: by name, by file, or inside a model folder."""

from __future__ import annotations

from pathlib import Path

from scratchlm.assets.registry import asset_path
from scratchlm.checkpoints.gguf.reader import GGUFFile
from scratchlm.checkpoints.gguf.tokenizer import tokenizer_from_settings
from scratchlm.checkpoints.store import resolve_model
from scratchlm.core.protocols import Tokenizer
from scratchlm.tokenizers.files import has_tokenizer, load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer


def tokenizer_named(name: str) -> Tokenizer:
    """`gpt2`, a tokenizer.json, or the tokenizer of a model folder, a run folder or a GGUF file.

    Raises: DataError when GPT-2's files are not here; TokenizerError, CheckpointError for anything else wrong.
    """
    if name == "gpt2":
        return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))
    path = Path(name)
    if path.suffix == ".gguf":
        return tokenizer_from_settings(GGUFFile(path).metadata, where=name)
    if path.is_dir():
        return load_tokenizer(path if has_tokenizer(path) else resolve_model(path) / "tokenizer.json")
    return load_tokenizer(path)
