"""Build a tiktoken encoder, whose merge loop is written in Rust: the fast engine for token shards and serving."""

import tiktoken

from scratchlm.core.errors import ConfigError
from scratchlm.tokenizers.merging import Merge
from scratchlm.tokenizers.patterns import GPT2_PATTERN

# tiktoken 0.14 panics on a run of a million spaces (its regular expression's stack overflows); 100,000 work.
# Longer chunks without a safe place to split go through our own loop.
MAX_CHUNK_CHARS = 100_000


def build_encoding(merges: list[Merge], vocab: dict[bytes, int]) -> tiktoken.Encoding:
    """Build a tiktoken encoder from checked tables, with GPT-2's pattern and without downloads.

    tiktoken has no list of merges: it joins the neighbours whose joined bytes have the lowest id.
    Raises: ConfigError when the ids do not increase from merge to merge, or a merge comes before one that makes its
        part.
    """
    ranks = {token: vocab[token] for token in map(bytes, zip(range(256)))}
    latest = -1
    for left, right in merges:
        id_ = vocab[left + right]
        if id_ <= latest or left not in ranks or right not in ranks:
            raise ConfigError(
                'engine="tiktoken" needs merges in the order learned, with increasing ids, but the merge of '
                f'{left!r} and {right!r} is out of order; use engine="python".'
            )
        ranks[left + right] = latest = id_
    return tiktoken.Encoding("scratchlm", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
