"""The GPT: token ids in, for every position a score for each possible next token out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scratchlm.core.errors import DataError
from scratchlm.model.attention import take_positions
from scratchlm.model.attention_mask import text_positions, visible_keys
from scratchlm.model.block import TransformerBlock, norm_layer
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.kv_cache import KVCache
from scratchlm.model.rotary import rotation

WEIGHT_STD = 0.02  # GPT-2 initialisation, std of every weight matrix


class _Sight(NamedTuple):
    """What every block is told besides the tokens' states."""

    visible: Tensor | None  # (B, 1, T, S+T); None: every token sees what causality allows
    positions: Tensor  # (T,) or (B, T)
    cos_sin: tuple[Tensor, Tensor] | None  # of rotary positions, (T, D) or (B, 1, T, D)


class GPTModel(nn.Module):
    """A decoder-only transformer: look tokens up, refine them block by block, predict the next one.

    Shapes: ids (B, T) -> logits (B, T, V).
    Raises: ConfigError for a bad config; DataError when ids are not (B, T), do not fit the vocabulary, or
        with the cached tokens are more than context_length.
    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the book's names.
    Example:
        >>> model = GPTModel(GPTConfig(vocab_size=10, context_length=8, emb_dim=4, n_heads=2, n_layers=1))
        >>> model(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 10])
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config = as_config(cfg)
        # Created in the book's order: with its seed, its weights.
        self.tok_emb = nn.Embedding(config.vocab_size, config.emb_dim)
        if config.positions == "learned":
            self.pos_emb = nn.Embedding(config.context_length, config.emb_dim)
        self.drop_emb = nn.Dropout(config.drop_rate_of("drop_rate_emb"))
        self.trf_blocks = nn.Sequential(*(TransformerBlock(config) for _ in range(config.n_layers)))
        self.final_norm = norm_layer(config)
        # A tied head borrows its matrix, so none is made: for GPT-2 it would be 154 MB.
        device = "meta" if config.tie_embeddings else None
        self.out_head = nn.Linear(config.emb_dim, config.vocab_size, bias=False, device=device)
        self.tie_weights()
        if config.init == "gpt2":
            self._init_as_gpt2()
        self.register_load_state_dict_pre_hook(_tied_head_for_loading)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_tie_after_loading)  # type: ignore[no-untyped-call]

    def forward(
        self, ids: Tensor, *, attention_mask: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Score every possible next token after each position.

        Shapes: ids (B, T); attention_mask (B, S+T), True at real tokens, None when nothing is padding; cache
            with S earlier tokens of the same rows -> logits (B, T, V).
        """
        logits: Tensor = self.out_head(self.hidden_states(ids, attention_mask=attention_mask, cache=cache))
        return logits

    def hidden_states(
        self, ids: Tensor, *, attention_mask: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """What the model has made of each token, just before `out_head`.

        Apply `out_head` to the positions you need: over a large vocabulary it is the dearest layer.
        Padding may stand on either side: positions count real tokens only. A mask of whole numbers keeps the texts of
        a packed row apart: 0 is padding, tokens of one number are one text, whose positions begin at 0.

        Shapes: as `forward`, but -> (B, T, E).
        """
        n_cached = 0 if cache is None else cache.length
        if cache is not None and not self.config.is_causal:
            raise DataError(
                "a model whose tokens see the future reads whole texts only, got a cache for continuing one; "
                "generate with a causal model."
            )
        self._check(ids, attention_mask, n_cached)
        sight = self._sight(ids.shape[1], attention_mask, n_cached, ids.device)
        x = self._embed(ids, sight.positions)  # (B, T, E)
        layer_caches = [None] * len(self.trf_blocks) if cache is None else cache.layers
        for block, layer_cache in zip(self.trf_blocks, layer_caches, strict=True):
            x = block(x, visible=sight.visible, cache=layer_cache, cos_sin=sight.cos_sin)
        states: Tensor = self.final_norm(x)
        return states

    def trunk_states(self, ids: Tensor, n_blocks: int, *, attention_mask: Tensor | None = None) -> Tensor:
        """What the first n_blocks have made of each token: as long as they are frozen, always the same.

        Shapes: ids (B, T), attention_mask (B, T) -> (B, T, E).
        """
        self._check(ids, attention_mask, 0)
        sight = self._sight(ids.shape[1], attention_mask, 0, ids.device)
        x = self._embed(ids, sight.positions)  # (B, T, E)
        for block in list(self.trf_blocks)[:n_blocks]:
            x = block(x, visible=sight.visible, cos_sin=sight.cos_sin)
        return x

    def states_above(
        self,
        trunk: Tensor,
        n_blocks: int,
        *,
        attention_mask: Tensor | None = None,
        read_at: Tensor | None = None,
    ) -> Tensor:
        """The rest of the way, from `trunk_states` to what stands before `out_head`.

        With read_at, one position of each row is read: the last block then asks one question a row instead of
        T, which gives the same numbers as reading everything and taking that position.

        Shapes: trunk (B, T, E), attention_mask (B, T), read_at (B,) -> (B, T, E), or (B, 1, E) with read_at.
        """
        sight = self._sight(trunk.shape[1], attention_mask, 0, trunk.device)
        x = trunk
        for i, block in enumerate(list(self.trf_blocks)[n_blocks:], start=n_blocks + 1):
            asked = read_at if i == len(self.trf_blocks) else None
            x = block(x, visible=sight.visible, cos_sin=sight.cos_sin, read_at=asked)
        if read_at is not None and n_blocks == len(self.trf_blocks):
            x = take_positions(x, read_at)  # (B, 1, E)
        states: Tensor = self.final_norm(x)
        return states

    def n_parameters(self, *, trainable_only: bool = False) -> int:
        """How many numbers the model consists of; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable_only)

    def tie_weights(self) -> None:
        """Let `out_head` share the token embedding's matrix, when the config says so.

        Needed again only after something gave `out_head` a matrix of its own, such as `to_empty`. A head that
        was replaced by one for another purpose stays as it is.
        """
        if self._has_tied_head():
            self.out_head.weight = self.tok_emb.weight

    def _has_tied_head(self) -> bool:
        is_language_head = isinstance(self.out_head, nn.Linear) and (
            self.out_head.weight.shape == self.tok_emb.weight.shape
        )
        return self.config.tie_embeddings and is_language_head

    def _sight(
        self, n_tokens: int, attention_mask: Tensor | None, n_cached: int, device: torch.device
    ) -> _Sight:
        """Who sees whom, and who stands where."""
        visible, positions = None, torch.arange(n_cached, n_cached + n_tokens, device=device)  # (T,)
        if attention_mask is not None:
            visible = visible_keys(
                attention_mask, n_tokens, is_causal=self.config.is_causal
            )  # (B, 1, T, S+T)
            positions = text_positions(attention_mask)[:, n_cached:]  # (B, T)
        is_rotary = self.config.positions == "rotary"
        return _Sight(visible, positions, rotation(self.config, positions) if is_rotary else None)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = self._look_up(ids)  # (B, T, E)
        if self.config.positions == "learned":
            x = x + self.pos_emb(positions)
        embedded: Tensor = self.drop_emb(x)
        return embedded

    def _look_up(self, ids: Tensor) -> Tensor:
        try:
            embedded: Tensor = self.tok_emb(ids)
        except IndexError as cause:  # a check beforehand would make a GPU wait at every call
            raise DataError(
                f"ids must be 0 to {self.config.vocab_size - 1}, found {int(ids.min())} to {int(ids.max())}; "
                "encode with the tokenizer that the model was trained with."
            ) from cause
        return embedded

    def _check(self, ids: Tensor, attention_mask: Tensor | None, n_cached: int) -> None:
        if ids.dim() != 2 or ids.numel() == 0:
            raise DataError(
                f"ids must be (B, T) and not empty, got shape {tuple(ids.shape)}; add a batch dimension."
            )
        n_tokens = n_cached + ids.shape[1]
        if n_tokens > self.config.context_length:
            raise DataError(
                f"the model reads at most {self.config.context_length} tokens, got {n_tokens} "
                f"({n_cached} cached and {ids.shape[1]} new); crop the input or take a larger context_length."
            )
        if attention_mask is not None and attention_mask.shape != (ids.shape[0], n_tokens):
            raise DataError(
                f"attention_mask must cover cached and new tokens, here {(ids.shape[0], n_tokens)}, got "
                f"shape {tuple(attention_mask.shape)}; append a True for every new token."
            )

    def _init_as_gpt2(self) -> None:
        """Small normal weights, zero biases; layers that add to the residual stream shrink with depth."""
        residual_std = WEIGHT_STD / math.sqrt(2 * self.config.n_layers)  # Radford et al. 2019, section 2.3
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)) and not (
                module is self.out_head and self.config.tie_embeddings
            ):
                adds_to_stream = name.endswith(("att.out_proj", "ff.layers.2", "ff.down"))
                nn.init.normal_(module.weight, std=residual_std if adds_to_stream else WEIGHT_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def _tied_head_for_loading(
    model: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    _metadata: Any,
    _strict: bool,
    _missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    """A tied model's file may hold the matrix once; one with two different ones is of an untied model."""
    if not isinstance(model, GPTModel) or not model._has_tied_head():
        return
    embedding = state_dict.get(f"{prefix}tok_emb.weight")
    if embedding is None:
        return  # torch reports it as missing
    head = state_dict.setdefault(f"{prefix}out_head.weight", embedding)
    if head is not embedding and not torch.equal(head, embedding):
        errors.append(
            "a tied model needs out_head.weight equal to tok_emb.weight, found two different matrices; "
            "build the model with tie_embeddings=False."
        )


def _tie_after_loading(model: nn.Module, _incompatible_keys: Any) -> None:
    """Loading with assign=True gives embedding and head a tensor each; make them one again."""
    if isinstance(model, GPTModel):
        model.tie_weights()
