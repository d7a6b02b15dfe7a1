"""Load a tokenizer from any file or folder that holds one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.core.files import MAX_TOKENIZER_BYTES, read_json
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.huggingface_json import BPEParts, bpe_from_json, words_from_json
from scratchlm.tokenizers.nanogpt_meta import characters_of_nanogpt
from scratchlm.tokenizers.vocab_and_merges import MERGES_FILE, VOCAB_FILE, read_vocab_and_merges
from scratchlm.tokenizers.word import LosslessWordTokenizer, StrictWordTokenizer, WordTokenizer

Engine = Literal["python", "tiktoken"]
WordTokenizers = StrictWordTokenizer | WordTokenizer | LosslessWordTokenizer
_WORD_CLASSES = {kind.__name__: kind for kind in (StrictWordTokenizer, WordTokenizer, LosslessWordTokenizer)}
_HUGGING_FACE_PAIR, _OPENAI_PAIR = (VOCAB_FILE, MERGES_FILE), ("encoder.json", "vocab.bpe")


def load_tokenizer(path: str | Path, *, engine: Engine = "python") -> BPETokenizer | WordTokenizers:
    """Load the tokenizer of a `tokenizer.json`, a folder or a `meta.pkl`.

    Reads what this package saves, byte-level BPE of Hugging Face with equal ids (`tokenizer.json`, or a folder with
    `vocab.json` and `merges.txt`), OpenAI's `encoder.json` with `vocab.bpe`, and nanoGPT's `meta.pkl`, whose pickle
    is not executed.
    engine: what runs the merges of BPE; see BPETokenizer.
    Raises: TokenizerError naming the file and the part that is damaged or not supported.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        return characters_of_nanogpt(path)
    if path.is_dir() and not (path / "tokenizer.json").is_file():
        if _has_files(path, _HUGGING_FACE_PAIR):
            return _build(read_vocab_and_merges(path), where=path, engine=engine)
        if _has_files(path, _OPENAI_PAIR):
            return load_gpt2_tokenizer(path / "encoder.json", path / "vocab.bpe", engine=engine)
    if path.is_dir():
        path = path / "tokenizer.json"
    value = read_json(path, max_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError)
    model = value.get("model") if isinstance(value, dict) else None
    if not isinstance(model, dict):
        raise TokenizerError(f"{path} is not a tokenizer.json: it has no model; check the path.")
    kind = model.get("type", "BPE" if "merges" in model else None)  # old files do not name the type
    if kind not in ("BPE", "WordLevel"):
        raise TokenizerError(
            f"{path} must hold a BPE or WordLevel model, got {kind!r}; use the `tokenizers` package for it."
        )
    read = bpe_from_json if kind == "BPE" else words_from_json
    return _build(read(value, where=str(path)), where=path, engine=engine)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds files that `load_tokenizer` can load."""
    return any(_has_files(folder, names) for names in (("tokenizer.json",), _HUGGING_FACE_PAIR, _OPENAI_PAIR))


def _has_files(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _build(
    parts: BPEParts | tuple[str, dict[str, int], dict[str, int]], *, where: Path, engine: Engine
) -> BPETokenizer | WordTokenizers:
    try:
        if not isinstance(parts, BPEParts):
            return _build_words(*parts)
        merges, vocab, added_tokens, variant = parts
        return BPETokenizer(merges, vocab=vocab, added_tokens=added_tokens, variant=variant, engine=engine)
    except ConfigError as cause:
        if engine == "tiktoken":
            raise
        raise TokenizerError(f"{where}: {cause}") from cause
    except TokenizerError as cause:
        raise TokenizerError(f"{where}: {cause}") from cause


def _build_words(class_name: str, vocab: dict[str, int], special_tokens: dict[str, int]) -> WordTokenizers:
    if class_name not in _WORD_CLASSES:
        raise TokenizerError(
            f"a word tokenizer must be one of {', '.join(_WORD_CLASSES)}, got {class_name!r}; "
            "the file comes from another version."
        )
    tokenizer = _WORD_CLASSES[class_name](vocab)
    if tokenizer.special_tokens != special_tokens:
        raise TokenizerError(
            f"added_tokens must be {tokenizer.special_tokens}, got {special_tokens}; the file is damaged."
        )
    return tokenizer
