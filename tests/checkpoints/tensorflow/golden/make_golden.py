"""Write the small files of this folder with TensorFlow itself.

    pip install tensorflow-cpu
    python make_golden.py

`gpt2.ckpt` has OpenAI's names, `kinds.ckpt` every number type and a string, `sharded.ckpt` lies in two files.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from arrays import BFLOAT16, gpt2, kinds

HERE = Path(__file__).parent


def write(prefix: str, arrays: Mapping[str, np.ndarray], **more: tf.Tensor) -> None:
    """One checkpoint, as `tf.train.Saver` writes it."""
    tensors = {**{name: tf.constant(array) for name, array in arrays.items()}, **more}
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(HERE / prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tensors[name] for name in names],
    )


def main() -> None:
    """Write all files again."""
    write("gpt2.ckpt", gpt2())
    mixed = kinds()
    write("kinds.ckpt", mixed, bfloat16=tf.constant(BFLOAT16, tf.bfloat16), string=tf.constant(["a", "bc"]))
    first = {name: array for name, array in mixed.items() if name < "many/variable_number_100"}
    write("part1.ckpt", first)
    write("part2.ckpt", {name: array for name, array in mixed.items() if name not in first})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(HERE / "part1.ckpt"), str(HERE / "part2.ckpt")],
        destination_prefix=str(HERE / "sharded.ckpt"),
        delete_old_dirs=False,
    )
    for part in HERE.glob("part?.ckpt*"):
        part.unlink()


if __name__ == "__main__":
    main()
