"""`scratchlm` and `python -m scratchlm`: install the signal handlers, then load the command line."""

import os
import sys

from scratchlm.training.interrupts import process_signals

# How often a thread of GNU OpenMP polls for work before it sleeps. With its much higher default, waiting threads on a
# busy machine take the processor from the threads they wait for.
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
