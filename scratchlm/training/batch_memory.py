"""A batch that would not fit in memory is computed with activation checkpointing."""

from collections.abc import Callable

import psutil
import torch

from scratchlm.core.batch import Batch
from scratchlm.model.gpt import GPTModel
from scratchlm.training.config import TrainingConfig
from scratchlm.training.planner import bytes_kept_per_token

SMALL_BYTES = 1 << 30  # of activations, for which free memory is not looked up
# Of the free memory. Adapters, masks and fragments can double what the estimate says.
SHARE = 0.4


class BatchMemory:
    """Turns activation checkpointing on for those batches whose activations would not fit in free memory.

    In fine-tuning a few batches hold the longest texts and need several times the memory of the others. The gradients
    are the same to the last bit; such a batch costs one more forward pass. Ranks that share weights are left as they
    are, since they must agree on what they gather.
    """

    def __init__(self, model: GPTModel, config: TrainingConfig, *, notify: Callable[[str], None]) -> None:
        self._model, self._config, self._notify = model, config, notify
        self._is_on = config.activation_checkpointing
        self._is_fixed = self._is_on or config.sharding != "none"
        self._is_told = False
        self._share_kept = 1 - n_frozen_blocks(model) / len(model.trf_blocks)  # of the blocks' activations
        model.set_activation_checkpointing(self._is_on, recompute_cheap=config.recompute_cheap)

    def prepare(self, batch: Batch, *, is_half: bool) -> None:
        """Choose how the model computes this batch."""
        if self._is_fixed:
            return
        config, is_cheap = self._model.config, self._config.recompute_cheap
        per_token = bytes_kept_per_token(config, is_half=is_half, is_recomputed=is_cheap)
        needed_bytes = batch.inputs.numel() * per_token * self._share_kept
        is_on = needed_bytes > SMALL_BYTES and needed_bytes > SHARE * free_bytes(
            next(self._model.parameters()).device
        )
        if is_on and not self._is_told:
            self._is_told = True
            n_rows, length = batch.inputs.shape
            self._notify(
                f"a batch of {n_rows} x {length} tokens needs about {needed_bytes / 2**30:.1f} GiB for activations; "
                "they are computed again in the backward pass (a smaller batch_size avoids it)"
            )
        if is_on != self._is_on:
            self._is_on = is_on
            self._model.set_activation_checkpointing(is_on, recompute_cheap=self._config.recompute_cheap)


def n_frozen_blocks(model: GPTModel) -> int:
    """The number of blocks below the first trainable parameter; 0 if an embedding is trainable.

    It is the number of all blocks if only layers above them are trainable.
    """
    embeddings = [model.tok_emb, *([model.pos_emb] if model.config.positions == "learned" else [])]
    if any(p.requires_grad for module in embeddings for p in module.parameters()):
        return 0
    is_trainable = [any(p.requires_grad for p in block.parameters()) for block in model.trf_blocks]
    return is_trainable.index(True) if True in is_trainable else len(is_trainable)


def free_bytes(device: torch.device) -> int:
    """The memory of the device that new tensors may take."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(psutil.virtual_memory().available)
