"""Rules on the next token that depend on the tokens so far: penalties for repetition, bans and forced tokens.

Each takes the scores of one text, (V,), and returns new ones.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

MAX_DRY_LENGTH = 50  # a longer repetition is penalised like one of this length; bounds the search


def add_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add a number to the scores of some tokens.

    Shapes: logits (V,) -> (V,).
    Source: logit_bias of OpenAI's API; equals transformers' SequenceBiasLogitsProcessor for single tokens.
    """
    values = logits.new_tensor(list(bias.values()))
    return logits.index_add(0, _tensor(bias), values)


def penalize_repetition(logits: Tensor, ids: Sequence[int], penalty: float) -> Tensor:
    """Make tokens that the text already contains less likely: divide positive scores, multiply negative ones.

    Shapes: logits (V,) -> (V,).
    Source: Keskar et al. 2019, section 4.1, as Hugging Face applies it.
    """
    present = _tensor(sorted(set(ids)))
    scores = logits[present]
    return logits.index_put((present,), torch.where(scores > 0, scores / penalty, scores * penalty))


def penalize_counts(
    logits: Tensor, new_ids: Sequence[int], *, presence: float = 0.0, frequency: float = 0.0
) -> Tensor:
    """Subtract `presence` from each token that was generated, and `frequency` for each time that it was.

    The prompt does not count.
    Shapes: logits (V,) -> (V,).
    Source: presence_penalty and frequency_penalty of OpenAI's API.
    """
    counts = Counter(new_ids)
    penalties = logits.new_tensor([presence + frequency * n for n in counts.values()])
    return logits.index_add(0, _tensor(counts), -penalties)


def ban_repeated_ngrams(logits: Tensor, ids: Sequence[int], size: int) -> Tensor:
    """Exclude each token that would repeat a sequence of `size` tokens of the text.

    Shapes: logits (V,) -> (V,).
    Source: transformers' NoRepeatNGramLogitsProcessor.
    """
    text, prefix = list(ids), list(ids[len(ids) - size + 1 :])
    if len(text) < size:
        return logits.clone()
    ends = range(size - 1, len(text))
    return exclude(logits, _tensor({text[end] for end in ends if text[end - size + 1 : end] == prefix}))


def penalize_loops(
    logits: Tensor,
    ids: Sequence[int],
    *,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: Collection[int] = (),
) -> Tensor:
    """Make a token less likely that would continue a repeated sequence, the more the longer the sequence is (DRY).

    If the last n tokens also occur earlier, followed by x, the score of x falls by
    multiplier * base ** (n - allowed_length) for n of at least allowed_length. A breaker, such as a line end, ends a
    sequence, so that the structure of a list or of a dialogue can repeat.
    Shapes: logits (V,) -> (V,).
    Source: the DRY sampler of text-generation-webui and llama.cpp.
    """
    text = list(ids)
    lengths: dict[int, int] = {}  # of the longest repetition that each token would continue
    for place in range(len(text) - 1):
        following = text[place + 1]
        if following not in breakers:
            length = _common_ending(text, place, breakers)
            lengths[following] = max(length, lengths.get(following, 0))
    penalties = {
        token: -multiplier * _power(base, length - allowed_length)
        for token, length in lengths.items()
        if length >= allowed_length
    }
    return add_bias(logits, penalties)


def _common_ending(text: list[int], place: int, breakers: Collection[int]) -> int:
    """The number of tokens up to `place` that equal the last tokens of the text."""
    length = 0
    while (
        length <= min(place, MAX_DRY_LENGTH - 1)
        and text[place - length] == text[-1 - length]
        and text[place - length] not in breakers
    ):
        length += 1
    return length


def _power(base: float, exponent: int) -> float:
    """base ** exponent, infinite where Python's own would be an OverflowError."""
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def exclude(logits: Tensor, ids: Tensor) -> Tensor:
    """Exclude some tokens. Shapes: logits (V,), ids (N,) -> (V,)."""
    return logits.index_fill(0, ids, -math.inf)


def allow_only(logits: Tensor, token_id: int) -> Tensor:
    """Exclude all tokens but one, whose score becomes 0.

    Shapes: logits (V,) -> (V,).
    Source: transformers' ForcedBOSTokenLogitsProcessor.
    """
    forced = torch.full_like(logits, -math.inf)
    forced[token_id] = 0.0
    return forced


def _tensor(ids: Collection[int]) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.long)
