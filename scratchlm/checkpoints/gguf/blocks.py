"""Turn llama.cpp's quantized blocks of 32 weights into our quantized matrices, where the two store the same numbers."""

import numpy as np
import numpy.typing as npt
import torch

from scratchlm.quantization.matrix import QuantizedMatrix

BLOCK = 32  # weights per block of these types
HALF = 2  # bytes of a number in half precision
_N_NUMBERS = {"Q8_0": 1, "Q4_0": 1, "Q4_1": 2}  # a scale; Q4_1 also has an offset


def has_our_layout(kind: str) -> bool:
    """Whether a type of llama.cpp's, such as Q4_1, stores codes and scales as our matrices do."""
    return kind in _N_NUMBERS


def matrix_from_blocks(data: npt.NDArray[np.uint8], shape: tuple[int, int], kind: str) -> QuantizedMatrix:
    """Separate codes, scales and offsets; the weights they stand for are exactly the same.

    Shapes: data (bytes,), for a matrix of shape (out, in) -> groups of 32.
    Source: ggml-common.h, block_q8_0, block_q4_0 and block_q4_1.
    """
    n_rows, n_groups = shape[0], shape[1] // BLOCK
    blocks = data.reshape(n_rows, n_groups, -1)  # numbers in half precision, then codes
    n_head = HALF * _N_NUMBERS[kind]
    halves = np.ascontiguousarray(blocks[..., :n_head]).view(np.float16)
    numbers = halves.astype(np.float32)  # (out, in / G, 1 or 2)
    codes = torch.from_numpy(np.ascontiguousarray(blocks[..., n_head:]).reshape(n_rows, -1))
    return QuantizedMatrix(
        codes.view(torch.int8) if kind == "Q8_0" else codes,
        torch.from_numpy(np.ascontiguousarray(numbers[..., 0])),
        torch.from_numpy(np.ascontiguousarray(numbers[..., 1])) if _N_NUMBERS[kind] == 2 else None,
    )
