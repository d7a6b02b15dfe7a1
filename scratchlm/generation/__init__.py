"""Logits to new ids: samplers, stopping, streaming.

The way in is `scratchlm.generation.generate.generate` with a `scratchlm.generation.config.GenerationConfig`.
"""
