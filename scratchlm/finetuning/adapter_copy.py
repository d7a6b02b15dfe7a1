"""An adapter folder written anew, and proven: the base with the copy scores as the base with the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scratchlm.checkpoints.conversion import SAME_SHARE, largest_logit_difference
from scratchlm.checkpoints.store import ADAPTER_CONFIG
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import check_replaceable, new_folder
from scratchlm.finetuning.base_weights import save_base
from scratchlm.finetuning.peft_adapter import (
    ADAPTER_FILES,
    export_peft,
    import_peft,
    replaced_parts,
)
from scratchlm.finetuning.peft_head import is_classifier
from scratchlm.finetuning.peft_settings import CLASSIFIER_HEADS
from scratchlm.model.gpt import GPTModel


def copy_adapter(
    source: str | Path,
    target: str | Path,
    *,
    load_base: Callable[[], GPTModel],
    base: str,
    verify: bool = True,
    overwrite: bool = False,
) -> float | None:
    """Write `source`'s corrections as a folder of peft; the largest difference between logits, None if not compared.

    `load_base` gives the model they correct, twice; `base` is the name that goes into the copy.
    Raises: CheckpointError when the target exists, is the source, cannot be written, or reads back as other
        corrections, and for an adapter that is damaged or of another base.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, overwrite=overwrite)
    replaced = set(replaced_parts(source)) - CLASSIFIER_HEADS - {"ln_f", "norm"}
    if replaced:
        raise CheckpointError(
            f"{source} replaces {', '.join(sorted(replaced))} as well, which a copy would lose; add it to its model "
            "with --to native or --to hf instead."
        )
    model = load_base()
    import_peft(model, source)
    difference = None
    with new_folder(target, error=CheckpointError) as partial:
        export_peft(partial, model, base=base)
        again = load_base()
        save_base(
            partial, again, has_head=not is_classifier(model)
        )  # a head's bias moved into the model's norm
        if verify:
            import_peft(again, partial)
            difference, scale = largest_logit_difference(model, again)
            limit = SAME_SHARE * max(1.0, scale)
            if not difference <= limit:  # NaN is not
                raise CheckpointError(
                    f"{target} should give its source's logits to {limit:.3g}, found a difference of "
                    f"{difference:.3g}; nothing was written."
                )
    return difference


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise CheckpointError(
            f"the target must not be the source or hold it, got {target}; choose another name."
        )
    if source.resolve() in target.resolve().parents:
        raise CheckpointError(
            f"the target must not lie in the source, got {target}; choose a place outside of it."
        )
    if not target.exists():
        return
    if not overwrite:
        raise CheckpointError(
            f"{target} should not exist yet, found something; choose another name, or replace it with --overwrite."
        )
    check_replaceable(
        target, ADAPTER_FILES, kind="adapter folder", marks=(ADAPTER_CONFIG,), error=CheckpointError
    )
