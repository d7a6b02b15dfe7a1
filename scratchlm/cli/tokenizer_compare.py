"""`scratchlm tokenizer compare`: split the same text with several tokenizers."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.streams import read_text
from scratchlm.cli.tokenizer_encode import tokenizer_named
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.tokenizers.measures import tokenizer_measures
from scratchlm.tokenizers.word import LosslessWordTokenizer, WordTokenizer, build_vocab

WORD_KINDS = ("word", "lossless-word")
MAX_SHOWN = 200  # maximum number of tokens of a text; --json has all
NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
DEFAULT = (*WORD_KINDS, "gpt2")


@dataclass(frozen=True, kw_only=True)
class TokenizerCompare(Common):
    """Split the same text with several tokenizers and show the tokens of each.

    The vocabulary of a word tokenizer is built from the text itself. Default: word, lossless-word and gpt2.

    Example: scratchlm tokenizer compare "The cat's toys" --tokenizers word runs/quickstart
    """

    text: tyro.conf.Positional[str | None] = None  # the text; "-" reads standard input
    tokenizers: tuple[str, ...] = ()  # word, lossless-word, gpt2, tokenizer.json or .gguf files, models


@command_line(TokenizerCompare)
def main(command: TokenizerCompare, console: Console) -> dict[str, Any]:
    """Split the text and print the tokens; returns the `--json` keys."""
    if command.text is None:
        raise ConfigError("compare needs a text; give it in quotes, or - to read standard input.")
    text = read_text() if command.text == "-" else command.text
    rows = []
    for name in command.tokenizers or DEFAULT:
        try:
            tokenizer = _named(name, text)
        except DataError as missing:
            if name in command.tokenizers:
                raise
            console.print(f"without {name}: {missing}")  # only one of the defaults
            continue
        ids = tokenizer.encode(text)
        row: dict[str, Any] = {
            "tokenizer": name,
            "vocab_size": tokenizer.vocab_size,
            **asdict(tokenizer_measures(tokenizer, text, ids=ids)),
            "tokens": [tokenizer.decode([token_id]) for token_id in ids],
            "round_trip": tokenizer.decode(ids) == text,
        }
        rows.append(row)
        kept = "lossless" if row["round_trip"] else "lossy (decoding does not restore the text)"
        size = "" if row["bytes_per_token"] is None else f"{row['bytes_per_token']:.2f} bytes each, "
        print(f"{name}: {len(ids):,} tokens, {size}{kept}")
        print(f"  {_figures(row)}")
        print(f"  {_pieces(row['tokens'])}")
    return {"text": text, "tokenizers": rows}


def _figures(row: dict[str, Any]) -> str:
    used = f"{row['n_used']:,} of {row['vocab_size']:,} entries used"
    if row["fertility"] is None:
        return used
    kept = f"{row['words_kept']:.1%} of words and {row['characters_kept']:.1%} of characters kept"
    return f"{row['fertility']:.2f} tokens per word, {kept}, {used}"


def _pieces(tokens: Sequence[str]) -> str:
    """The tokens in one line, with control characters escaped; for a long text only the first ones."""
    shown = "|".join(NOT_IN_A_LINE.sub(_escaped, token) for token in tokens[:MAX_SHOWN])
    left = len(tokens) - MAX_SHOWN
    return f"{shown}| ... and {left:,} more" if left > 0 else shown


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()


def _named(name: str, text: str) -> Tokenizer:
    if name not in WORD_KINDS:
        return tokenizer_named(name)
    vocab = build_vocab(text, special_tokens=("<|endoftext|>", "<|unk|>"))
    return WordTokenizer(vocab) if name == "word" else LosslessWordTokenizer.from_text(text)
