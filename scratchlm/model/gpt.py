"""The GPT model: it reads token ids and scores every possible next token after each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.core.errors import DataError
from scratchlm.core.memory import LARGEST_KEPT_BLOCK, give_freed_memory_back
from scratchlm.model.attention_context import AttentionContext, attention_context
from scratchlm.model.block import TransformerBlock, norm_layer
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.kv_cache import CacheRows, KVCache
from scratchlm.model.linear import PackedWeight, build_linear, share_weight, stored_weight
from scratchlm.model.token_embedding import TokenEmbedding

WEIGHT_STD = 0.02  # GPT-2 initialisation, std of every weight matrix
LARGE_BLOCKS = 8 * LARGEST_KEPT_BLOCK  # bytes of all blocks' weights: smaller ones leave little to give back


class GPTModel(nn.Module):
    """A decoder-only transformer: embed the tokens, refine them block by block, predict the next one.

    Shapes: ids (B, T) -> logits (B, T, V).
    Raises: ConfigError for a bad config; DataError when ids are not (B, T), are outside the vocabulary, or together
        with the cached tokens exceed context_length.
    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the book's names.
    Example:
        >>> model = GPTModel(GPTConfig(vocab_size=10, context_length=8, emb_dim=4, n_heads=2, n_layers=1))
        >>> model(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 10])
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config = as_config(cfg)
        # Created in the book's order, so that the same seed gives the book's weights.
        self.tok_emb = TokenEmbedding(config.vocab_size, config.emb_dim)
        if config.positions == "learned":
            self.pos_emb = nn.Embedding(config.context_length, config.emb_dim)
        self.drop_emb = nn.Dropout(config.drop_rate_of("drop_rate_emb"))
        self.trf_blocks = nn.Sequential(*(TransformerBlock(config) for _ in range(config.n_layers)))
        self.final_norm = norm_layer(config)
        # A tied head shares the embedding's matrix, so none is allocated: for GPT-2 it would take 154 MB.
        device = "meta" if config.tie_embeddings else None
        self.out_head = build_linear(config.emb_dim, config.vocab_size, bias=False, device=device)
        self.tie_weights()
        if config.init == "gpt2":
            self._init_as_gpt2()
        self._gives_back_halfway = False  # while memory matters more than time
        self.register_load_state_dict_pre_hook(_tied_head_for_loading)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_tie_after_loading)  # type: ignore[no-untyped-call]

    def forward(
        self,
        ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | CacheRows | None = None,
        apply_head: bool = True,
    ) -> Tensor:
        """Score every possible next token after each position.

        With apply_head=False the result is the input of `out_head`, for a caller that needs scores at few positions:
        over a large vocabulary the head is the most expensive layer. The other arguments are those of `hidden_states`.

        Shapes: ids (B, T) -> logits (B, T, V), or (B, T, E) with apply_head=False.
        """
        states = self.hidden_states(ids, attention_mask=attention_mask, positions=positions, cache=cache)
        if not apply_head:
            return states
        logits: Tensor = self.out_head(states)
        return logits

    def hidden_states(
        self,
        ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: KVCache | CacheRows | None = None,
    ) -> Tensor:
        """Compute the state of each token after the last block and its normalisation.

        `attention_mask` is True at real tokens and False at padding, which may be on either side; None means no
        padding. An integer mask keeps the texts of a packed row apart: 0 is padding, and tokens of one number form one
        text. `positions` default to the number of real tokens before each token in its text. `cache` holds earlier
        tokens of the same rows, all of them or those of `cache.rows(slots)`; the new ones are appended to it.

        Shapes: ids (B, T); attention_mask (B, S+T) for S cached tokens; positions (T,) or (B, T) -> (B, T, E).
        """
        if cache is not None and not self.config.is_causal:
            raise DataError(
                "a model that is not causal reads whole texts only, so it cannot use a cache; generate with a "
                "causal model."
            )
        rows = cache.rows() if isinstance(cache, KVCache) else cache
        x, context = self.embed(ids, attention_mask=attention_mask, positions=positions, rows=rows)
        x = self.run_blocks(x, context, rows=rows)  # (B, T, E)
        if rows is not None:
            rows.advance(ids.shape[1])
        states: Tensor = self.final_norm(x)
        return states

    def embed(
        self,
        ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        rows: CacheRows | None = None,
    ) -> tuple[Tensor, AttentionContext]:
        """Embed the tokens, and prepare the other inputs of the blocks.

        Shapes: ids (B, T) -> (B, T, E) and the context for `run_blocks`.
        """
        self._check(ids, attention_mask, 0 if rows is None else max(rows.starts))
        if rows is not None:
            rows.check_room(*ids.shape)
        context = attention_context(
            ids, self.config, attention_mask=attention_mask, positions=positions, rows=rows
        )
        try:
            x = self.tok_emb(ids)  # (B, T, E)
        except IndexError as cause:  # checking beforehand would synchronize the GPU at every call
            raise DataError(
                f"ids must be 0 to {self.config.vocab_size - 1}, got {int(ids.min())} to {int(ids.max())}; "
                "encode with the tokenizer that the model was trained with."
            ) from cause
        if self.config.positions == "learned":
            x = x + self.pos_emb(context.positions)
        return self.drop_emb(x), context

    def run_blocks(
        self,
        x: Tensor,
        context: AttentionContext,
        *,
        first: int = 0,
        last: int | None = None,
        rows: CacheRows | None = None,
    ) -> Tensor:
        """Run the blocks from number `first` up to but not including `last`; the default is all of them.

        Shapes: x (B, T, E) -> (B, T, E).
        """
        blocks = list(self.trf_blocks)
        for i in range(first, len(blocks) if last is None else last):
            if self._gives_back_halfway and i == len(blocks) // 2 and x.requires_grad:
                # In the backward pass gradients fit badly where activations were: half way those go back to the system.
                x.register_hook(lambda _: give_freed_memory_back())  # type: ignore[no-untyped-call]
            x = blocks[i](x, context, cache=None if rows is None else rows.layer(i))
        return x

    def set_activation_checkpointing(self, is_on: bool, *, recompute_cheap: bool = False) -> None:
        """Let training keep only each block's input, and compute its activations again in the backward pass.

        This saves most of their memory for one more forward pass; gradients are the same to the last bit. Without it,
        `recompute_cheap` computes only norms and activation functions again: a third of the memory, for a few percent
        of the time.
        Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
        """
        n_bytes = sum(parameter.nbytes for parameter in self.trf_blocks.parameters())
        self._gives_back_halfway = recompute_cheap and not is_on and n_bytes > LARGE_BLOCKS
        for block in self.trf_blocks:
            assert isinstance(block, TransformerBlock)
            block.set_activation_checkpointing(is_on, recompute_cheap=recompute_cheap)

    def n_parameters(self, *, trainable_only: bool = False) -> int:
        """Count the parameters, and the weights of quantized layers; a tied matrix counts once."""
        n_parameters = sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable_only)
        if trainable_only:
            return n_parameters
        own = [module for module in self.modules() if module is not self.out_head or not self.has_tied_head()]
        return n_parameters + sum(module.n_weights for module in own if isinstance(module, PackedWeight))

    def tie_weights(self) -> None:
        """Let `out_head` share the token embedding's matrix, when the config says so.

        Call it again after an operation such as `to_empty` has given `out_head` a separate matrix. A head
        that was replaced, for example by a classifier's, is unchanged.
        """
        if self.has_tied_head():
            share_weight(self.tok_emb, self.out_head)

    def has_tied_head(self) -> bool:
        """Whether `out_head` shares the token embedding's matrix; a head that was replaced does not."""
        shapes, of_head = (
            {name: tensor.shape for name, tensor in stored_weight(layer).items()}
            for layer in (self.tok_emb, self.out_head)
        )
        return self.config.tie_embeddings and len(shapes) > 0 and shapes == of_head

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GPTModel:
        """Move or convert every tensor, and tie a quantized head again: its buffers are moved one by one."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if isinstance(self.tok_emb, PackedWeight):
            self.tie_weights()
        return self

    def _check(self, ids: Tensor, attention_mask: Tensor | None, n_cached: int) -> None:
        if ids.dim() != 2 or ids.numel() == 0:
            raise DataError(
                f"ids must be (B, T) and not empty, got shape {tuple(ids.shape)}; add a batch dimension."
            )
        n_tokens = n_cached + ids.shape[1]
        if n_tokens > self.config.context_length:
            raise DataError(
                f"the model reads at most {self.config.context_length} tokens, got {n_tokens} "
                f"({n_cached} cached and {ids.shape[1]} new); crop the input or use a larger context_length."
            )
        if attention_mask is not None and attention_mask.shape != (ids.shape[0], n_tokens):
            raise DataError(
                f"attention_mask must cover cached and new tokens, here {(ids.shape[0], n_tokens)}, got "
                f"shape {tuple(attention_mask.shape)}; append a True for every new token."
            )

    def _init_as_gpt2(self) -> None:
        """Set small normal weights and zero biases; output layers of residual branches shrink with depth."""
        residual_std = WEIGHT_STD / math.sqrt(2 * self.config.n_layers)  # Radford et al. 2019, section 2.3
        for name, module in self.named_modules():
            is_tied = module is self.out_head and self.config.tie_embeddings
            if isinstance(module, (nn.Linear, nn.Embedding)) and not is_tied:
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
    """Accept a tied model's file with one copy of the shared matrix; two different matrices are an error."""
    if not isinstance(model, GPTModel) or not model.has_tied_head():
        return
    for name in stored_weight(model.tok_emb):
        embedding = state_dict.get(f"{prefix}tok_emb.{name}")
        if embedding is None:
            return  # torch reports it as missing
        head = state_dict.setdefault(f"{prefix}out_head.{name}", embedding)
        if head is not embedding and not torch.equal(head, embedding):
            errors.append(
                f"out_head.{name} and tok_emb.{name} differ, but the model is tied (tie_embeddings=True); "
                "build it with tie_embeddings=False."
            )


def _tie_after_loading(model: nn.Module, _incompatible_keys: Any) -> None:
    """Tie the weights again: loading with assign=True gives embedding and head a tensor each."""
    if isinstance(model, GPTModel):
        model.tie_weights()
