"""How much the slow tests try: a sample in CI, everything with SCRATCHLM_THOROUGH=1, which takes more than an hour."""

import os

THOROUGH = bool(os.environ.get("SCRATCHLM_THOROUGH"))
