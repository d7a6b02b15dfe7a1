"""Run a classifier's last block only for the position of each text that the head reads."""

import math
from typing import cast

import torch
from torch import Tensor

from scratchlm.model.attention import MultiHeadAttention
from scratchlm.model.attention_context import AttentionContext
from scratchlm.model.block import TransformerBlock
from scratchlm.model.gpt import GPTModel
from scratchlm.model.linear import dense_weight, is_plain_linear


def gather_positions(x: Tensor, query_positions: Tensor) -> Tensor:
    """Gather one position of each row.

    Shapes: x (B, T, E), query_positions (B,) -> (B, 1, E).
    """
    return x[torch.arange(len(x), device=x.device), query_positions][:, None]


def run_blocks_at(
    model: GPTModel, x: Tensor, query_positions: Tensor, context: AttentionContext, *, first: int
) -> Tensor:
    """Run the blocks from number `first` on; of the last one, compute one position of each row.

    Shapes: x (B, T, E), query_positions (B,) -> (B, 1, E).
    """
    blocks = list(model.trf_blocks)
    if first == len(blocks):
        return gather_positions(x, query_positions)
    x = model.run_blocks(x, context, first=first, last=len(blocks) - 1)
    block = cast(TransformerBlock, blocks[-1])
    attended = attend_one_query(block.att, block.norm1(x), query_positions, context)  # (B, 1, E)
    x = gather_positions(x, query_positions) + block.drop_shortcut(attended)
    x = x + block.drop_shortcut(block.ff(block.norm2(x)))
    return x


def attend_one_query(
    attention: MultiHeadAttention, x: Tensor, query_positions: Tensor, context: AttentionContext
) -> Tensor:
    """Compute attention for one query position per row.

    Keys and values then need not be computed for every token. A score is q . (W x) = (W^T q) . x, so the query is
    multiplied by the key matrix once, and likewise the weighted average of the tokens by the value matrix once. This
    needs plain projections; rotated, normalised or shared keys and layers with adapters use ordinary attention.

    Shapes: x (B, T, d_in), query_positions (B,) -> (B, 1, out_dim).
    """
    mask = _mask_of_queries(attention, query_positions, x.shape[1], context.mask)  # (B, 1, 1, T)
    is_plain = is_plain_linear(attention.W_key) and is_plain_linear(attention.W_value)
    has_own_keys = attention.n_kv_heads == attention.num_heads and attention.query_norm is None
    if not is_plain or not has_own_keys or context.cos_sin is not None:
        queries, keys, values = attention.project(x, context)  # (B, H, T, D)
        rows = torch.arange(len(x), device=x.device)
        query = queries[rows, :, query_positions][:, :, None]  # (B, H, 1, D)
        mixed = attention.attend(query, keys, values, mask).transpose(1, 2)  # (B, 1, H, D)
    else:
        mixed = _attend_without_keys(attention, x, query_positions, mask)[:, None]  # (B, 1, H, D)
    output: Tensor = attention.out_proj(mixed.flatten(2))  # (B, 1, out_dim)
    return output


def _attend_without_keys(
    attention: MultiHeadAttention, x: Tensor, query_positions: Tensor, mask: Tensor
) -> Tensor:
    """The attention-weighted values of each head: (B, H, D)."""
    n_heads, head_dim, d_in = attention.num_heads, attention.head_dim, x.shape[-1]
    key_matrix = dense_weight(attention.W_key).view(n_heads, head_dim, d_in)  # (H, D, d_in)
    value_matrix = dense_weight(attention.W_value).view(n_heads, head_dim, d_in)  # (H, D, d_in)
    query = attention.W_query(gather_positions(x, query_positions)).view(len(x), n_heads, head_dim)
    token_queries = (query.transpose(0, 1) @ key_matrix).transpose(0, 1)  # (B, H, d_in)
    scores = token_queries @ x.mT  # (B, H, T)
    if attention.W_key.bias is not None:
        key_bias = attention.W_key.bias.view(n_heads, head_dim)
        scores = scores + (query * key_bias).sum(dim=-1, keepdim=True)
    scores = scores / math.sqrt(head_dim)
    weights = attention.dropout(scores.masked_fill(~mask.squeeze(1), -math.inf).softmax(dim=-1))  # (B, H, T)
    tokens = (weights @ x).transpose(0, 1)  # (H, B, d_in)
    mixed: Tensor = (tokens @ value_matrix.mT).transpose(0, 1)  # (B, H, D)
    if attention.W_value.bias is not None:
        total_weight = weights.sum(dim=-1, keepdim=True)  # 1, except with dropout
        mixed = mixed + total_weight * attention.W_value.bias.view(n_heads, head_dim)
    return mixed


def _mask_of_queries(
    attention: MultiHeadAttention, query_positions: Tensor, n_tokens: int, mask: Tensor | None
) -> Tensor:
    """Which tokens each query may attend to: (B, 1, 1, T)."""
    if mask is not None:
        rows = torch.arange(len(query_positions), device=query_positions.device)
        return mask[rows, :, query_positions][:, :, None]
    keys = torch.arange(n_tokens, device=query_positions.device)  # (T,)
    last_keys = query_positions if attention.is_causal else torch.full_like(query_positions, n_tokens - 1)
    return (keys <= last_keys[:, None])[:, None, None]
