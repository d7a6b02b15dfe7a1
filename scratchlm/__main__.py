"""`scratchlm` and `python -m scratchlm`: answer signals first, then load the command line."""

import sys

from scratchlm.training.interrupts import process_signals


def run_process() -> int:
    """Run the command of this process; returns its exit code."""
    process_signals.install()  # before the imports below take their time
    from scratchlm.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run_process())
