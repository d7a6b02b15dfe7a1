"""The X-ray of a dataset: what is in the files before a model learns from them; `inspect_data` does all of it."""

from scratchlm.data.audit.data_audit import inspect_data

__all__ = ["inspect_data"]
