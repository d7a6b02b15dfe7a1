"""`scratchlm tokenizer encode`: show the tokens of a text and their ids; also load a tokenizer by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from scratchlm.assets.registry import asset_path
from scratchlm.checkpoints.gguf.gguf_file import GGUFFile
from scratchlm.checkpoints.gguf.tokenizer import tokenizer_from_settings
from scratchlm.checkpoints.store import resolve_model
from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.streams import read_text
from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.tokenizers.files import has_tokenizer, load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerEncode(Common):
    """Show a text's tokens and their ids.

    Example: scratchlm tokenizer encode --tokenizer gpt2 "Hello, do you like tea?"
    """

    text: tyro.conf.Positional[str | None] = None  # the text; "-" reads standard input
    tokenizer: str = "gpt2"  # gpt2, a tokenizer.json, a model folder, or a .gguf file
    allow_special: bool = False  # encode special tokens that appear in the text as their ids


@command_line(TokenizerEncode)
def main(command: TokenizerEncode, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Encode the text and print the tokens; returns the `--json` keys."""
    if command.text is None:
        raise ConfigError("encode needs a text; give it in quotes, or - to read standard input.")
    tokenizer = tokenizer_named(command.tokenizer)
    text = read_text() if command.text == "-" else command.text
    allowed = tuple(tokenizer.special_tokens) if command.allow_special else ()
    ids = tokenizer.encode(text, allowed_special=allowed)
    tokens = [tokenizer.decode([token_id]) for token_id in ids]
    print(" ".join(map(str, ids)))
    print(" ".join(map(repr, tokens)))
    return {"ids": ids, "tokens": tokens}


def tokenizer_named(name: str) -> Tokenizer:
    """Load `gpt2`, a tokenizer.json, or the tokenizer of a model folder, a run folder or a GGUF file.

    Raises: DataError when GPT-2's files are missing; TokenizerError and CheckpointError for damaged files.
    """
    if name == "gpt2":
        return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))
    path = Path(name)
    if path.suffix == ".gguf":
        return tokenizer_from_settings(GGUFFile(path).metadata, where=name)
    if path.is_dir():
        return load_tokenizer(path if has_tokenizer(path) else resolve_model(path) / "tokenizer.json")
    return load_tokenizer(path)
