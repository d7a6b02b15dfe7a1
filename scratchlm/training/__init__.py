"""Batches to a better model: one engine for every task."""
