"""The arrays in this folder's checkpoints, from fixed seeds, so that tests need no TensorFlow."""

import numpy as np
from numpy.typing import NDArray

E, V, T, N_HEADS, N_LAYERS = 8, 280, 16, 2, 2
KINDS = (
    "float32", "float64", "float16", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "complex64",
)  # fmt: skip
N_MANY = 300  # names enough for several blocks of the index
BFLOAT16 = [[1.5, -2.25], [3.0, 65536.0]]


def gpt2() -> dict[str, NDArray[np.float32]]:
    """Arrays with the names and shapes of OpenAI's files, at a tiny size."""
    dice = np.random.default_rng(1)

    def random(*shape: int) -> NDArray[np.float32]:
        return dice.normal(0, 0.3, shape).astype(np.float32)

    arrays = {"wte": random(V, E), "wpe": random(T, E), "ln_f/g": 1 + random(E), "ln_f/b": random(E)}
    for i in range(N_LAYERS):
        for norm in ("ln_1", "ln_2"):
            arrays[f"h{i}/{norm}/g"], arrays[f"h{i}/{norm}/b"] = 1 + random(E), random(E)
        for layer, n_in, n_out in (
            ("attn/c_attn", E, 3 * E),
            ("attn/c_proj", E, E),
            ("mlp/c_fc", E, 4 * E),
            ("mlp/c_proj", 4 * E, E),
        ):
            arrays[f"h{i}/{layer}/w"], arrays[f"h{i}/{layer}/b"] = random(1, n_in, n_out), random(n_out)
    return {f"model/{name}": array for name, array in arrays.items()}


def kinds() -> dict[str, NDArray[np.generic]]:
    """One array of every number type, a scalar, an empty one, and many small ones."""
    dice = np.random.default_rng(2)
    arrays: dict[str, NDArray[np.generic]] = {
        kind: dice.integers(0, 100, (2, 3)).astype(kind) for kind in KINDS
    }
    arrays["scalar"] = np.array(3.5, np.float32)
    arrays["empty"] = np.zeros((0, 4), np.float32)
    for i in range(N_MANY):
        arrays[f"many/variable_number_{i:03d}/kernel"] = np.full((2,), i, np.float32)
    return arrays
