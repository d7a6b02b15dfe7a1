"""Appendix E, fine-tuning with LoRA: the names of `scratchlm.finetuning.lora`.

They scale by alpha / rank, as the paper and the book's repository do. The printed book scales by alpha alone: pass
`scaling="alpha"` for its accuracies (rank 16, alpha 16, learning rate 5e-5). The number of trainable parameters, the
layers' names and their initial values are the same either way.
"""

from scratchlm.finetuning.lora import LinearWithLoRA, LoRALayer, replace_linear_with_lora

__all__ = ["LinearWithLoRA", "LoRALayer", "replace_linear_with_lora"]
