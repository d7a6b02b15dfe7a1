"""A key-value cache with the interface of the book's package, and the mixin for models that use it."""

from typing import Any

from torch import Tensor

from scratchlm.model import gpt, kv_cache
from scratchlm.model.config import GPTConfig

FIRST_CAPACITY = 256  # tokens; doubled when full


class KVCache:
    """Keys and values of each layer, from a model of this package or set by `update`.

    Shapes: of each layer keys and values (B, H, S, D).
    """

    def __init__(self, n_layers: int, batch_size: int | None = None) -> None:
        self.cache: list[Any] = [None] * n_layers
        self._ours: kv_cache.KVCache | None = None

    def get(self, layer_idx: int) -> Any:
        """Keys and values of one layer, None before the first token."""
        return self.cache[layer_idx]

    def update(self, layer_idx: int, value: Any) -> None:
        """Replace the entry of a layer, for a model of your own; this package's models do not read it."""
        self.cache[layer_idx] = value

    def get_all(self) -> list[Any]:
        """Keys and values of every layer."""
        return self.cache

    def reset(self) -> None:
        """Empty the cache."""
        self.cache = [None] * len(self.cache)
        self._ours = None

    def read(self, model: gpt.GPTModel, ids: Tensor) -> Tensor:
        """Process more tokens after those in the cache.

        Shapes: ids (B, T) -> logits (B, T, V).
        """
        logits: Tensor = model.out_head(model.hidden_states(ids, cache=self._with_room(model.config, ids)))
        if self._ours is not None and self._ours.keys is not None and self._ours.values is not None:
            n_stored = self._ours.length
            self.cache = [
                (keys[:, :, :n_stored], values[:, :, :n_stored])
                for keys, values in zip(self._ours.keys, self._ours.values)
            ]
        return logits

    def _with_room(self, config: GPTConfig, ids: Tensor) -> kv_cache.KVCache:
        n_rows, n_tokens = ids.shape
        n_tokens += self._ours.length if self._ours else 0
        if self._ours is None or n_tokens > self._ours.capacity:
            room = max(n_tokens, min(config.context_length, max(FIRST_CAPACITY, 2 * n_tokens)))
            larger = kv_cache.KVCache(config, n_rows, capacity=room)
            if self._ours is not None and self._ours.keys is not None and self._ours.values is not None:
                old_keys, old_values, n_stored = self._ours.keys, self._ours.values, self._ours.length
                keys, values = larger.allocate(old_keys.dtype, old_keys.device)
                keys[..., :n_stored, :] = old_keys[..., :n_stored, :]
                values[..., :n_stored, :] = old_values[..., :n_stored, :]
                larger.lengths = [n_stored] * n_rows
            self._ours = larger
        return self._ours


class ReadsWithCache(gpt.GPTModel):
    """A model whose call accepts a cache, or keeps one of its own with `use_cache=True`.

    Positions follow from the cache, so `reset_kv_cache` is needed only for the model's own. `start_pos` of the batched
    variant is accepted and ignored: all rows of a cache have the same length.
    """

    def forward(  # type: ignore[override]
        self,
        in_idx: Tensor,
        use_cache: bool = False,
        cache: KVCache | None = None,
        start_pos: Tensor | None = None,
    ) -> Tensor:
        """Compute the logits of the next token at every position.

        Shapes: in_idx (B, T) -> logits (B, T, V).
        """
        if cache is None and use_cache:
            cache = self._own_cache = getattr(self, "_own_cache", None) or KVCache(self.config.n_layers)
        return super().forward(in_idx) if cache is None else cache.read(self, in_idx)

    def reset_kv_cache(self, batch_size: int | None = None, device: Any = None) -> None:
        """Empty the model's own cache."""
        self._own_cache = None
