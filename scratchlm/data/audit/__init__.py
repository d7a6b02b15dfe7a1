"""Data audit: examine a data set before training on it; `inspect_data` runs all checks."""

from scratchlm.data.audit.data_audit import inspect_data

__all__ = ["inspect_data"]
