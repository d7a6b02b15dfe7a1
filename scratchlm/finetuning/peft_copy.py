"""Copy an adapter folder into a new one (`convert --to peft`) and verify that both give the same logits."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from scratchlm.checkpoints.comparison import (
    HUGGING_FACE,
    OutsideLogits,
    compare,
    n_classes,
    outside_logits,
    prompts,
)
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.store import ADAPTER_CONFIG, LoadedModel
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.files import check_replaceable, new_folder
from scratchlm.finetuning.peft import ADAPTER_FILES, export_peft, import_peft, write_base_fingerprint
from scratchlm.finetuning.peft_config import CLASSIFIER_HEADS, PeftConfig
from scratchlm.finetuning.peft_head import is_classifier


def copy_adapter(
    source: str | Path,
    target: str | Path,
    *,
    load_base: Callable[[], LoadedModel],
    base: str,
    verify: bool = True,
    overwrite: bool = False,
) -> tuple[float | None, str | None]:
    """Write the low-rank updates in `source` as a folder for peft.

    Returns the largest difference between logits and the names of the programs compared; None without `verify`.
    `load_base` loads a new instance of the base model at each call; `base` is its name in the copy.
    Raises: CheckpointError when the target exists, is the source, cannot be written, or gives other logits, and for
        an adapter that is damaged or belongs to another base.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, overwrite=overwrite)
    config = PeftConfig(source)
    replaced = set(config.saved) - (CLASSIFIER_HEADS | {"ln_f", "norm"} if config.is_classifier else set())
    if replaced or config.bias != "none":
        raise CheckpointError(
            f"{source} also replaces {', '.join(sorted(replaced)) or 'biases'}, which a copy would lose; add it to "
            "its model with --to native or --to hf instead."
        )
    model = load_base().model
    import_peft(model, source)
    with new_folder(target, error=CheckpointError) as partial:
        export_peft(partial, model, base=base)
        loaded = load_base()
        again = loaded.model
        # The export moved a classifier's head bias into its copy of the norm; the base's norm has none.
        write_base_fingerprint(partial, again, has_head=not is_classifier(model))
        if not verify:
            return None, None
        ids, classes = prompts(model.config), n_classes(model)
        theirs = [adapter_logits(loaded, folder, ids, n_classes=classes) for folder in (source, partial)]
        import_peft(again, partial)
        return compare(model, again, theirs, where=target)


def adapter_logits(base: LoadedModel, adapter: Path, ids: Tensor, *, n_classes: int | None) -> OutsideLogits:
    """peft's own logits of an adapter on its base, a plain model; it is exported for transformers if necessary.

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
    here, there = source.resolve(), target.resolve()
    if there in (here, *here.parents):
        raise CheckpointError(
            f"the target must not be the source or contain it, got {target}; choose another name."
        )
    if here in there.parents:
        raise CheckpointError(
            f"the target must not be inside the source, got {target}; choose another place."
        )
    if not target.exists():
        return
    if not overwrite:
        raise CheckpointError(
            f"{target} exists already; choose another name, or replace it with --overwrite."
        )
    check_replaceable(
        target, ADAPTER_FILES, kind="adapter folder", marks=(ADAPTER_CONFIG,), error=CheckpointError
    )
