"""The byte-level BPE of known model families: what a file without such settings leaves to the reader's knowledge.

Source: the tokenizer.json files that the families' authors published.
"""

from __future__ import annotations

from scratchlm.tokenizers.huggingface_json import BPEVariant
from scratchlm.tokenizers.normalizers import NFC
from scratchlm.tokenizers.pretokenizer import ByteLevel, Digits, steps_of

LLAMA3_PATTERN = (  # GPT-4's cl100k pattern, but for possessive repeats, which cut the same
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

GPT2 = BPEVariant()
SMOLLM = BPEVariant(steps=(Digits(individual_digits=True), ByteLevel()))
CL100K = BPEVariant(steps=steps_of(LLAMA3_PATTERN))
LLAMA3 = BPEVariant(steps=steps_of(LLAMA3_PATTERN), ignore_merges=True)
QWEN2 = BPEVariant(steps=steps_of(QWEN2_PATTERN), normalizers=(NFC(),))
