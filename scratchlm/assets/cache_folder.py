"""The folder for downloads and derived files."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The folder for downloads and derived files: `$SCRATCHLM_HOME`, or else the system's cache folder."""
    named = os.environ.get("SCRATCHLM_HOME")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("scratchlm", appauthor=False)
