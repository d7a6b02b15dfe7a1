"""Compare two models by their logits on random ids, with our forward pass and those of transformers and peft."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scratchlm.core.errors import CheckpointError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel

HUGGING_FACE = "Hugging Face folder"  # in a manifest, the format that a model was read from
_FAILURES = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError)
N_PROMPTS, PROMPT_TOKENS = 4, 32
# Largest allowed differences relative to the largest logit: for the same code on the same float32 values; for
# another program, with another order of summation in every layer; for a format with fewer bits. Four bits
# change a small model's logits by up to a fifth, a wrong order of the heads' rows by more than half.
SAME_SHARE, OUTSIDE_SHARE = 1e-5, 1e-4
SHARE_OF_DTYPE = {"f16": 0.1, "bf16": 0.1, "q8_0": 0.1, "q4_0": 0.4, "q4_1": 0.4}


class OutsideLogits(NamedTuple):
    """The logits of another program and its name; None and the reason if it is not installed."""

    logits: Tensor | None
    compared_with: str


def prompts(config: GPTConfig) -> Tensor:
    """Generate random ids, the same for every model with this vocabulary size.

    Shapes: -> (B, T).
    """
    shape = (N_PROMPTS, min(PROMPT_TOKENS, config.context_length))
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def n_classes(model: GPTModel) -> int | None:
    """The number of classes of a classifier's head; None for a language model."""
    n_scores = model.out_head.out_features
    return None if n_scores == model.config.vocab_size else n_scores


def compare(
    source: GPTModel,
    written: GPTModel,
    theirs: Sequence[OutsideLogits],
    *,
    where: Path,
    dtype: str | None = None,
) -> tuple[float, str]:
    """Compute the largest difference between logits on `prompts`, and name the programs that computed them.

    Source and written model are compared with each other, and each with the logits of other programs. `dtype` is that
    of the written weights; None for the source's.
    Raises: CheckpointError when they differ by more than rounding explains, or in the shape of the logits.
    """
    n_ids, n_tokens = source.config.vocab_size, min(PROMPT_TOKENS, source.config.context_length)
    if written.config.vocab_size != n_ids or written.config.context_length < n_tokens:
        raise CheckpointError(
            f"{where} must have {n_ids} ids and a context of {n_tokens} tokens like its source, got "
            f"{written.config.vocab_size} ids and {written.config.context_length} tokens; nothing was written."
        )
    ids = prompts(source.config)
    with torch.no_grad():
        ours = [_as_float32(model)(ids) for model in (source, written)]  # (B, T, V) each
    scale = max(1.0, ours[0].abs().max().item())
    pairs = [(ours[0], ours[1], "scratchlm", SAME_SHARE)]
    for logits, program in theirs:
        if logits is not None:
            pairs += [(own[:, -logits.shape[1] :], logits, program, OUTSIDE_SHARE) for own in ours]
    differences = []
    for one, other, program, share in pairs:
        if one.shape != other.shape:
            raise CheckpointError(
                f"{where} must give logits of the same shape as its source, got {tuple(one.shape)} and "
                f"{tuple(other.shape)} from {program}; nothing was written."
            )
        difference = (one - other).abs().max().item()
        limit = SHARE_OF_DTYPE.get(dtype or "", share) * scale
        if not difference <= limit:  # NaN is not
            advice = " Choose a dtype with more bits." if dtype in SHARE_OF_DTYPE else ""
            raise CheckpointError(
                f"{where} must give its source's logits within {limit:.3g}, as computed by {program}, got a difference "
                f"of {difference:.3g}; nothing was written.{advice}"
            )
        differences.append(difference)
    programs = dict.fromkeys(program for _, program in theirs)
    return max(differences), ", ".join(programs) or "scratchlm"


def outside_logits(
    folder: Path, prompts: Tensor, *, n_classes: int | None = None, adapter: Path | None = None
) -> OutsideLogits:
    """Compute transformers' float32 logits of a Hugging Face folder, with peft's adapter if one is given.

    n_classes: number of classes of a classifier, which scores only the last token; None for a language model.
    Shapes: prompts (B, T) -> logits (B, T, V), or (B, 1, C) of a classifier.
    Raises: CheckpointError for a folder that the programs cannot open.
    """
    try:
        import transformers  # takes seconds

        their_logging: Any = transformers.utils.logging
        name, add_adapter = f"transformers {transformers.__version__}", None
        if adapter is not None:
            import peft

            name, add_adapter = f"{name} and peft {peft.__version__}", peft.PeftModel.from_pretrained
    except ImportError as cause:
        return OutsideLogits(None, f"scratchlm alone: {cause.name} not installed")
    their_logging.set_verbosity_error()
    their_logging.disable_progress_bar()
    kind: Any = transformers.AutoModelForCausalLM
    settings: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if n_classes is not None:
        kind = transformers.AutoModelForSequenceClassification
        settings["num_labels"] = n_classes
    try:
        rows = []
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of transformers, none about the logits
            model = kind.from_pretrained(folder, **settings).float()
            model.config.pad_token_id = None  # otherwise a classifier uses the last token that is not padding
            if add_adapter is not None:
                model = add_adapter(model, str(adapter))
            model = model.float().eval()
            for prompt in prompts:
                logits = model(prompt[None]).logits.float()  # (1, T, V), or (1, C)
                rows.append(logits if n_classes is None else logits[:, None])
    except _FAILURES as cause:
        where = folder if adapter is None else f"{folder} with {adapter}"
        raise CheckpointError(
            f"{name} cannot open {where} to compare its logits: {str(cause)[:300]}; repair it, or skip the comparison "
            "with --no-verify."
        ) from cause
    return OutsideLogits(torch.cat(rows), name)


def _as_float32(model: GPTModel) -> GPTModel:
    """The model, or a copy of it, with float32 weights on the CPU."""
    is_ready = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
    return (model if is_ready else copy.deepcopy(model).float().cpu()).eval()
