"""What the README shows of transformers does what it says, with runs of the kinds that it names."""

import re
from pathlib import Path

import pytest
import transformers

import tinyformer
from tinyformer import interop
from tinyformer.generation import fill_masks
from tinyformer.interop.directory import write_run
from tinyformer.models import build, resolve
from tinyformer.tasks import Example
from tinyformer.tasks.predicting import predict
from tinyformer.text import BPETokenizer, load_tokenizer
from tinyformer.text.bpe_training import train_bpe
from tinyformer.text.special import special_tokens
from tinyformer.training import finetuning, tuning
from tinyformer.training.rundir import new_run, open_run
from tinyformer.training.trainer import train

pytestmark = pytest.mark.oracle

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
WORDS = {"Ada": "B-PER", "Bob": "B-PER", "Paris": "B-LOC", "saw": "O", "left": "O", "gladly": "O"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with runs/my-encoder, whose tokens are words with the space before them."""
    monkeypatch.chdir(tmp_path)
    counts = {f" {word}": 4 for word in (*WORDS, "love", "this", "car", "film", "long")}
    tokenizer = BPETokenizer(train_bpe(counts, 300), special_tokens("encoder"))
    shape = resolve(mode="encoder", layers=2, width=32, heads=2, context=64, vocabulary=tokenizer.vocabulary_size)
    with new_run(Path("runs/my-encoder"), "x", "encoder") as run:
        write_run(run, build(shape, seed=1), tokenizer)
    return run.path


def finetuned(start, task, text, out):
    Path("train.txt").write_text(text)
    config = tuning.settings(task, str(start), "train.txt", epochs=4, batch_size=8, threads=1, learning_rate=0.01)
    train(config, lambda event: None, out=out)
    interop.export_run(out, Path(out).name + "-out", warn=pytest.fail)
    run = open_run(out)
    return finetuning.open_task(run, run.config()), tinyformer.load(out, backend="numpy")


def test_its_code_fills_in_and_classifies_as_we_do(place, capsys):
    (code,) = re.findall(r"^```python\n(from transformers.*?)^```$", README, re.DOTALL | re.MULTILINE)
    interop.export_run(place, "fill", warn=pytest.fail)
    reviews = "A fine film\tgood\nToo long by half\tbad\n"
    task, model = finetuned(place, "classify", reviews * 12, "runs/reviews-classify")
    Path("reviews-classify-out").rename("reviews")
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    tokenizer = load_tokenizer(place / "tokenizer.json")
    (wanted,) = fill_masks(tinyformer.load(place, backend="numpy"), tokenizer, "I love this <mask> car")
    assert len(lines) == len(wanted) + 2
    for line, ours in zip(lines, wanted):
        text, _, score = line.rpartition(" ")
        assert text == ours.text.decode("utf-8", "replace")
        assert float(score) == pytest.approx(ours.probability, rel=2e-5)
    texts = re.search(r"classify\(\[\"(.*)\", \"(.*)\"\]", code).groups()
    for line, ours in zip(lines[-2:], predict(task, model, [Example((text,), None) for text in texts]), strict=True):
        label, score = line.split()
        assert (label, float(score)) == (ours["label"], pytest.approx(ours["probabilities"][label], abs=2e-6))


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_a_taggers_entities_are_those_of_predict(place):
    words = [*WORDS] * 40
    lines = [words[i * i % 7 :: 7 + i % 5][: 3 + i % 4] for i in range(60)]
    text = "\n\n".join("\n".join(f"{word} {WORDS[word]}" for word in line) for line in lines)
    task, model = finetuned(place, "tag", text + "\n", "runs/people")
    assert 'aggregation_strategy="first"' in README
    tag = transformers.pipeline("token-classification", "people-out", aggregation_strategy="first")
    some = 0
    for line in lines[:20]:
        (ours,) = predict(task, model, [Example(tuple(line), None)])
        theirs = [(one["entity_group"], one["word"].strip()) for one in tag(" ".join(line))]
        assert [one for one in theirs if one[0] != "O"] == [(one["type"], one["text"]) for one in ours["entities"]]
        some += len(ours["entities"])
    assert some > 20
