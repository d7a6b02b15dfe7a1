"""Load the base model of fine-tuning: a trained model, or one with random weights."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import LoadedModel, build_model
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.memory import freed_memory_kept, memory_errors_explained
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.config import CONFIGS, DROP_RATES, named_config
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dequantize_model, quantize_model
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

RANDOM = "random:"  # `random:small` is a model of that size with random weights
RANDOM_VOCAB_SIZE = 4096  # of the tokenizer that is trained for a random base


@dataclass(frozen=True, kw_only=True)
class Base:
    """A model to fine-tune, and its origin."""

    model: GPTModel
    tokenizer: Tokenizer
    name: str
    sha256: str | None  # of the weights it was loaded from; None for random ones
    task: dict[str, Any] = field(default_factory=dict)  # its task.json; {} for a plain language model

    @property
    def is_random(self) -> bool:
        """Whether its weights are random."""
        return self.sha256 is None


def checked_size(name: str) -> str:
    """The SIZE of `random:SIZE`.

    Raises: ConfigError for an unknown one.
    """
    size = name.removeprefix(RANDOM)
    if size not in CONFIGS:
        raise ConfigError(
            f"a random base must be one of {', '.join(RANDOM + s for s in CONFIGS)}, got {name!r}; choose one."
        )
    return size


def load_base(
    name: str,
    *,
    training_texts: Iterable[str],
    device: torch.device,
    role_tokens: Sequence[str] = (),
    base_bits: Literal[8, 4] | None = None,
    tokenizer: Tokenizer | None = None,
    **changes: Any,
) -> Base:
    """Load a model folder, a run folder or another program's model, or create `random:SIZE`.

    A random base draws from torch's global generator, and its BPE tokenizer, unless given, is trained on the training
    texts, with `role_tokens` as special tokens. `changes` replace fields of the base's config, such as drop_rate,
    unless None.
    base_bits: quantize the base, for LoRA: 8 rounds to nearest, 4 is NF4 as in QLoRA. Another program's quantized file
        is read in floating point first; our quantized folders stay as they are.
    Raises: ConfigError for an unknown size, and base_bits with a quantized folder; CheckpointError for a folder
        without a valid language model, or with another model's tokenizer.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    if "drop_rate" in changes:
        changes |= dict.fromkeys(DROP_RATES)  # so that drop_rate applies everywhere
    if name.startswith(RANDOM):
        size = checked_size(name)
        if tokenizer is None:
            tokenizer = train_bpe(
                training_texts, RANDOM_VOCAB_SIZE, special_tokens=(END_OF_TEXT, *role_tokens)
            )
        with memory_errors_explained("choose a smaller random base"):
            model = GPTModel(named_config(size, vocab_size=tokenizer.vocab_size, **changes)).to(device)
        return Base(model=_quantized(model, base_bits), tokenizer=tokenizer, name=name, sha256=None)
    loaded = open_model(name)
    if loaded.task.get("kind") == "classification":
        raise CheckpointError(
            f"{loaded.folder} is a classifier, not a language model; name the model that it was fine-tuned from."
        )
    if loaded.tokenizer.vocab_size > loaded.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {loaded.folder} has {loaded.tokenizer.vocab_size} tokens, but the model has only "
            f"{loaded.config.vocab_size}; replace it with the tokenizer that the model was trained with."
        )
    model = loaded.model
    if (config := dataclasses.replace(loaded.config, **changes)) != loaded.config:
        model = build_model(config, model.state_dict(), where=loaded.folder)
    if "files" not in loaded.manifest:
        dequantize_model(model)
    return Base(
        model=_quantized(model.to(device), base_bits),
        tokenizer=loaded.tokenizer,
        name=name,
        sha256=_sha256_of_weights(loaded),
        task=loaded.task,
    )


def _quantized(model: GPTModel, bits: Literal[8, 4] | None) -> GPTModel:
    if bits is not None:
        with freed_memory_kept(is_wanted=False):
            quantize_model(model, QuantizationConfig(bits=bits, kind="nf4" if bits == 4 else "rtn"))
        for (
            rest
        ) in model.parameters():  # norms and biases would keep the mapped file of all weights in memory
            rest.data = rest.data.clone()
    return model


def readable_length(base: Base, wanted: int | None, notify: Callable[[str], None]) -> int:
    """The maximum length of an example: `wanted`, limited to the base's context length with a notice.

    Units: tokens.
    """
    context = base.model.config.context_length
    if wanted is None:
        return context
    if wanted > context:
        notify(f"max_length {wanted} exceeds the context length of {base.name}; {context} tokens are used")
    return min(wanted, context)


def warn_about_unknown_marks(base: Base, marks: Sequence[str], notify: Callable[[str], None]) -> None:
    """Report the role marks of a template that are not special tokens of the base's tokenizer."""
    unknown = [mark for mark in marks if mark not in base.tokenizer.special_tokens]
    if unknown:
        notify(
            f"the tokenizer of {base.name} has no special tokens {', '.join(unknown)}; they become ordinary text, "
            "which a message can imitate, and take several tokens each"
        )


def _sha256_of_weights(loaded: LoadedModel) -> str:
    """The hash in our folder's manifest; for another program's model the hash of its files."""
    if "files" in loaded.manifest:
        return str(loaded.manifest["files"]["model.safetensors"]["sha256"])
    hashes = [sha256_of_file(file, error=CheckpointError) for file in loaded.manifest["weights"]]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
