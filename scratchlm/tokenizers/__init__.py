"""Convert text to token ids and back: word tokenizers as in the book, and byte-level BPE."""

from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.decoding import StreamDecoder
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, UNKNOWN
from scratchlm.tokenizers.word import (
    LosslessWordTokenizer,
    StrictWordTokenizer,
    WordTokenizer,
    build_vocab,
    split_words,
)

__all__ = [
    "END_OF_TEXT",
    "UNKNOWN",
    "BPETokenizer",
    "LosslessWordTokenizer",
    "StreamDecoder",
    "StrictWordTokenizer",
    "WordTokenizer",
    "build_vocab",
    "load_gpt2_tokenizer",
    "load_tokenizer",
    "split_words",
    "train_bpe",
]
