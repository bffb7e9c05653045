"""The data that people may try a task on: `names.py` and the like, run from the command line."""

import shlex

import pytest

from tests.tasks import dates, names, sentences
from tinyformer.cli import main
from tinyformer.tasks.conll import stream_tagged

NAMES = ["Ada", "Anne", "Paris", "Great Britain", "Tom"]
TEXT = "".join(
    f"Some day {name} and I went out again with dog {i} of ours. Too short. It ends without a stop\n"
    for i, name in enumerate(NAMES * 400)
)
FIRST = "Paris was where these 9 of us were to meet again. "


def test_names_in_sentences_without_capitals(tmp_path, capsys):
    """Each sentence stands in the text twice, once of them in capitals."""
    (tmp_path / "first.txt").write_text("Other Text.")
    (tmp_path / "last.txt").write_text(FIRST * 3 + TEXT + TEXT.replace("again", "AGAIN"))
    folder = tmp_path / "new" / "a folder"
    assert names.main(str(folder), str(tmp_path / "first.txt"), str(tmp_path / "last.txt")) == 0
    pretrain = (folder / "pretrain.txt").read_text()
    assert pretrain == pretrain.lower()
    assert pretrain.startswith("other text.\n\n")
    assert "too short. it ends without a stop" in pretrain
    found = {name: list(stream_tagged(folder / f"{name}.conll")) for name in ("train", "validation")}
    assert {name: len(examples) for name, examples in found.items()} == {"train": 300, "validation": 400}
    examples = found["train"] + found["validation"]
    assert not {example.texts for example in found["train"]} & {example.texts for example in found["validation"]}
    for example in examples:
        assert " ".join(example.texts) not in pretrain
        assert all(word == word.lower() for word in example.texts)
        assert 8 <= len(example.texts) <= 20
        assert example.label[0] == "O"
        named = [word for word, tag in zip(example.texts, example.label, strict=True) if tag != "O"]
        if example.texts[0] == "some":
            assert set(named) - {"again"} <= {*" ".join(NAMES).lower().split()}
            assert named
    assert {"B-NAME", "I-NAME"} == {tag for example in examples for tag in example.label} - {"O"}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert program == "tinyformer"
        main.get_command(None, name).make_context(name, arguments)
        assert line.count(shlex.quote(str(folder) + "/")[:-2]) >= 2


@pytest.mark.parametrize(
    ("module", "arguments"),
    [(names, []), (names, ["DIR"]), (dates, []), (dates, ["a", "b"]), (sentences, []), (sentences, ["many"])],
)
def test_wrong_usage_is_one_line(module, arguments, capsys):
    assert module.main(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("usage: python ")
    assert told.err.count("\n") == 1


def test_the_others_write_what_they_tell(tmp_path, capsys):
    assert dates.main(str(tmp_path / "new")) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"pretrain.txt", "train.tsv", "validation.tsv"}
    assert sentences.main("3", "1") == 0
    assert capsys.readouterr().out == sentences.columns(3, 1)
