"""Shorten prompts that are longer than the context, under the name in the book's package."""

from torch import Tensor

from scratchlm.core.errors import ConfigError


def trim_input_tensor(input_ids_tensor: Tensor, context_len: int, max_new_tokens: int) -> Tensor:
    """Keep the last ids of each row, leaving room for the new tokens.

    Shapes: input_ids_tensor (B, T) -> (B, at most context_len - max_new_tokens).
    Raises: ConfigError when the new tokens alone fill the context.
    """
    if not 0 <= max_new_tokens < context_len:
        raise ConfigError(
            f"max_new_tokens must be at least 0 and below context_len, got {max_new_tokens} and {context_len}; "
            "generate fewer tokens."
        )
    return input_ids_tensor[:, max_new_tokens - context_len :]
