"""What a user says about text, tokenizer and model size; each resolves to the real thing."""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from scratchlm.assets.known_datasets import DATASETS
from scratchlm.assets.registry import ASSETS, asset_path
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.document_split import Route, SplitBy, survey_sources
from scratchlm.data.row_files import RowSettings
from scratchlm.data.shards import token_folder, tokenizer_of_tokens
from scratchlm.data.sources import find_sources, read_pieces
from scratchlm.model.config import GPTConfig, named_config
from scratchlm.tokenizers.bpe_trainer import check_vocab_size, train_bpe
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, UNKNOWN
from scratchlm.tokenizers.word import LosslessWordTokenizer, WordTokenizer, build_vocab, split_words

TOKENIZER_TEXT_BYTES = 32 << 20  # a vocabulary changes little after so much text
KAGGLE = "kaggle:"  # `kaggle:OWNER/SLUG` is a data set there; never fetched for anybody
LearntKind = Literal["bpe", "word", "lossless-word"]  # words: all there are; lossless: spaces and letters too
SizeName = Literal["tiny", "small", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]


@dataclass(frozen=True, kw_only=True)
class TextSettings(RowSettings):
    """How text files become documents and sides."""

    val_fraction: float = 0.1  # share of the text kept for validation
    split_by: SplitBy = "auto"  # whole documents, or the contiguous tail of one
    stride: int | None = None  # tokens between training windows; None = context_length, so none overlap
    document_separator: str = ""  # what stands between the documents of a plain-text file, e.g. <|endoftext|>
    skip_bad_lines: bool = False  # count and report lines that do not parse, instead of stopping

    def __post_init__(self) -> None:
        check_at_least(1, stride=self.stride)
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(
                f"val_fraction must be at least 0 and below 1, got {self.val_fraction}; 0.1 is usual."
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Which tokenizer a new model gets."""

    # gpt2: OpenAI's; the others are learnt from the training text
    kind: Literal["bpe", "word", "lossless-word", "gpt2"] = "bpe"
    vocab_size: int = 2048  # tokens that a learnt vocabulary may have
    path: str | None = None  # a finished tokenizer.json instead
    special_tokens: tuple[
        str, ...
    ] = ()  # beside end-of-text, for a learnt bpe: role marks of a chat template

    def __post_init__(self) -> None:
        if self.kind == "bpe" and self.path is None:
            check_vocab_size(self.vocab_size, n_special_tokens=1 + len(self.special_tokens))
        if self.special_tokens and (self.kind != "bpe" or self.path is not None):
            raise ConfigError(
                f"special_tokens are for a tokenizer that is learnt as bpe, got {self.special_tokens} for "
                f"{self.path or self.kind!r}; leave them out."
            )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A named size, and what to change in it; the vocabulary size follows the tokenizer."""

    size: SizeName = "tiny"  # every width and depth at once; what follows changes single ones
    context_length: int | None = None  # most tokens the model reads at once
    emb_dim: int | None = None  # width of the residual stream
    n_heads: int | None = None  # attention heads per block; must divide emb_dim
    n_layers: int | None = None  # transformer blocks
    drop_rate: float | None = None  # share of activations that dropout zeroes while training
    qkv_bias: bool | None = None  # a bias on queries, keys and values
    tie_embeddings: bool | None = None  # one matrix reads tokens and predicts them
    init: Literal["torch", "gpt2"] | None = None  # torch's default weights, or GPT-2's
    attention: Literal["sdpa", "manual"] | None = None  # torch's fused attention, or written out
    norm: Literal["layer", "rms"] | None = None  # LayerNorm as GPT-2, or RMSNorm as Llama
    positions: Literal["learned", "rotary"] | None = None  # an added vector as GPT-2, or turning as Llama
    # GPT-2's, with exact GELU, or Llama's
    feed_forward: Literal["gelu", "gelu_exact", "swiglu"] | None = None
    ff_dim: int | None = None  # width inside the feed-forward layer
    n_kv_heads: int | None = None  # heads of keys and values, shared by groups of queries
    qk_norm: bool | None = None  # an RMSNorm on every head's queries and keys, as in Qwen 3
    linear_bias: bool | None = None  # a bias on attention's output and in the feed-forward layer

    def __post_init__(self) -> None:
        self.resolve(vocab_size=1)  # refuses what no model can have, before any text is read

    def resolve(self, *, vocab_size: int) -> GPTConfig:
        """The model config these settings mean.

        Raises: ConfigError for values that do not fit each other.
        """
        changes = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "size"}
        given = {name: value for name, value in changes.items() if value is not None}
        return named_config(self.size, vocab_size=vocab_size, **given)


def resolve_texts(names: Sequence[str], *, kind: str = "text") -> list[str | Path]:
    """Paths as they are; a known asset's id, file name without suffix or folder becomes the path of its copy here.

    `kind` is the folder of small assets to look in: `text`, `sms_spam_collection` or `instruction`. The larger data
    sets are known by id, id without suffix, or folder where that holds one file: `dolly`, `ag_news/train`.
    Raises: DataError for nothing given, and for a known name that is not on this machine yet.
    """
    if not names:
        raise DataError("data is needed, found none named; give files, folders or known names with --data.")
    return [name if Path(name).exists() else _asset_or_path(name, kind) for name in names]


def _asset_or_path(name: str, kind: str) -> str | Path:
    if name.startswith(KAGGLE):
        handle = name.removeprefix(KAGGLE)
        raise DataError(
            f"data must be on this machine, found {name}, which Kaggle gives to its users under its own terms; "
            'fetch it with your account (`pip install kagglehub`, then `python -c "import kagglehub; '
            f"print(kagglehub.dataset_download('{handle}'))\"`), check its licence, and name the folder it prints."
        )
    assets = [asset for asset in ASSETS if asset.id.startswith(f"{kind}/")]
    for asset in assets:
        is_whole_kind = name == kind and len(assets) == 1
        if is_whole_kind or name in (asset.id, Path(asset.id).stem):
            return asset_path(asset.id)
    folders = [asset.id.partition("/")[0] for asset in DATASETS]
    for asset, folder in zip(DATASETS, folders):
        is_whole_folder = name == folder and folders.count(folder) == 1
        if is_whole_folder or name in (asset.id, str(Path(asset.id).with_suffix(""))):
            return asset_path(asset.id)
    return name  # the reader of paths says what is wrong with it


def train_tokenizer(
    settings: TokenizerSettings,
    paths: Sequence[str | Path],
    text: TextSettings,
    *,
    extra_texts: Iterable[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Tokenizer:
    """The tokenizer that the settings ask for; a learnt one sees only the training side of the text.

    `extra_texts` are seen too: what the model will be fine-tuned on, so that its words are no strangers. Token
    shards have a tokenizer already: the one that made them, saved beside them unless `path` names it.
    Raises: TokenizerError, DataError as the readers do.
    """
    if settings.path is not None:
        return load_tokenizer(settings.path)
    if settings.kind == "gpt2":
        return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))
    if (shards := token_folder(paths)) is not None:
        return tokenizer_of_tokens(shards)
    texts = itertools.chain(training_texts(paths, text), extra_texts)
    return learn_tokenizer(
        settings.kind,
        texts,
        vocab_size=settings.vocab_size,
        special_tokens=settings.special_tokens,
        progress=progress,
    )


def learn_tokenizer(
    kind: LearntKind,
    texts: Iterable[str],
    *,
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Tokenizer:
    """A tokenizer of that kind; vocab_size and special_tokens are for BPE, the words are as many as the texts have.

    Raises: ConfigError, DataError and TokenizerError as `train_bpe` does.
    """
    if kind == "bpe":
        return train_bpe(texts, vocab_size, special_tokens=(END_OF_TEXT, *special_tokens), progress=progress)
    words: set[str] = set()
    for text in texts:
        words.update(split_words(text, keep_space=kind == "lossless-word"))
        if kind == "lossless-word":
            words.update(text)  # its letters spell words that are not known
    if not words:
        raise DataError("training a tokenizer needs text, found none; check the paths.")
    if kind == "lossless-word":
        words.update(string.printable)  # a prompt may hold a letter that the training text lacks
    if kind == "word":
        return WordTokenizer(build_vocab(words, special_tokens=(END_OF_TEXT, UNKNOWN)))
    return LosslessWordTokenizer(build_vocab(words, special_tokens=(END_OF_TEXT,)))


def training_texts(paths: Sequence[str | Path], text: TextSettings) -> Iterator[str]:
    """The beginning of the training side, about TOKENIZER_TEXT_BYTES: enough to learn a vocabulary from.

    Everything is read twice, a piece at a time: once to find the split, which is the one that training uses.
    """
    read = functools.partial(
        read_pieces,
        find_sources(paths),
        rows=text,
        document_separator=text.document_separator,
        skip_bad_lines=text.skip_bad_lines,
        on_skip=lambda complaint: None,  # told when the text becomes tokens
    )
    route = Route.plan(survey_sources(read()), split_by=text.split_by, val_fraction=text.val_fraction)
    n_bytes = 0
    for job in route.jobs(read()):
        for piece in job.texts if job.side == "train" else ():
            if n_bytes >= TOKENIZER_TEXT_BYTES:
                return
            yield piece
            n_bytes += len(piece.encode("utf-8"))
