"""An adapter folder written anew, and proven: the base with the copy scores as the base with the original."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from scratchlm.checkpoints.comparison import compare, n_classes, prompts
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.outside_logits import HUGGING_FACE, OutsideLogits, outside_logits
from scratchlm.checkpoints.store import ADAPTER_CONFIG, LoadedModel
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import check_replaceable, new_folder
from scratchlm.finetuning.base_weights import save_base
from scratchlm.finetuning.peft_adapter import (
    ADAPTER_FILES,
    export_peft,
    import_peft,
)
from scratchlm.finetuning.peft_head import is_classifier
from scratchlm.finetuning.peft_settings import CLASSIFIER_HEADS, PeftSettings


def copy_adapter(
    source: str | Path,
    target: str | Path,
    *,
    load_base: Callable[[], LoadedModel],
    base: str,
    verify: bool = True,
    overwrite: bool = False,
) -> tuple[float | None, str | None]:
    """Write `source`'s corrections as a folder of peft.

    Returns the largest difference between logits and whose were compared; None when not compared.
    `load_base` gives the model they correct, each time anew; `base` is the name that goes into the copy.
    Raises: CheckpointError when the target exists, is the source, cannot be written, or reads back as other
        corrections, and for an adapter that is damaged or of another base.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, overwrite=overwrite)
    settings = PeftSettings(source)
    replaced = set(settings.saved) - (
        CLASSIFIER_HEADS | {"ln_f", "norm"} if settings.is_classifier else set()
    )
    if replaced or settings.bias != "none":
        raise CheckpointError(
            f"{source} replaces {', '.join(sorted(replaced)) or 'biases'} as well, which a copy would lose; add it to "
            "its model with --to native or --to hf instead."
        )
    model = load_base().model
    import_peft(model, source)
    with new_folder(target, error=CheckpointError) as partial:
        export_peft(partial, model, base=base)
        loaded = load_base()
        again = loaded.model
        save_base(partial, again, has_head=not is_classifier(model))  # a head's bias moved into the norm
        if not verify:
            return None, None
        ids, classes = prompts(model.config), n_classes(model)
        theirs = [adapter_logits(loaded, folder, ids, n_classes=classes) for folder in (source, partial)]
        import_peft(again, partial)
        return compare(model, again, theirs, where=target)


def adapter_logits(base: LoadedModel, adapter: Path, ids: Tensor, *, n_classes: int | None) -> OutsideLogits:
    """peft's own logits of an adapter on its base, which is written for transformers first if it is not theirs.

    base: without corrections.
    Shapes: as `outside_logits`.
    """
    if base.manifest.get("format") == HUGGING_FACE:
        return outside_logits(base.folder, ids, n_classes=n_classes, adapter=adapter)
    with tempfile.TemporaryDirectory() as work:
        try:
            folder = export_huggingface(Path(work) / "base", base.model, base.tokenizer)
        except ConfigError as cause:
            return OutsideLogits(None, f"scratchlm alone: {cause}")
        return outside_logits(folder, ids, n_classes=n_classes, adapter=adapter)


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
