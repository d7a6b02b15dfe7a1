"""Appendix E, fine-tuning with LoRA: the three names are those of `scratchlm.finetuning.lora`.

They scale by alpha / rank, as the book's repository does today and the paper always did. The printed book
scales by alpha alone: for its accuracies (rank 16, alpha 16, learning rate 5e-5) say `scaling="alpha"`. How
many parameters learn, the layers' names and their random start are the same either way.
"""

from __future__ import annotations

from scratchlm.finetuning.lora import LinearWithLoRA, LoRALayer, replace_linear_with_lora

__all__ = ["LinearWithLoRA", "LoRALayer", "replace_linear_with_lora"]
