"""`scratchlm` and `python -m scratchlm`: answer signals first, then load the command line."""

import os
import sys

from scratchlm.training.interrupts import process_signals

# How often a thread of GNU's OpenMP looks for work before it sleeps. Its own default is so high that on a busy
# machine waiting threads take the processor from those they wait for.
SPINS = "1000"


def run_process() -> int:
    """Run the command of this process; returns its exit code."""
    process_signals.install()  # before the imports below take their time
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported
    from scratchlm.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run_process())
