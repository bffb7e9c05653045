"""`tinyformer inspect` of a run that was fine-tuned: how an example is encoded, and where its head answers."""

import json

import pytest
from commandline import TINY, output, run

FILES = {
    "classify": ("train.tsv", "a cat\tyes\nb dog\tno\n\nthe cat\tyes\na dog by a cat and a dog\tno\n"),
    "pair": ("train.tsv", "a cat\ta dog\tyes\nb dog\tthe cat\tno\na dog\tb b\tyes\nthe cat\tcat b\tno\n"),
    "regress": ("train.csv", "text,label\na cat,1.5\nb dog,2\nthe cat,1\na dog,2\n"),
    "tag": ("train.conll", "a B-X\ncat I-X\n\nthe O\ndog B-X\n\n"),
    "answer": (
        "train.json",
        json.dumps({"data": [{"paragraphs": [{"context": "the cat and a dog, and so on and on", "qas": [
            {"id": str(i), "question": question, "answers": [{"text": text, "answer_start": start}]}
            for i, (question, text, start) in enumerate([("who", "cat", 4), ("what", "dog", 14)])
        ]}]}]}),
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A fine-tuned run of each task, with its examples beside it."""
    place = tmp_path_factory.mktemp("runs")
    (place / "text.txt").write_text("the cat and a dog, who by what\n\na cat by the dog\n\n" * 20)
    options = [*TINY[:-1], "chars", "--mode", "encoder", "--steps", "1"]
    assert run("train", place / "text.txt", *options, "--out", place / "encoder").exit_code == 0
    for task, (name, content) in FILES.items():
        (place / task).mkdir()
        (place / task / name).write_text(content.replace("so on", "on an"))
        options = ["--task", task, "--epochs", "1", "--validation", "0.5", "--out", place / task / "run"]
        result = run("finetune", place / "encoder", place / task / name, *options)
        assert result.exit_code == 0, result.stderr
    return place


def rows(text):
    """The rows of the strips of a page by name, put together again."""
    found = {}
    part = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            part = line
        elif line.startswith("  ") and part not in ("attention", "in short"):
            name, *cells = line.split()
            found.setdefault((part, name), []).extend(cells)
    return found


def test_a_class_is_told_where_the_head_reads(runs):
    shown = output("inspect", "--run", runs / "classify" / "run", "a cat\tno").decode()
    assert shown.startswith("encoder, classify; tokens are chars, ")
    assert "  input   <cls>a cat<sep>\n  label   no\n" in shown
    assert rows(shown)["encoder", "label"] == ["no"]
    facts = json.loads(output("inspect", "--run", runs / "classify" / "run", "a cat\tno", "--json"))
    assert facts["labels"] == ["no", *[""] * 6]
    assert facts["inputs"]["texts"] == ["<cls>", *"a cat", "<sep>"]


def test_a_text_alone_has_no_label(runs):
    shown = output("inspect", "--tokenizer", runs / "classify" / "run", "a cat").decode()
    assert "  label   ?\n" in shown


@pytest.mark.parametrize(("line", "text"), [(None, "a cat"), (2, "b dog"), (3, "the cat"), (4, "the cat")])
def test_a_line_of_a_file_is_shown(runs, line, text):
    chosen = [] if line is None else ["--line", line]
    shown = output("inspect", "--run", runs / "classify" / "run", runs / "classify" / "train.tsv", *chosen).decode()
    assert f"  input   <cls>{text}<sep>\n" in shown


def test_what_is_cut_is_counted(runs):
    train = runs / "classify" / "train.tsv"
    shown = output("inspect", "--run", runs / "classify" / "run", train, "--line", 5).decode()
    assert shown.endswith("  10 more tokens of the text did not fit the context\n")
    shown = output("inspect", "--run", runs / "classify" / "run", train, "--context", 6).decode()
    assert "  input   <cls>a ca<sep>\n" in shown


def test_a_pair_has_segments(runs):
    shown = rows(output("inspect", "--run", runs / "pair" / "run", runs / "pair" / "train.tsv").decode())
    assert shown["encoder", "segment"] == ["0"] * 7 + ["1"] * 6
    assert shown["encoder", "label"] == ["yes"]


def test_each_word_has_a_tag_at_its_first_token(runs):
    facts = json.loads(output("inspect", "--run", runs / "tag" / "run", runs / "tag" / "train.conll", "--json"))
    assert facts["labels"] == ["", "B-X", "", "I-X", "", "", ""]


def test_the_window_that_holds_the_answer_is_shown(runs):
    command = ["inspect", "--run", runs / "answer" / "run", runs / "answer" / "train.json", "--line", 2]
    facts = json.loads(output(*command, "--json"))
    inside = [place for place, label in enumerate(facts["labels"]) if label]
    assert "".join(facts["inputs"]["texts"][inside[0] : inside[-1] + 1]) == "dog"
    assert 0 < facts["row"] < facts["rows"]
    shown = output(*command).decode()
    assert "  label   dog\n" in shown
    assert f"row {facts['row'] + 1} of the {facts['rows']} that show all of the text" in shown


def test_a_number_is_shown_as_it_stands_in_the_file(runs):
    train = runs / "regress" / "train.csv"
    assert "  label   1.5\n" in output("inspect", "--run", runs / "regress" / "run", train).decode()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a cat\tmaybe"], "the label 'maybe' is none of those that were trained on"),
        (["a cat\tno", "--hide", "cat"], "the task classify hides no words; leave --hide out"),
        (["a cat\tno", "--mode", "decoder"], "is a run of --mode encoder; leave --mode decoder out"),
        (["FILE", "--line", "77"], "has no example from line 77 on"),
        ([""], "Error: the text is empty; give a file with examples in it"),
        (["a\tb\tc"], "Error: the text, line 1 has 3 fields; each line is text\n"),
        (['{"q": 1}'], "Error: the text, line 1 has no key 'text' (there are: q); rename the text's\n"),
    ],
)
def test_what_cannot_be_shown_is_one_line(runs, arguments, message):
    arguments = [runs / "classify" / "train.tsv" if argument == "FILE" else argument for argument in arguments]
    result = run("inspect", "--run", runs / "classify" / "run", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_objective_that_the_model_had_can_still_be_shown(runs):
    shown = output("inspect", "--run", runs / "classify" / "run", "--objective", "masked", "the cat").decode()
    assert shown.startswith("encoder, masked; ")
