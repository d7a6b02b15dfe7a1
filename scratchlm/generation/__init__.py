"""Generate text from a model's logits: sampling, beam search, stopping and streaming.

Start with `scratchlm.generation.generate.generate` and `scratchlm.generation.config.GenerationConfig`.
"""
