"""Inspect a model: hook points, attention, logit lens, contributions to a logit, token probabilities."""
