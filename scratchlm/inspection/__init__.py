"""Inspect a model: attention maps, and the probability of every token of a text."""
