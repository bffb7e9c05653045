"""Byte pairs against the tokenizers package, given our merges."""

from collections import Counter

import pytest
import tokenizers

from tinyformer.text import BPETokenizer
from tinyformer.text.bpe_training import count_pieces, train_bpe

pytestmark = pytest.mark.oracle

SAMPLE = """Once upon a time there was a small dragon who couldn't breathe fire. "I'll try," he said, 12 times or 123!
  The old  dragon laughed.\tÜber den Wölken  — 你好，世界。 it's they've we'd 'tis ''s \r\n\r\n   end   """


def test_encoding_equals_that_of_the_tokenizers_package():
    counts = Counter()
    count_pieces(counts, [SAMPLE.encode() * 3])
    ours = BPETokenizer(train_bpe(counts, 340))
    # GPT-2 spells each byte as a visible character: itself if it is one, else the next from U+0100 on.
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [i for i in range(256) if i not in visible]
    names = {i: chr(i) for i in visible} | {i: chr(256 + n) for n, i in enumerate(hidden)}
    pairs = []
    for k, (left, right) in enumerate(ours.merges):
        pairs.append((names[left], names[right]))
        names[256 + k] = names[left] + names[right]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE({name: i for i, name in names.items()}, pairs))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    for text in (SAMPLE, SAMPLE[::-1], SAMPLE.upper(), "don't  stop\n\n\nnow   "):
        assert ours.encode(text).tolist() == theirs.encode(text).ids
