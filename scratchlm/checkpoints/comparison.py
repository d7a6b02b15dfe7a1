"""Do two models compute the same? Logits on random ids, our own and those of other programs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scratchlm.checkpoints.outside_logits import OutsideLogits
from scratchlm.core.errors import CheckpointError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel

N_PROMPTS, PROMPT_TOKENS = 4, 32
# Largest differences, in parts of the largest logit. Float32 has 24 bits: the same code on the same numbers; another
# program, which adds up in another order, in each of some dozens of layers; fewer bits.
SAME_SHARE, OUTSIDE_SHARE, PACKED_SHARE = 1e-5, 1e-4, 0.1


def prompts(config: GPTConfig) -> Tensor:
    """The same random ids for every model of that vocabulary.

    Shapes: -> (B, T).
    """
    shape = (N_PROMPTS, min(PROMPT_TOKENS, config.context_length))
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def n_classes(model: GPTModel) -> int | None:
    """How many classes a classifier's head scores; None for a language model."""
    n_scores = model.out_head.out_features
    return None if n_scores == model.config.vocab_size else n_scores


def compare(
    source: GPTModel,
    written: GPTModel,
    theirs: Sequence[OutsideLogits],
    *,
    where: Path,
    is_packed: bool = False,
) -> tuple[float, str]:
    """The largest difference between logits on `prompts`, and whose logits were compared.

    Source and written model are compared with each other, and each with what other programs computed.
    Raises: CheckpointError when they differ by more than rounding explains, or do not score alike.
    """
    n_ids, n_tokens = source.config.vocab_size, min(PROMPT_TOKENS, source.config.context_length)
    if written.config.vocab_size != n_ids or written.config.context_length < n_tokens:
        raise CheckpointError(
            f"both models must know {n_ids} ids and read {n_tokens} tokens, got one of "
            f"{written.config.vocab_size} ids and {written.config.context_length} tokens."
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
                f"{where} must score as its source does, got {one.shape[-1]} and {other.shape[-1]} scores from "
                f"{program}; nothing was written."
            )
        difference = (one - other).abs().max().item()
        limit = (PACKED_SHARE if is_packed else share) * scale
        if not difference <= limit:  # NaN is not
            advice = " Choose a dtype with more bits." if is_packed else ""
            raise CheckpointError(
                f"{where} must give its source's logits to {limit:.3g}, as {program} computes them, got a difference "
                f"of {difference:.3g}; nothing was written.{advice}"
            )
        differences.append(difference)
    told = dict.fromkeys(program for _, program in theirs)
    return max(differences), ", ".join(told) or "scratchlm"


def _as_float32(model: GPTModel) -> GPTModel:
    """The model, or a copy of it, with float32 weights on the CPU."""
    is_ready = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
    return (model if is_ready else copy.deepcopy(model).float().cpu()).eval()
