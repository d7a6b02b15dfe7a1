"""The tokenizer, tokens and windows of a pre-training run, from one text or from several mixed by weight."""

import functools
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import ShowsProgress, Tokenizer
from scratchlm.data.document_split import Survey
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.mixture import MixedWindows
from scratchlm.data.shards import PreparedTokens, prepare_tokens, token_folder
from scratchlm.data.windows import TokenWindows
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.training.settings import (
    PretrainSettings,
    TextSettings,
    resolve_data,
    survey_texts,
    train_tokenizer,
    training_texts,
)

logger = logging.getLogger(__name__)

FEW_BORDERS = 0.01  # borders between documents for each window
Surveys = Sequence[Survey | None]  # of each source


@dataclass(frozen=True, kw_only=True)
class PretrainingText:
    """The tokens of a run: of one source, or of several with their shares of the training tokens."""

    names: tuple[str, ...]  # of the sources
    shares: tuple[float, ...]  # their sum is 1
    sources: tuple[PreparedTokens, ...]
    held_out: PreparedTokens | None = None  # validation text of its own

    @property
    def train(self) -> tuple[NDArray[Any], ...]:
        """The training ids of each source."""
        return tuple(source.train for source in self.sources)

    @property
    def val(self) -> tuple[NDArray[Any], ...]:
        """The validation ids of each source, or those of the validation text of its own."""
        return (
            tuple(source.val for source in self.sources) if self.held_out is None else (self.held_out.train,)
        )

    @property
    def val_n_bytes(self) -> tuple[int, ...]:
        """The size of the text of each part of `val`."""
        if self.held_out is not None:
            return (self.held_out.train_n_bytes,)
        return tuple(source.val_n_bytes for source in self.sources)

    @property
    def n_train_tokens(self) -> int:
        """The number of training tokens of all sources."""
        return sum(map(len, self.train))

    @property
    def n_val_tokens(self) -> int:
        """The number of validation tokens."""
        return sum(map(len, self.val))

    @property
    def n_documents(self) -> int:
        """The number of documents, for training and validation."""
        return sum(part.n_documents for part in self._parts)

    @property
    def skipped_lines(self) -> int:
        """The number of lines that could not be used."""
        return sum(part.skipped_lines for part in self._parts)

    @property
    def fingerprint(self) -> str:
        """Changes with the text, its split, the tokenizer and the shares."""
        fingerprints = [source.fingerprint for source in self.sources]
        whole = fingerprints[0]
        if len(fingerprints) > 1:
            mixed = json.dumps([fingerprints, self.shares])
            whole = hashlib.sha256(mixed.encode()).hexdigest()
        return whole if self.held_out is None else f"{whole}+{self.held_out.fingerprint}"

    @property
    def _parts(self) -> tuple[PreparedTokens, ...]:
        return self.sources if self.held_out is None else (*self.sources, self.held_out)


def tokenizer_of_run(
    settings: PretrainSettings,
    out: Path,
    extra_texts: Iterable[str],
    notify: Callable[[str], None],
    progress: ShowsProgress,
    *,
    resume: bool,
) -> tuple[Tokenizer, Surveys]:
    """The run's tokenizer, trained at the first start and loaded later, and the surveys from its training.

    With several sources, each gives its share of the text that the tokenizer is trained on.
    """
    path, sources = out / "tokenizer.json", [resolve_data(names) for names in _groups(settings)]
    surveys: list[Survey | None] = [None] * len(sources)
    if not (resume and path.exists()):
        started_at_s = time.perf_counter()
        text = replace(settings.text, val_fraction=0.0) if settings.val_data else settings.text
        is_shards = [token_folder(source) is not None for source in sources]
        with progress("training a tokenizer") as report:
            if settings.tokenizer.is_trained and not any(is_shards):
                surveys = [survey_texts(source, text) for source in sources]
            shards = is_shards.index(True) if any(is_shards) else 0  # which come with a tokenizer
            others = (
                training_texts(source, text, survey=survey, share=share)
                for i, (source, survey, share) in enumerate(zip(sources, surveys, _shares(settings)))
                if i != shards
            )
            tokenizer = train_tokenizer(
                settings.tokenizer,
                sources[shards],
                text,
                extra_texts=itertools.chain(*others, extra_texts),
                survey=surveys[shards],
                share=_shares(settings)[shards],
                progress=report,
            )
        tokenizer.save(path)
        notify(f"tokenizer of {tokenizer.vocab_size:,} tokens in {time.perf_counter() - started_at_s:.1f} s")
    return load_tokenizer(path, engine="tiktoken"), surveys  # the same ids, faster


def tokens_of_run(
    settings: PretrainSettings, tokenizer: Tokenizer, surveys: Surveys, progress: ShowsProgress
) -> PretrainingText:
    """Tokenise the text of every source, and the validation text.

    Raises: the readers' errors; ConfigError where attention within documents would have no effect.
    """
    val_fraction = 0.0 if settings.val_data else settings.text.val_fraction
    tokenise = functools.partial(_tokenise, settings.text, tokenizer, progress)
    groups = _groups(settings)
    text = PretrainingText(
        names=settings.data if settings.data_weights else (", ".join(settings.data),),
        shares=_shares(settings),
        sources=tuple(tokenise(names, val_fraction, survey) for names, survey in zip(groups, surveys)),
        held_out=tokenise(settings.val_data, 0.0, None) if settings.val_data else None,
    )
    if settings.text.attend_within_documents:
        _check_documents(text, tokenizer)
    return text


def loaders_of_run(
    settings: PretrainSettings, text: PretrainingText, tokenizer: Tokenizer, *, context_length: int
) -> tuple[BatchLoader, BatchLoader]:
    """The loaders of training and validation.

    Raises: DataError for a side of a source that does not fill a window.
    """
    _check_lengths(settings, text, context_length)
    if settings.text.attend_within_documents:
        _warn_of_few_documents(text, context_length)
    start = tokenizer.end_of_text_id if settings.text.attend_within_documents else None
    windows = functools.partial(TokenWindows, context_length=context_length, document_start=start)
    train = [windows(ids, stride=settings.text.stride) for ids in text.train]
    val = [windows(ids) for ids in text.val]
    return (
        _loader(train, settings, weights=text.shares if len(train) > 1 else None, shuffle=True),
        _loader(val, settings, weights=None, shuffle=False),
    )


def tokens_by_source(loader: BatchLoader, n_batches: int) -> list[int]:
    """The number of tokens of each source in the first batches of a run.

    Units: tokens, in windows of full length.
    """
    windows = loader.examples
    if isinstance(windows, TokenWindows):
        return [n_batches * loader.batch_size * windows.context_length]
    assert isinstance(windows, MixedWindows)
    n_epochs, rest = divmod(n_batches, len(loader))
    n_windows = windows.n_drawn(rest * loader.batch_size, seed=loader.seed, epoch=n_epochs)
    for epoch in range(n_epochs):
        n_windows += windows.n_drawn(len(loader) * loader.batch_size, seed=loader.seed, epoch=epoch)
    return [int(n) * windows.parts[0].context_length for n in n_windows]


def _groups(settings: PretrainSettings) -> list[tuple[str, ...]]:
    """The paths of each source: with weights one each, otherwise all of them are one."""
    return [(name,) for name in settings.data] if settings.data_weights else [settings.data]


def _shares(settings: PretrainSettings) -> tuple[float, ...]:
    weights = settings.data_weights or (1.0,)
    return tuple(weight / sum(weights) for weight in weights)


def _tokenise(
    text: TextSettings,
    tokenizer: Tokenizer,
    progress: ShowsProgress,
    data: Sequence[str],
    val_fraction: float,
    survey: Survey | None,
) -> PreparedTokens:
    with progress("tokenising") as report:
        return prepare_tokens(
            resolve_data(data),
            tokenizer,
            cache_folder=cache_folder() / "tokens",
            val_fraction=val_fraction,
            split_by=text.split_by,
            rows=text,
            document_separator=text.document_separator,
            skip_bad_lines=text.skip_bad_lines,
            survey=survey,
            progress=report,
        )


def _check_documents(text: PretrainingText, tokenizer: Tokenizer) -> None:
    """Check that attention within documents has an effect.

    Raises: ConfigError.
    """
    if tokenizer.end_of_text_id is None:
        raise ConfigError(
            "attend_within_documents needs a tokenizer with an end-of-text token, which separates documents, got one "
            "without; choose another --tokenizer.kind, or leave it out."
        )
    if max(source.n_documents for source in text.sources) < 2:
        raise ConfigError(
            "attend_within_documents needs a text of several documents, got one; name the string between them with "
            "--document-separator, give several files, or leave it out."
        )


def _warn_of_few_documents(text: PretrainingText, context_length: int) -> None:
    """Warn of each source where attention within documents changes hardly a window."""
    for name, source in zip(text.names, text.sources):
        n_windows = len(source.train) // context_length
        n_borders = source.n_documents - 1
        if n_borders < n_windows * FEW_BORDERS:
            logger.warning(
                "attend_within_documents changes at most %d of the %d training windows of %s (documents: %d); "
                "name the string between them with --document-separator, or leave it out.",
                n_borders, n_windows, name, source.n_documents,
            )  # fmt: skip


def _check_lengths(settings: PretrainSettings, text: PretrainingText, context: int) -> None:
    """Check that the training and validation text of each source fill a window.

    Raises: DataError naming the side that does not, both counts, and the settings to change.
    """
    more_validation = (
        "give more with --val-data" if settings.val_data else "raise --val-fraction, name --val-data"
    )
    sides = (
        ("training", text.train, "give more text with --data"),
        ("validation", text.val, more_validation),
    )
    for side, parts, advice in sides:
        for i, ids in enumerate(parts):
            name = f" of {text.names[i]}" if len(parts) > 1 else ""
            if len(ids) < context + 1:
                raise DataError(
                    f"the {side} text{name} must have at least {context + 1:,} tokens, one more than context_length, "
                    f"got {len(ids):,}; {advice}, or choose a smaller context_length (--model.context-length)."
                )


def _loader(
    windows: list[TokenWindows],
    settings: PretrainSettings,
    *,
    weights: Sequence[float] | None,
    shuffle: bool,
) -> BatchLoader:
    examples = windows[0] if len(windows) == 1 else MixedWindows(windows, weights=weights)
    training = settings.training
    batch_size = min(training.batch_size, len(examples))
    return BatchLoader(
        examples, batch_size=batch_size, seed=training.seed, shuffle=shuffle, drop_last=shuffle
    )
