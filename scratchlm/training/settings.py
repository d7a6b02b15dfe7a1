"""The settings of text, tokenizer and model size, and their conversion to paths, tokenizer and config."""

import functools
import itertools
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from scratchlm.assets.known_datasets import ASSETS, DATASETS
from scratchlm.assets.registry import asset_path
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.document_split import Route, SplitBy, Survey, survey_sources
from scratchlm.data.mixture import check_mixture_weights
from scratchlm.data.row_files import RowSettings
from scratchlm.data.shards import token_folder, tokenizer_of_tokens
from scratchlm.data.sources import Piece, find_sources, read_pieces
from scratchlm.model.config import GPTConfig, named_config
from scratchlm.tokenizers.bpe_trainer import check_vocab_size, train_bpe
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, UNKNOWN
from scratchlm.tokenizers.word import LosslessWordTokenizer, WordTokenizer, build_vocab, split_words
from scratchlm.training.config import TrainingConfig

TOKENIZER_TEXT_BYTES = 32 << 20  # more text hardly changes the vocabulary
LARGEST_SIZE = 1 << 28  # of a model's widths and lengths; torch counts the bytes of a matrix in 64 bits
KAGGLE = "kaggle:"  # `kaggle:OWNER/SLUG` is a data set on Kaggle, which the user must download
# word: all words of the text; lossless-word: spaces and letters too
LearntKind = Literal["bpe", "word", "lossless-word"]
SizeName = Literal["tiny", "small", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]


@dataclass(frozen=True, kw_only=True)
class TextSettings(RowSettings):
    """How text files are read, and split for training and validation."""

    val_fraction: float = 0.1  # share of the text kept for validation
    split_by: SplitBy = "auto"  # whole documents, or the contiguous tail of one
    stride: int | None = None  # tokens between training windows; None = context_length, so none overlap
    document_separator: str = ""  # string between the documents of a plain-text file, e.g. <|endoftext|>
    # tokens attend only to tokens of their own document, in training and validation
    attend_within_documents: bool = False
    skip_bad_lines: bool = False  # count and report lines that do not parse, instead of stopping

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, stride=self.stride)
        if not 0 <= self.val_fraction < 1:
            raise ConfigError(
                f"val_fraction must be at least 0 and below 1, got {self.val_fraction}; 0.1 is usual."
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """The tokenizer of a new model."""

    # gpt2: OpenAI's; the others are trained on the training text
    kind: Literal["bpe", "word", "lossless-word", "gpt2"] = "bpe"
    vocab_size: int = 2048  # maximum number of tokens of a trained vocabulary
    path: str | None = None  # use this tokenizer.json instead
    # special tokens of a trained bpe beside end-of-text, such as a chat template's role marks
    special_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "bpe" and self.path is None:
            check_vocab_size(self.vocab_size, n_special_tokens=1 + len(self.special_tokens))
        if self.special_tokens and (self.kind != "bpe" or self.path is not None):
            raise ConfigError(
                f"special_tokens are for a bpe tokenizer that is trained here, got {self.special_tokens} for "
                f"{self.path or self.kind!r}; leave them out."
            )

    @property
    def is_trained(self) -> bool:
        """Whether the tokenizer is trained on the training text."""
        return self.path is None and self.kind != "gpt2"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A named size, and changes to it; the vocabulary size is the tokenizer's."""

    size: SizeName = "tiny"  # named set of widths and depths, each of which a setting below can override
    context_length: int | None = None  # maximum number of tokens the model reads at once
    emb_dim: int | None = None  # width of the residual stream
    n_heads: int | None = None  # attention heads per block; must divide emb_dim
    n_layers: int | None = None  # transformer blocks
    drop_rate: float | None = None  # share of activations that dropout zeroes while training
    qkv_bias: bool | None = None  # a bias on queries, keys and values
    tie_embeddings: bool | None = None  # use one matrix for token embeddings and output head
    init: Literal["torch", "gpt2"] | None = None  # torch's default weights, or GPT-2's
    attention: Literal["sdpa", "manual"] | None = None  # torch's fused attention, or written out
    norm: Literal["layer", "rms"] | None = None  # LayerNorm as in GPT-2, or RMSNorm as in Llama
    norm_eps: float | None = None  # added to the variance in every norm; Qwen 3 has 1e-6
    # learned embeddings as in GPT-2, or RoPE as in Llama
    positions: Literal["learned", "rotary"] | None = None
    # feed-forward network: GPT-2's, the same with exact GELU, or Llama's
    feed_forward: Literal["gelu", "gelu_exact", "swiglu"] | None = None
    ff_dim: int | None = None  # width inside the feed-forward layer
    n_kv_heads: int | None = None  # heads of keys and values, each shared by a group of query heads
    qk_norm: bool | None = None  # an RMSNorm on every head's queries and keys, as in Qwen 3
    linear_bias: bool | None = None  # a bias on attention's output and in the feed-forward layer

    def __post_init__(self) -> None:
        self.resolve(vocab_size=1)  # raises for invalid values before any text is read

    def resolve(self, *, vocab_size: int) -> GPTConfig:
        """The model config of these settings.

        Raises: ConfigError for values that contradict each other.
        """
        changes = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "size"}
        given = {name: value for name, value in changes.items() if value is not None}
        for name, value in {"vocab_size": vocab_size, **given}.items():
            if isinstance(value, int) and value > LARGEST_SIZE:
                raise ConfigError(f"{name} must be at most {LARGEST_SIZE}, got {value!r:.40}; choose less.")
        return named_config(self.size, vocab_size=vocab_size, **given)


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """All settings of a pre-training run."""

    data: tuple[str, ...] = ()  # files, folders, globs or known names
    data_weights: tuple[float, ...] = ()  # share of each of data in the training tokens; none = one text
    val_data: tuple[str, ...] = ()  # separate validation text, instead of a part of data
    text: TextSettings = field(default_factory=TextSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=1.0))
    sample_prompt: str = "Once upon a time"  # prompt of the text samples during training

    def __post_init__(self) -> None:
        if self.data_weights:
            check_mixture_weights(self.data_weights, self.data)


def resolve_data(data: Sequence[str], *, kind: str = "text") -> list[str | Path]:
    """Replace the names of known data sets with the paths of their local copies; paths are unchanged.

    `kind` is the folder of small data sets to look in: `text`, `sms_spam_collection` or `instruction`. The larger ones
    are known by id, id without suffix, or folder where that holds one file: `dolly`, `ag_news/train`.
    Raises: DataError for no data or an empty name, and for a known data set that is not on this machine.
    """
    if not data or "" in data:
        raise DataError("no data given; name files, folders or known data sets with --data.")
    return [name if Path(name).exists() else _asset_or_path(name, kind) for name in data]


def _asset_or_path(name: str, kind: str) -> str | Path:
    if name.startswith(KAGGLE):
        handle = name.removeprefix(KAGGLE)
        raise DataError(
            f"{name} must be downloaded from Kaggle, which gives it to its users under its own terms; "
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
    return name  # the reader reports the problem


def train_tokenizer(
    settings: TokenizerSettings,
    data: Sequence[str | Path],
    text: TextSettings,
    *,
    extra_texts: Iterable[str] = (),
    survey: Survey | None = None,
    share: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Tokenizer:
    """Train or load the tokenizer that the settings name; training uses the training side of the text only.

    `extra_texts` are added, such as those that the model will be fine-tuned on. Token shards come with the tokenizer
    that produced them, unless `path` names it. `survey` and `share` as for `training_texts`.
    Raises: TokenizerError, DataError as the readers do.
    """
    if settings.path is not None:
        return load_tokenizer(settings.path)
    if settings.kind == "gpt2":
        return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))
    if (shards := token_folder(data)) is not None:
        return tokenizer_of_tokens(shards)
    return learn_tokenizer(
        settings.kind,
        itertools.chain(training_texts(data, text, survey=survey, share=share), extra_texts),
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
    """Train a tokenizer of that kind on texts; vocab_size and special_tokens are for BPE only.

    Raises: ConfigError, DataError and TokenizerError as `train_bpe` does.
    """
    if kind == "bpe":
        return train_bpe(texts, vocab_size, special_tokens=(END_OF_TEXT, *special_tokens), progress=progress)
    words: set[str] = set()
    for text in texts:
        words.update(split_words(text, keep_space=kind == "lossless-word"))
        if kind == "lossless-word":
            words.update(text)  # letters, which spell unknown words
    if not words:
        raise DataError("there is no text to train a tokenizer on; check the paths.")
    if kind == "lossless-word":
        words.update(string.printable)  # a prompt may contain a letter that is not in the training text
    if kind == "word":
        return WordTokenizer(build_vocab(words, special_tokens=(END_OF_TEXT, UNKNOWN)))
    return LosslessWordTokenizer(build_vocab(words, special_tokens=(END_OF_TEXT,)))


def survey_texts(data: Sequence[str | Path], text: TextSettings) -> Survey:
    """Read all documents once and keep the data for the split, shared by tokenizer training and encoding."""
    return survey_sources(_reader(data, text))


def training_texts(
    data: Sequence[str | Path],
    text: TextSettings,
    *,
    survey: Survey | None = None,
    share: float = 1.0,
) -> Iterator[str]:
    """The beginning of the training side, enough to train a tokenizer on.

    It has TOKENIZER_TEXT_BYTES or so, or this share of them.
    The split is the one that training uses. It needs a survey of all documents, which is computed unless
    given.
    """
    read = _reader(data, text)
    route = Route.plan(survey or survey_sources(read), split_by=text.split_by, val_fraction=text.val_fraction)
    n_read = 0
    for job in route.jobs(read(on_skip=lambda complaint: None)):  # reported when the text becomes tokens
        for piece in job.texts if job.side == "train" else ():
            if n_read >= share * TOKENIZER_TEXT_BYTES:
                return
            yield piece
            n_read += len(piece.encode("utf-8"))


def _reader(data: Sequence[str | Path], text: TextSettings) -> Callable[..., Iterator[Piece]]:
    return functools.partial(
        read_pieces,
        find_sources(data),
        rows=text,
        document_separator=text.document_separator,
        skip_bad_lines=text.skip_bad_lines,
    )
