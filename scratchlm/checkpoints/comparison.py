"""Compare two models by their logits on random ids, with our forward pass and those of other programs."""

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
# Largest allowed differences relative to the largest logit: the same code on the same float32 numbers; another program,
# which adds in another order in each of dozens of layers; a format with fewer bits.
SAME_SHARE, OUTSIDE_SHARE, PACKED_SHARE = 1e-5, 1e-4, 0.1


def prompts(config: GPTConfig) -> Tensor:
    """Random ids, the same for every model of that vocabulary size.

    Shapes: -> (B, T).
    """
    shape = (N_PROMPTS, min(PROMPT_TOKENS, config.context_length))
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def n_classes(model: GPTModel) -> int | None:
    """Number of classes that a classifier's head scores; None for a language model."""
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
    """The largest difference between logits on `prompts`, and the names of the programs that computed them.

    Source and written model are compared with each other, and each with the logits of other programs.
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
        limit = (PACKED_SHARE if is_packed else share) * scale
        if not difference <= limit:  # NaN is not
            advice = " Choose a dtype with more bits." if is_packed else ""
            raise CheckpointError(
                f"{where} must give its source's logits within {limit:.3g}, as computed by {program}, got a difference "
                f"of {difference:.3g}; nothing was written.{advice}"
            )
        differences.append(difference)
    programs = dict.fromkeys(program for _, program in theirs)
    return max(differences), ", ".join(programs) or "scratchlm"


def _as_float32(model: GPTModel) -> GPTModel:
    """The model, or a copy of it, with float32 weights on the CPU."""
    is_ready = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
    return (model if is_ready else copy.deepcopy(model).float().cpu()).eval()
