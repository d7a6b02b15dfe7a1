"""Train a model: the loop, the optimizers, checkpoints, resuming and logs."""
