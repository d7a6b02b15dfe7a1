"""Early stopping: end the training when the validation loss no longer falls."""

from collections.abc import Callable

from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress


def should_stop_early(progress: Progress, config: TrainingConfig, notify: Callable[[str], None]) -> bool:
    """Whether the last `patience` scheduled evaluations brought no new best validation loss, which is then said."""
    if config.patience is None or progress.evals_since_best < config.patience:
        return False
    notify(
        f"stopped early after step {progress.step}: no validation loss was below that of step {progress.best_step} in "
        f"{progress.evals_since_best} evaluations (patience {config.patience})"
    )
    return True
