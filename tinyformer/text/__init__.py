"""Text in, token ids out: tokenizers, corpora on the disk, and the windows that training reads.

Reading order: `spans`, `special`, `tokenizers`, `words`, `bpe`, `bpe_training`, `huggingface`, `vocabulary`,
`token_file`, `documents`, `encoding`, `corpus`, `parts`, `pairs`, `batches`, and `sources`, which cuts rows for an
objective. The others know nothing about tensors or objectives; read `tinyformer.tensor` before or after, as you like.
"""

from .batches import Shuffle, Windows, scoring_rows
from .bpe import BPETokenizer
from .corpus import encode_corpus, split_corpus
from .pairs import Pairs, encode_pairs, split_pairs
from .parts import Parts
from .special import special_tokens
from .token_file import TokenFile
from .tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, line_ends
from .vocabulary import load_tokenizer, make_tokenizer
from .words import WordTokenizer

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Pairs",
    "Parts",
    "Shuffle",
    "TokenFile",
    "Tokenizer",
    "Windows",
    "WordTokenizer",
    "encode_corpus",
    "encode_pairs",
    "line_ends",
    "load_tokenizer",
    "make_tokenizer",
    "scoring_rows",
    "special_tokens",
    "split_corpus",
    "split_pairs",
]
