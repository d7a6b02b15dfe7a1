"""What fine-tuning starts from: a trained model, or one with random weights."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import LoadedModel, build_model
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import sha256_of_file
from scratchlm.core.memory import memory_errors_explained
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.config import CONFIGS, DROP_RATES, named_config
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

RANDOM = "random:"  # `random:small` is a model of that size with fresh weights
RANDOM_VOCAB_SIZE = 4096  # of the tokenizer that a random base learns from the training texts


@dataclass(frozen=True, kw_only=True)
class Base:
    """A model to fine-tune, and how it got here."""

    model: GPTModel
    tokenizer: Tokenizer
    name: str
    sha256: str | None  # of the weights it was loaded from; None for random ones
    task: dict[str, Any] = field(default_factory=dict)  # what it was fine-tuned for: {} for a language model

    @property
    def is_random(self) -> bool:
        """Are its weights fresh?"""
        return self.sha256 is None


def load_base(
    name: str,
    *,
    training_texts: Iterable[str],
    device: torch.device,
    role_tokens: Sequence[str] = (),
    **changes: Any,
) -> Base:
    """The base of that name: a model folder, a run folder, a foreign model, or `random:SIZE`.

    A random base draws from torch's global generator, and its BPE tokenizer learns from the training texts,
    with `role_tokens` as special tokens.
    `changes` replace fields of the base's config, such as drop_rate; None leaves one as it is.
    Raises: ConfigError for an unknown size; CheckpointError for a folder without a good language model, or with the
        tokenizer of another one.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    if "drop_rate" in changes:
        changes |= dict.fromkeys(DROP_RATES)  # it is asked for everywhere
    if name.startswith(RANDOM):
        size = name.removeprefix(RANDOM)
        if size not in CONFIGS:
            raise ConfigError(
                f"a random base must be one of {', '.join(RANDOM + s for s in CONFIGS)}, got {name!r}."
            )
        tokenizer: Tokenizer = train_bpe(
            training_texts, RANDOM_VOCAB_SIZE, special_tokens=(END_OF_TEXT, *role_tokens)
        )
        with memory_errors_explained("choose a smaller random base"):
            model = GPTModel(named_config(size, vocab_size=tokenizer.vocab_size, **changes)).to(device)
        return Base(model=model, tokenizer=tokenizer, name=name, sha256=None)
    loaded = open_model(name)
    if loaded.task.get("kind") == "classification":
        raise CheckpointError(
            f"{loaded.folder} should be a language model, found a classifier; give the model it was made from."
        )
    if loaded.tokenizer.vocab_size > loaded.config.vocab_size:
        raise CheckpointError(
            f"{loaded.folder} should hold a model and its own tokenizer, found {loaded.config.vocab_size} ids in the "
            f"model and {loaded.tokenizer.vocab_size} in the tokenizer; put the tokenizer it was trained with there."
        )
    model = loaded.model
    if (config := dataclasses.replace(loaded.config, **changes)) != loaded.config:
        model = build_model(config, model.state_dict(), where=loaded.folder)
    return Base(
        model=model.to(device),
        tokenizer=loaded.tokenizer,
        name=name,
        sha256=_sha256_of_weights(loaded),
        task=loaded.task,
    )


def readable_length(base: Base, wanted: int | None, notify: Callable[[str], None]) -> int:
    """How many tokens of a text the base reads: as many as wanted, or as it can; fewer than wanted are told."""
    context = base.model.config.context_length
    if wanted is None:
        return context
    if wanted > context:
        notify(f"max_length {wanted} is more than {base.name} reads at once: {context} tokens are read")
    return min(wanted, context)


def tell_unknown_marks(base: Base, marks: Sequence[str], notify: Callable[[str], None]) -> None:
    """Say which role marks of a template the base's tokenizer does not know."""
    unknown = [mark for mark in marks if mark not in base.tokenizer.special_tokens]
    if unknown:
        notify(
            f"the tokenizer of {base.name} does not know {', '.join(unknown)}: they are ordinary text, which a "
            "message can imitate, and cost several tokens each"
        )


def _sha256_of_weights(loaded: LoadedModel) -> str:
    """Of our folder's weights as its manifest tells; of a foreign model's files, read again."""
    if "files" in loaded.manifest:
        return str(loaded.manifest["files"]["model.safetensors"]["sha256"])
    hashes = [sha256_of_file(file, error=CheckpointError) for file in loaded.manifest["weights"]]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
