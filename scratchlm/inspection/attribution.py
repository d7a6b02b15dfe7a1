"""Direct logit attribution: split a logit into the contributions of embeddings, heads and feed-forward networks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scratchlm.inspection.hooks import layer_names
from scratchlm.model.block import TransformerBlock
from scratchlm.model.gpt import GPTModel
from scratchlm.model.layer_norm import LayerNorm


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitParts:
    """The terms of a sum that is one logit. Units: logits, that is nats."""

    embedding: float  # the token embedding
    position: float  # the position embedding; 0 for rotary positions
    heads: list[list[float]]  # [layer][head]
    attention_bias: list[float]  # [layer]; the bias of attention's output, which belongs to no head
    feed_forward: list[float]  # [layer]
    constant: float  # the shift of the final LayerNorm and the bias of the output head

    def total(self) -> float:
        """The sum of all parts: the logit."""
        by_layer = [*self.attention_bias, *self.feed_forward, *(part for row in self.heads for part in row)]
        return self.embedding + self.position + self.constant + sum(by_layer)


def part_names(model: GPTModel) -> list[str]:
    """The hook points that `attribute_logits` reads."""
    positions = ["hook_pos_embed"] if model.config.positions == "learned" else []
    in_layers = layer_names(model, "attn.hook_z") + layer_names(model, "hook_mlp_out")
    return ["hook_embed", *positions, *in_layers, "ln_final.hook_scale"]


def attribute_logits(
    model: GPTModel, values: Mapping[str, Tensor], directions: Tensor, biases: Tensor
) -> list[LogitParts]:
    """Split each score into the parts that the residual stream is a sum of.

    The final normalisation is linear once its divisor is fixed to the value that it has for this text, so every part
    has an exact share of the score. `directions` are the gradients of the scores with respect to the final states: for
    a token's logit its row of the output head, at the position that is read. `biases` are the scores of a zero state.

    Shapes: values recorded for ids (1, T); directions (N, T, E), biases (N,) -> N sums.
    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", with heads as in TransformerLens.
    """
    with torch.no_grad():
        at = directions.abs().sum(dim=(0, 2)).nonzero().flatten()  # (P,) positions that the head reads
        norm = model.final_norm
        scale = values["ln_final.hook_scale"][0, at]  # (P, 1)
        toward = directions[:, at] * norm.scale / scale  # (N, P, E)
        constant = biases  # (N,)
        if isinstance(norm, LayerNorm):
            constant = constant + directions.sum(dim=1) @ norm.shift
            toward = toward - toward.mean(dim=-1, keepdim=True)  # the norm subtracts each part's mean

        def share(part: Tensor) -> Tensor:
            return torch.einsum("npe,...pe->n...", toward, part)  # (N, ...)

        embedding = share(values["hook_embed"][0, at])  # (N,)
        position = torch.zeros_like(embedding)
        if "hook_pos_embed" in values:
            position = share(values["hook_pos_embed"].flatten(0, -2)[at])
        heads, attention_bias, feed_forward = [], [], []
        for layer, block in enumerate(model.trf_blocks):
            assert isinstance(block, TransformerBlock)
            each, bias = _head_outputs(block, values[f"blocks.{layer}.attn.hook_z"][0, at])
            heads.append(share(each))  # (N, H)
            attention_bias.append(share(bias.expand(len(at), -1)))  # (N,)
            feed_forward.append(share(values[f"blocks.{layer}.hook_mlp_out"][0, at]))  # (N,)
    return [
        LogitParts(
            embedding=embedding[i].item(),
            position=position[i].item(),
            heads=[row[i].tolist() for row in heads],
            attention_bias=[row[i].item() for row in attention_bias],
            feed_forward=[row[i].item() for row in feed_forward],
            constant=constant[i].item(),
        )
        for i in range(len(directions))
    ]


def _head_outputs(block: TransformerBlock, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """What each head adds to the residual stream, and the bias that is added besides.

    The output layer is called, not its weight read, so that quantized layers and adapters work too.

    Shapes: mixed (P, H, D) -> (H, P, E), (E,).
    """
    n_heads = mixed.shape[1]
    identity = torch.eye(n_heads, device=mixed.device, dtype=mixed.dtype)
    alone = identity[:, None, :, None] * mixed  # (H, P, H, D)
    bias = block.att.out_proj(torch.zeros_like(mixed[0].flatten()))  # (E,)
    return block.att.out_proj(alone.flatten(2)) - bias, bias
