"""Early stopping: end the training when the validation loss no longer falls."""

from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress


def should_stop_early(progress: Progress, config: TrainingConfig) -> bool:
    """Whether the last `patience` scheduled evaluations brought no new best validation loss."""
    return config.patience is not None and progress.evals_since_best >= config.patience
