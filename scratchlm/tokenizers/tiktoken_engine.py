"""tiktoken's merge loop, written in Rust, behind our own class: for token shards and serving."""

from __future__ import annotations

from itertools import pairwise

import tiktoken

from scratchlm.core.errors import ConfigError
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.pretokenizer import GPT2_PATTERN

# tiktoken 0.14 panics on a run of a million spaces (its regular expression's stack overflows); 100,000 are
# fine.
# Longer chunks without a safe place to cut go through our own loop.
MAX_CHUNK_CHARS = 100_000


def build_encoding(merges: list[Merge], vocab: dict[bytes, int], pattern: str) -> tiktoken.Encoding:
    """tiktoken's encoder over our own, already checked tables; nothing is downloaded.

    tiktoken has no list of merges: it joins the neighbours whose joined bytes have the lowest id.
    Raises: ConfigError when the ids do not rise from merge to merge, or the pattern is not GPT-2's.
    """
    joined = [vocab[left + right] for left, right in merges]
    if any(later <= earlier for earlier, later in pairwise(joined)) or pattern != GPT2_PATTERN:
        raise ConfigError(
            'engine="tiktoken" needs GPT-2\'s pattern and ids that rise in the order of the merges, found '
            "others; "
            'use engine="python".'
        )
    ranks = {token: vocab[token] for token in map(bytes, zip(range(256)))}
    ranks |= {left + right: id_ for (left, right), id_ in zip(merges, joined)}
    return tiktoken.Encoding("scratchlm", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
