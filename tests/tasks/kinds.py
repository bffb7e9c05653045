"""A tokenizer of every kind, for the same few words, and small encoders."""

import json

import numpy as np

from tinyformer import nn
from tinyformer.models import ModelConfig, build
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, WordTokenizer
from tinyformer.text.bpe_training import train_bpe
from tinyformer.text.huggingface import HuggingFaceTokenizer
from tinyformer.text.special import special_tokens

WORDS = ["paris", "the", "pa", "is", "é", "U.S.", "don't", "---", "12", "parisparis", "\U0001f600"]
MARKS = special_tokens("encoder")
NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "paris", "##paris", "the", "pa", "is", "e", "u", ".", "s", "don"]
NAMES += ["'", "t", "-", "1", "##2"]


def _published(backend, names=()):
    size = max(backend.get_vocab().values()) + 1
    return HuggingFaceTokenizer(json.loads(backend.to_str()), size, special_tokens=names)


def _all():
    counts = {f" {word}": 4 - len(word) % 3 for word in WORDS[:6]}
    found = {
        "bytes": ByteTokenizer(MARKS),
        "chars": CharTokenizer("".join(sorted(set(" ".join(WORDS)))), MARKS),
        "pairs": BPETokenizer(train_bpe(counts, 280), MARKS),
        "spaces": BPETokenizer([(112, 97), (256, 114)], MARKS),  # the space before a word is a token of its own
        "words": WordTokenizer(WORDS, MARKS),
    }
    try:
        import tokenizers
    except ImportError:
        return found
    letters = tokenizers.ByteLevelBPETokenizer()
    letters.train_from_iterator([" ".join(WORDS)] * 3, vocab_size=275)
    pieces = tokenizers.SentencePieceUnigramTokenizer()
    pieces.train_from_iterator([" ".join(WORDS)] * 3, vocab_size=40, special_tokens=["<unk>"], unk_token="<unk>")
    lower = tokenizers.BertWordPieceTokenizer({name: i for i, name in enumerate(NAMES)})
    lower.add_special_tokens(NAMES[:5])
    return found | {
        "word pieces": _published(lower),
        "byte letters": _published(letters, MARKS),
        "low lines": _published(pieces, MARKS),
    }


TOKENIZERS = _all()
LOSSLESS = ("bytes", "chars", "pairs", "spaces", "byte letters")


def config(tokenizer, context=24, **choices):
    sizes = {"vocabulary": tokenizer.vocabulary_size, "layers": 1, "heads": 2, "width": 8, "hidden": 16, "segments": 2}
    return ModelConfig(mode="encoder", context=context, **sizes | choices)


def model_for(task, dtype="float64"):
    """A model with a head, and weights so large that its answers differ."""
    model = task.model(build(task.config, dtype=dtype), nn.Initializer("numpy", dtype, 1))
    rng = np.random.default_rng(5)
    model.assign({name: rng.standard_normal(p.shape) * 0.5 for name, p in model.parameters().items()})
    return model
