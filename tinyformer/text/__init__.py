"""Text in, token ids out: tokenizers, corpora on the disk, and the windows that training reads.

Reading order: `spans`, `special`, `tokenizers`, `bpe`, `bpe_training`, `vocabulary`, `corpus`, `batches`.
Nothing here knows about tensors; read `tinyformer.tensor` before or after, as you like.
"""

from .batches import Shuffle, Windows, scoring_rows
from .bpe import BPETokenizer
from .corpus import TokenFile, encode_corpus, split_corpus
from .special import special_tokens
from .tokenizers import ByteTokenizer, CharTokenizer, Tokenizer
from .vocabulary import load_tokenizer, make_tokenizer

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Shuffle",
    "TokenFile",
    "Tokenizer",
    "Windows",
    "encode_corpus",
    "load_tokenizer",
    "make_tokenizer",
    "scoring_rows",
    "special_tokens",
    "split_corpus",
]
