"""Files of labelled texts: every form they come in, and what is said of those that are wrong."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.tasks import TASKS, Columns, Example, count_labels
from tinyformer.tasks.examples import stream
from tinyformer.tasks.lines import LONGEST

NAMES = Columns("sentence", "other", "class")


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(path, *settings, task="classify", **more):
    return [(*example.texts, example.label) for example in TASKS[task].stream(path, *settings, **more)]


EXPECTED = [("good, really", "pos"), ('a "bad" one', "neg")]


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.tsv", 'good, really\tpos\na "bad" one\tneg\n', Columns()),
        ("a.txt", 'good, really\tpos\r\na "bad" one\tneg', Columns()),
        ("a.tsv", '\ufeffgood, really\tpos\n\n \na "bad" one\tneg\n\n', Columns()),
        (
            "a.tsv",
            'n\tclass\tsentence\n1\tpos\tgood, really\n2\tneg\ta "bad" one\n',
            Columns("sentence", None, "class"),
        ),
        ("a.tsv", 'label\ttext\npos\tgood, really\nneg\ta "bad" one\n', Columns("text")),
        ("a.csv", 'text,label\n"good, really",pos\n"a ""bad"" one",neg\n', Columns()),
        ("A.CSV", '\ufefflabel, text\r\npos,"good, really"\r\n\r\nneg,"a ""bad"" one"\r\n', Columns()),
        (
            "a.jsonl",
            '{"text": "good, really", "label": "pos"}\n\n{"label": "neg", "text": "a \\"bad\\" one"}',
            Columns(),
        ),
        (
            "a.jsonl",
            '{"class": "pos", "sentence": "good, really"}\n{"class": "neg", "sentence": "a \\"bad\\" one"}\n',
            Columns("sentence", None, "class"),
        ),
    ],
)
def test_forms_of_files(tmp_path, name, content, columns):
    assert found(written(tmp_path, name, content), columns) == EXPECTED


def test_places_and_blank_lines_are_told(tmp_path):
    told = []
    path = written(tmp_path, "a.csv", 'text,label\n"two\nlines",x\n\nb,y\n')
    assert list(stream(path, warn=told.append)) == [
        Example(("two\nlines",), "x", f"{path}, line 2"),
        Example(("b",), "y", f"{path}, line 5"),
    ]
    assert told == [f"{path}: 1 blank line was passed over"]


def test_pairs_and_numbers(tmp_path):
    path = written(tmp_path, "a.tsv", "a b\tc\t1\nd\te f\t-2.5e1\n")
    assert found(path, task="pair") == [("a b", "c", "1"), ("d", "e f", "-2.5e1")]
    assert found(path, task="regress") == [("a b", "c", 1.0), ("d", "e f", -25.0)]
    assert found(written(tmp_path, "b.tsv", "a\t1\nb\t2\n"), task="regress") == [("a", 1.0), ("b", 2.0)]
    lines = '{"text": "a", "pair": "b", "label": 3}\n{"text": "c", "pair": "d", "label": 4.5}\n'
    assert found(written(tmp_path, "c.jsonl", lines), task="regress") == [("a", "b", 3.0), ("c", "d", 4.5)]
    assert found(written(tmp_path, "c.jsonl", lines), task="pair") == [("a", "b", "3"), ("c", "d", "4.5")]
    other = "other,class,sentence\nb,2,a\n"
    assert found(written(tmp_path, "d.csv", other), NAMES, task="regress") == [("a", "b", 2.0)]


def test_texts_without_labels(tmp_path):
    both = written(tmp_path, "a.tsv", "a\nb\tpos\n\nc\n")
    given = list(TASKS["classify"].stream(both, labelled=False))
    assert [(example.texts, example.label) for example in given] == [
        (("a",), None),
        (("b",), None),
        ((), None),
        (("c",), None),
    ]
    assert found(written(tmp_path, "b.jsonl", '{"text": "a"}\n'), labelled=False) == [("a", None)]
    assert found(written(tmp_path, "c.csv", "text,label\na,pos\n"), labelled=False) == [("a", None)]
    assert found(written(tmp_path, "d.tsv", "a\tb\n"), labelled=False, task="regress") == [("a", "b", None)]
    assert found(written(tmp_path, "d.tsv", "a\t0.5\n"), labelled=False, task="regress") == [("a", None)]


def test_standard_input_and_what_begins_like_json():
    assert found(io.BytesIO(b'{"text": "a", "label": true}\n')) == [("a", "true")]
    assert found(io.BytesIO(b"{a}\tx\n"[1:])) == [("a}", "x")]
    with pytest.raises(UsageError, match=r"^standard input is empty"):
        found(io.BytesIO(b""))


def test_nothing_is_read_before_it_is_asked_for():
    """A file of any size, or one that is still being written."""

    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            line = b"text\tlabel\n"
            buffer[: len(line)] = line
            return len(line)

    examples = stream(io.BufferedReader(Endless(), 64))
    assert [next(examples).texts for _ in range(3)] == [("text",)] * 3


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_what_other_programs_write_comes_back(rows):
    text = io.StringIO()
    csv.writer(text).writerows([("text", "label"), *rows])
    for name, content in {
        "a.csv": text.getvalue(),
        "a.tsv": "".join(f"{a}\t{b}\n" for a, b in rows),
        "a.jsonl": "".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows),
    }.items():
        file = io.BytesIO(content.encode())
        file.name = name
        assert [(*example.texts, example.label) for example in stream(file)] == rows


LONG = "a" * (LONGEST + 1)


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "", Columns(), "is empty"),
        ("a.tsv", "\n \n", Columns(), "has no example, only 2 blank lines; add text TAB label"),
        ("a.csv", "text,label\n", Columns(), "has no example"),
        ("a.tsv", "good\tpos\nbad neg\n", Columns(), "line 2 has no tab; each line is text TAB label .*--text"),
        ("a.tsv", "good\tpos\na\tb\tneg\n", Columns(), "line 2 has 3 fields; each line is text TAB label"),
        ("a.tsv", "good\tpos\n\tneg\n", Columns(), "line 2 has an empty text"),
        ("a.tsv", "good\tpos\nbad\t\n", Columns(), "line 2 has an empty label"),
        (
            "a.csv",
            "review,label\na,b\n",
            Columns(),
            r"line 1 has no column 'text' \(there are: review, label\); .*--text",
        ),
        ("a.csv", "text,label\na,b\n", NAMES, "--pair other names a second text"),
        (
            "a.tsv",
            "text\tlabel\na\tb\n",
            Columns(label="class"),
            r"no column 'class' \(there are: text, label\); .*--label",
        ),
        ("a.csv", "text,label\na,b,c\n", Columns(), "line 2 has 3 columns, and the header 2; each"),
        ("a.csv", "text,label\na b\n", Columns(), "line 2 has 1 column, and the header 2; each"),
        ("a.csv", "text,text,label\na,b,c\n", Columns(), "has 2 columns 'text'"),
        ("a.csv", 'text,label\n"a,b\nc,d\n', Columns(), "line 2 is not as CSV should be"),
        ("a.csv", 'text,label\n"a"b,c\n', Columns(), "line 2 is not as CSV should be"),
        ("a.csv", 'text,label\n"' + "a\n" * 70_000, Columns(), "line 2 is not as CSV should be"),
        ("a.jsonl", '{"text": "a"}\n', Columns(), r"line 1 has no key 'label' \(there are: text\)"),
        ("a.jsonl", '{"text": "a", "label": null}\n', Columns(), "line 1 has no label"),
        ("a.jsonl", '{"text": 3, "label": "x"}\n', Columns(), "line 1: 'text' must be a text, and is 3"),
        ("a.jsonl", '{"text": "a", "label": [1]}\n', Columns(), r"'label' must be a text or a number, and is \[1\]"),
        ("a.jsonl", "[1]\n", Columns(), "line 1 is no JSON object"),
        ("a.jsonl", "text\n", Columns(), "line 1 is no JSON"),
        ("a.jsonl", "[" * 100_000, Columns(), "line 1 is no JSON"),
        ("a.tsv", b"good\tpos\nb\xe4d\tneg\n", Columns(), r"line 2 is not UTF-8 \(its byte 0xe4"),
        ("a.tsv", "good\tpos\n".encode("utf-16"), Columns(), "line 1 is not UTF-8 .*save the file as UTF-8"),
        ("a.tsv", LONG, Columns(), "line 1 is longer than 1 MiB"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_wrong_files_say_what_is_wrong(tmp_path, name, content, columns, message):
    path = written(tmp_path, name, content)
    with pytest.raises(UsageError, match=message) as caught:
        found(path, columns)
    assert str(path) in str(caught.value) or "--pair" in message
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_files_that_are_none(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match=r"is a directory|no such file"):
            found(path)


@pytest.mark.parametrize("label", ["many", "nan", "inf", "1,5", "1 2"])
def test_a_label_that_is_no_number(tmp_path, label):
    path = written(tmp_path, "a.tsv", f"a\t1\nb\t{label}\n")
    with pytest.raises(UsageError, match=r"line 2: .* is no number; write one, such as 2.5"):
        found(path, task="regress")


def examples(*labels):
    return [Example(("a",), label, f"file, line {i}") for i, label in enumerate(labels, 1)]


def test_labels_and_their_balance():
    given = examples("b", "a", "b", "a", "b")
    assert TASKS["classify"].labels_of(given) == ("a", "b")
    assert list(TASKS["classify"].balance(given).items()) == list(count_labels(given).items()) == [("b", 3), ("a", 2)]
    assert TASKS["regress"].labels_of(examples(1.0, 3.0)) == ("2.0", "1.0")
    assert TASKS["regress"].balance(examples(1.0, 3.0)) == {}
    told = {"mean": 2.0, "deviation": 1.0, "least": 1.0, "most": 3.0}
    assert TASKS["regress"].summary(examples(1.0, 3.0)) == told


def test_labels_that_nothing_can_be_learnt_from():
    with pytest.raises(UsageError, match=r"^file has one class only \('a'\), .*; add examples of another class to it$"):
        TASKS["classify"].labels_of(examples("a", "a"))
    with pytest.raises(UsageError, match=r"^file, line 3: the label 'c' is there once only"):
        TASKS["pair"].labels_of(examples("a", "b", "c", "a", "b"))
    with pytest.raises(UsageError, match=r"^all examples of file have the number 2, .*; add examples with"):
        TASKS["regress"].labels_of(examples(2.0, 2.0))


def test_labels_lose_white_space_at_their_ends_and_texts_keep_it(tmp_path):
    path = written(tmp_path, "a.tsv", " a \tgood \nb\t good\n")
    assert found(path) == [(" a ", "good"), ("b", "good")]
    path = written(tmp_path, "a.jsonl", '{"text": "a", "pair": "b", "label": "good "}\n')
    assert found(path, task="pair") == [("a", "b", "good")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\tlabel\na\tx\nb\tx\n", r"line 1: .* once only.*; is line 1 a header\? then add --label label$"),
        ("film\tstars\na\tx\nb\tx\n", r"is line 1 a header\? then add --text film --label stars$"),
        ("a\tx\nb\tx\nc\ty\n", r"line 3: the label 'y' is there once only[^?]*$"),
        (
            "a\tx\nb\tx\n" + "".join(f"c\t{i}\n" for i in range(7)),
            r"a.tsv: the labels '0' \(line 3\), .*, '4' \(line 7\), and 2 more are there once only",
        ),
        ("a\tx\nb\tx\nc\ty\nd\tz\n", r"the labels 'y' \(line 3\) and 'z' \(line 4\) are there once only"),
    ],
)
def test_labels_that_are_there_once(tmp_path, content, message):
    read = TASKS["classify"].read(written(tmp_path, "a.tsv", content))
    with pytest.raises(UsageError, match=message):
        TASKS["classify"].labels_of(read[::-1])


def test_json_that_is_not_in_lines_is_told(tmp_path):
    path = written(tmp_path, "a.json", '[\n{"text": "a", "label": "x"}]')
    for labelled in (True, False):
        with pytest.raises(UsageError, match=r"a.json is JSON, .* save it as .jsonl, with an object on each line"):
            found(path, labelled=labelled)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('good, really\tpos\na "bad" one\tneg\n', EXPECTED),  # no header
        ('\n\nclass\tsentence\npos\tgood, really\nneg\ta "bad" one\n', EXPECTED),  # one, as in training
        ("sentence\nclass\n", "line 1 has no tab"),  # one that lacks a column
        ("good\tbad\tpos\n", "has 3 fields; each line is text TAB label"),
    ],
)
def test_the_columns_of_a_run_are_looked_for_in_the_first_line_of_a_file_with_tabs(tmp_path, content, expected):
    usual = Columns("sentence", None, "class", optional=True)
    path = written(tmp_path, "a.txt", content)
    if isinstance(expected, list):
        assert found(path, Columns().beside(usual)) == expected
    else:
        with pytest.raises(UsageError, match=expected):
            found(path, Columns().beside(usual))
    with pytest.raises(UsageError, match="no column 'body'"):  # those that a user names are demanded
        found(path, Columns("body").beside(usual))


@pytest.mark.parametrize(
    ("content", "count"),
    [("text\tlabel\ngood\tpos\n", 1), ("a text\tlabel\ngood\tpos\n", 2), ("text\tpos\n", 1), ("text\nlabel\n", 2)],
)
def test_usual_names_are_a_header_where_a_line_has_them_all(tmp_path, content, count):
    path, labelled = written(tmp_path, "a.txt", content), "\t" in content
    examples = list(stream(path, Columns().beside(Columns(optional=True)), labelled=labelled))
    assert len(examples) == count


def test_a_run_of_one_text_has_no_second_one(tmp_path):
    usual = Columns("a", None, "n", optional=True, texts=1)
    with pytest.raises(UsageError, match="--pair b names a second text, and here it is one; leave it out"):
        list(TASKS["regress"].stream(written(tmp_path, "a.csv", "a,b,n\nx,y,1\n"), Columns(pair="b").beside(usual)))


@pytest.mark.parametrize(
    ("texts", "content", "labelled"),
    [(2, "good\t3\n", True), (2, "good\n", False), (1, "good\tbad\t3\n", True), (1, "good\tbad\t3\n", False)],
)
def test_a_run_knows_how_many_texts_its_examples_have(tmp_path, texts, content, labelled):
    """Where the task takes one or two, and the first line would be taken for what it has."""
    path = written(tmp_path, "a.txt", content)
    assert len(list(TASKS["regress"].stream(path, labelled=labelled))) == 1
    with pytest.raises(UsageError, match="line 1 has"):
        list(TASKS["regress"].stream(path, Columns(texts=texts), labelled=labelled))
