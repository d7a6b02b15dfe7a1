"""Inspect what a model computes for one text: a single pass, and everything that can be read from it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.samplers import check_scores
from scratchlm.inspection.attention_maps import PATTERN, summarize_heads
from scratchlm.inspection.attribution import LogitParts, attribute_logits, part_names
from scratchlm.inspection.hooks import layer_names, recorded
from scratchlm.inspection.inspection import (
    Explanation,
    InspectedToken,
    Inspection,
    LensCell,
    Neighbour,
    Norms,
)
from scratchlm.inspection.logit_lens import logit_lens, residual_names
from scratchlm.inspection.neighbours import nearest_tokens
from scratchlm.inspection.readers import ClassReader, Reader, TokenReader, candidates, token_text
from scratchlm.inspection.traces import TokenProbability
from scratchlm.model.gpt import GPTModel
from scratchlm.model.modes import evaluation_mode

MAX_TOKENS = 64  # attention grows with its square: 30 layers of 9 heads make 3 MB of JSON


class _Pass(NamedTuple):
    """One forward pass, with gradients from the embeddings onwards."""

    values: Mapping[str, Tensor]  # at hook points
    embeddings: Tensor  # (1, T, E)
    states: Tensor  # (1, T, E), after the final normalisation
    logits: Tensor  # (V,), of the prediction


def inspect_prompt(
    model: GPTModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    task: Mapping[str, Any] | None = None,
    targets: Sequence[str] = (),
    n_choices: int = 3,
    n_top: int = 5,
    max_tokens: int = MAX_TOKENS,
) -> Inspection:
    """Let a language model or a classifier read a text, and show how it arrives at its prediction.

    `task` is the content of a classifier's `task.json`. The `n_choices` most likely next tokens or classes are
    explained, and also those named in `targets`; lists of alternatives have `n_top` entries.

    Raises: DataError for a text without tokens, or with more than `max_tokens` or the model's context; ConfigError for
        a target that is not one token or a class, a number below 1, or a model that is neither causal nor a classifier.
    """
    check_at_least(1, n_choices=n_choices, n_top=n_top, max_tokens=max_tokens)
    is_classifier = task is not None and task.get("kind") == "classification"
    reader: Reader = ClassReader(tokenizer, task or {}) if is_classifier else TokenReader(tokenizer)
    if not is_classifier and not model.config.is_causal:
        raise ConfigError(
            "inspect needs a causal language model or a classifier, got a model that attends to the future and has "
            "no classes; choose another model."
        )
    ids = reader.ids(text)
    if not 1 <= len(ids) <= max_tokens:
        advice = "shorten it (`scratchlm inspect --max-tokens` reads more)" if ids else "give a longer text"
        raise DataError(f"a text to inspect must have 1 to {max_tokens} tokens, got {len(ids)}; {advice}.")
    wanted = [reader.number(target) for target in targets]
    done = _run(model, ids, reader)
    probs = done.logits.detach().float().softmax(dim=-1)  # (V,)
    best = probs.topk(min(n_choices, len(probs))).indices.tolist()
    chosen = list(dict.fromkeys([*best, *wanted]))
    saliency, parts = _explain(model, done, chosen)
    lens = logit_lens(
        model,
        [done.values[name][0] for name in residual_names(model)],
        torch.tensor(reader.followers(ids, chosen[0]), device=probs.device),
        n_alternatives=n_top,
        pool=reader.pool if is_classifier else None,
    )
    maps = torch.stack([done.values[name][0] for name in layer_names(model, PATTERN)])  # (L, H, T, T)
    return Inspection(
        kind=reader.kind,
        tokens=_tokens(model, tokenizer, ids, [] if is_classifier else lens[-1][:-1], n_top),
        choices=[
            Explanation(
                id=number,
                text=reader.name(number),
                prob=probs[number].item(),
                logit=done.logits[number].item(),
                saliency=saliency[i].tolist(),
                parts=parts[i],
            )
            for i, number in enumerate(chosen)
        ],
        mean_logit=done.logits.mean().item(),
        mean_parts=parts[-1],
        lens=[
            [LensCell(prob=e.prob, rank=e.rank, top=candidates(reader, e.alternatives)) for e in row]
            for row in lens
        ],
        norms=_norms(model, done.values),
        heads=summarize_heads(maps, ids),
        attention=_rounded(maps, is_causal=model.config.is_causal),
    )


def _run(model: GPTModel, ids: Sequence[int], reader: Reader) -> _Pass:
    """Run the model once.

    Raises: DataError for scores that are not finite.
    """
    in_layers = layer_names(model, PATTERN) + layer_names(model, "hook_attn_out")
    names = [*residual_names(model), *part_names(model), *in_layers]
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)  # (1, T)
    with evaluation_mode(model), torch.enable_grad(), recorded(model, names) as values:
        x, context = model.embed(tokens)
        x = x.detach().requires_grad_()
        states = model.final_norm(model.run_blocks(x, context))
        logits = model.out_head(reader.pool(states[0]))[0]
    check_scores(logits.detach()[None])
    return _Pass({name: value.detach() for name, value in values.items()}, x, states, logits)


def _explain(model: GPTModel, done: _Pass, chosen: Sequence[int]) -> tuple[list[Tensor], list[LogitParts]]:
    """Gradient times input of each chosen logit minus the mean logit, and the parts of these logits and of the mean.

    Only differences between logits change probabilities: the mean is what all tokens have in common.

    Shapes: N ids -> N of (T,), and N + 1 sums.
    """
    scores = [*(done.logits[i] for i in chosen), done.logits.mean()]
    inputs = (done.embeddings, done.states)
    gradients = [torch.autograd.grad(score, inputs, retain_graph=True) for score in scores]
    with torch.no_grad():
        bias = model.out_head(torch.zeros_like(done.states[0, 0]))  # (V,), zeros for a head without a bias
        biases = torch.stack([*(bias[i] for i in chosen), bias.mean()])  # (N + 1,)
        of_mean = gradients[-1][0]
        saliency = [((of_x - of_mean) * done.embeddings)[0].sum(dim=-1) for of_x, _ in gradients[:-1]]
    directions = torch.cat([of_states for _, of_states in gradients])  # (N + 1, T, E)
    return saliency, attribute_logits(model, done.values, directions, biases)


def _tokens(
    model: GPTModel,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    predictions: Sequence[TokenProbability],
    n_top: int,
) -> list[InspectedToken]:
    """The tokens of the text; `predictions` begin with the second token, and are empty for a classifier."""
    tokens = []
    for i, near in enumerate(nearest_tokens(model, ids, n=n_top)):
        seen = predictions[i - 1] if i > 0 and predictions else None
        nearest = [Neighbour(id=id_, text=token_text(tokenizer, id_), similarity=s) for id_, s in near]
        about: dict[str, Any] = {}
        if seen is not None:
            about = {"prob": seen.prob, "loss": seen.loss, "rank": seen.rank}
            about["alternatives"] = candidates(TokenReader(tokenizer), seen.alternatives)
        tokens.append(InspectedToken(id=ids[i], text=token_text(tokenizer, ids[i]), nearest=nearest, **about))
    return tokens


def _norms(model: GPTModel, values: Mapping[str, Tensor]) -> Norms:
    def lengths(names: Sequence[str]) -> list[list[float]]:
        return [values[name][0].norm(dim=-1).tolist() for name in names]  # [layer][token]

    return Norms(
        residual=lengths(residual_names(model)),
        attention=lengths(layer_names(model, "hook_attn_out")),
        feed_forward=lengths(layer_names(model, "hook_mlp_out")),
    )


def _rounded(maps: Tensor, *, is_causal: bool) -> list[Any]:
    """Nested lists with 3 decimals; the rows of a causal model end at the query itself."""
    rows: list[Any] = maps.double().round(decimals=3).tolist()
    if not is_causal:
        return rows
    return [[[row[: i + 1] for i, row in enumerate(head)] for head in layer] for layer in rows]
