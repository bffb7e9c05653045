"""Times the byte-pair encoding against Hugging Face's `tokenizers`, alternately in one process.

    python tests/text/benchmark_bpe.py TEXT... [--megabytes 10] [--vocabulary 8192] [--rounds 3]

The texts are joined and repeated to the size wanted. `tokenizers` is Rust and uses every core unless
TOKENIZERS_PARALLELISM=false or RAYON_NUM_THREADS=1 is set; ours is one Python process.
"""

import argparse
import tempfile
import time
from pathlib import Path

import tokenizers

from tinyformer.text import BPETokenizer, make_tokenizer


def ours(path: Path, text: str, size: int) -> tuple[float, float, int]:
    start = time.perf_counter()
    tokenizer = make_tokenizer("bpe", [path], vocabulary_size=size)
    trained = time.perf_counter()
    tokenizer = BPETokenizer(tokenizer.merges)  # remembers nothing of the text yet
    encoding = time.perf_counter()
    count = len(tokenizer.encode(text))
    return trained - start, time.perf_counter() - encoding, count


def theirs(path: Path, text: str, size: int) -> tuple[float, float, int]:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    start = time.perf_counter()
    tokenizer.train([str(path)], trainer)
    trained = time.perf_counter()
    lines = text.splitlines(keepends=True)
    encoding = time.perf_counter()
    count = sum(len(encoded.ids) for encoded in tokenizer.encode_batch_fast(lines))
    return trained - start, time.perf_counter() - encoding, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size = int(options.megabytes * 1e6)
    text = b"".join(path.read_bytes() for path in options.texts)
    text = (text * (size // len(text) + 1))[:size].decode("utf-8", "ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_text(text, encoding="utf-8", newline="")
        for _ in range(options.rounds):
            for name, run in (("tinyformer", ours), ("tokenizers", theirs)):
                train, encode, count = run(path, text, options.vocabulary)
                print(
                    f"{name}: train {train:5.2f} s, encode {encode:5.2f} s = {size / 1e6 / encode:5.2f} MB/s, "
                    f"{count} tokens",
                    flush=True,
                )


if __name__ == "__main__":
    main()
