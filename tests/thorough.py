"""How much the slow tests try: a sample in CI, everything with SCRATCHLM_THOROUGH=1, which takes more than an hour."""

from __future__ import annotations

import os

THOROUGH = bool(os.environ.get("SCRATCHLM_THOROUGH"))
