"""Load GPT-2's tokenizer from the two files that OpenAI published."""

import io
from pathlib import Path
from typing import Literal

from scratchlm.core.errors import TokenizerError
from scratchlm.core.files import MAX_SETTINGS_BYTES, read_json, read_utf8
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.byte_symbols import from_symbols
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.special_tokens import END_OF_TEXT


def load_gpt2_tokenizer(
    encoder_json: str | Path, vocab_bpe: str | Path, *, engine: Literal["python", "tiktoken"] = "python"
) -> BPETokenizer:
    """GPT-2's 50,257 tokens: 256 bytes, 50,000 merges and <|endoftext|>.

    encoder_json: every token's id; other programs call the file `vocab.json`.
    vocab_bpe: the merges in order; other programs call the file `merges.txt`.
    Raises: TokenizerError naming file and place when one is missing or damaged, or they do not belong together.
    Source: OpenAI's GPT-2 release; ids equal tiktoken's "gpt2".
    """
    found = read_json(Path(encoder_json), max_bytes=MAX_SETTINGS_BYTES, error=TokenizerError)
    if not isinstance(found, dict):
        raise TokenizerError(
            f"{encoder_json} must map tokens to ids, got a {type(found).__name__}; fetch it again."
        )
    vocab = {from_symbols(symbols, where=str(encoder_json)): id_ for symbols, id_ in found.items()}
    end_of_text = END_OF_TEXT.encode()
    special_tokens = {END_OF_TEXT: vocab.pop(end_of_text)} if end_of_text in vocab else {}
    merges = read_merges(Path(vocab_bpe), limit=len(vocab))
    if len(vocab) != 256 + len(merges):
        raise TokenizerError(
            f"{encoder_json} and {vocab_bpe} do not belong together: {len(merges)} merges and 256 bytes make "
            f"{256 + len(merges)} tokens, but the vocabulary has {len(vocab)}; one is truncated: fetch both again."
        )
    try:
        return BPETokenizer(merges, vocab=vocab, special_tokens=special_tokens, engine=engine)
    except TokenizerError as cause:
        raise TokenizerError(f"{encoder_json}, {vocab_bpe}: {cause}") from cause


def read_merges(path: Path, *, limit: int) -> list[Merge]:
    """Read merges, one per line as `Ġ t`, after an optional `#version` line.

    limit: number of merges after which reading stops.
    Raises: TokenizerError naming the line that does not hold two tokens.
    """
    merges: list[Merge] = []
    text = read_utf8(path, max_bytes=MAX_SETTINGS_BYTES, error=TokenizerError)
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        line = line.removesuffix("\n")
        if len(merges) == limit:
            break
        if (number == 1 and line.startswith("#version")) or not line.strip():
            continue
        where = f"{path}, line {number},"
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2 or not all(parts):
            raise TokenizerError(
                f"{where} must hold two tokens separated by one space, got {line!r}; fetch the file again."
            )
        merges.append((from_symbols(parts[0], where=where), from_symbols(parts[1], where=where)))
    return merges
