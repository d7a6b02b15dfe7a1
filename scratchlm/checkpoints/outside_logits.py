"""Compute logits with transformers and peft, where they are installed, to compare with ours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scratchlm.core.errors import CheckpointError

HUGGING_FACE = "Hugging Face folder"  # in a manifest, the format that a model was read from
_FAILURES = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError)


class OutsideLogits(NamedTuple):
    """Another program's logits and its name; None and the reason where it is not installed."""

    logits: Tensor | None
    compared_with: str


def outside_logits(
    folder: Path, prompts: Tensor, *, n_classes: int | None = None, adapter: Path | None = None
) -> OutsideLogits:
    """transformers' logits of a Hugging Face folder, with peft's adapter where one is given; float32.

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
            warnings.simplefilter("ignore")  # of transformers, none about the logits
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
