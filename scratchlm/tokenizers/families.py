"""The BPE rules of known model families, for tokenizer files that do not state them.

Source: the tokenizer.json files that the families' authors published.
"""

from scratchlm.tokenizers.huggingface_json import BPEVariant
from scratchlm.tokenizers.normalizers import NFC
from scratchlm.tokenizers.pretokenizer import ByteLevel, Digits, steps_of

LLAMA3_PATTERN = (  # GPT-4's cl100k pattern without its possessive quantifiers, which split in the same way
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K_PATTERN = (  # of GPT-4o and gpt-oss: a word ends where capital letters begin
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_PATTERN = O200K_PATTERN.replace(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace(r"\p{N}{1,3}", r"\p{N}")

GPT2 = BPEVariant()
SMOLLM = BPEVariant(steps=(Digits(individual_digits=True), ByteLevel()))  # and StarCoder
CL100K = BPEVariant(steps=steps_of(LLAMA3_PATTERN))
LLAMA3 = BPEVariant(steps=steps_of(LLAMA3_PATTERN), ignore_merges=True)
QWEN2 = BPEVariant(steps=steps_of(QWEN2_PATTERN), normalizers=(NFC(),))
O200K = BPEVariant(steps=steps_of(O200K_PATTERN))
TEKKEN = BPEVariant(steps=steps_of(TEKKEN_PATTERN), ignore_merges=True)  # Mistral's since Nemo
