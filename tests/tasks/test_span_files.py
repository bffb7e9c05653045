"""CoNLL's columns and SQuAD's JSON, whole and damaged."""

import dataclasses
import json

import pytest

from tests.tasks.test_answer import CONTEXT, question, squad
from tests.tasks.test_answer import read as questions
from tests.tasks.test_tag import read as tags
from tinyformer.errors import UsageError
from tinyformer.tasks import TASKS, Columns
from tinyformer.tasks.answer import NONE, Answer
from tinyformer.tasks.tag import Tag


def test_columns():
    text = "\ufeff-DOCSTART- -X- O\r\n\r\nEU NNP B-ORG\r\nrejects\tVBZ\tO\r\n  \r\n\n New \t B-LOC \nYork I-LOC\n"
    text += "-DOCSTART- O\nU.S. B"
    assert [(example.texts, example.label, example.place) for example in tags(text)] == [
        (("EU", "rejects"), ("B-ORG", "O"), "standard input, line 3"),
        (("New", "York"), ("B-LOC", "I-LOC"), "standard input, line 7"),
        (("U.S.",), ("B",), "standard input, line 10"),
    ]


def test_json_lines_of_words(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"words": ["EU", "a b"], "tags": ["B-ORG", "O"], "id": 3}\n\n{"words": ["x"], "tags": ["O"]}\n')
    assert [example.texts for example in Tag.read(path)] == [("EU", "a b"), ("x",)]
    assert [example.place for example in Tag.read(path)] == [f"{path}, line 1", f"{path}, line 3"]
    assert [example.texts for example in Tag.stream(path, labelled=False)] == [("EU", "a b"), (), ("x",)]
    path.write_text('{"tokens": ["EU"], "ner": ["B-ORG"]}\n')
    assert Tag.read(path, Columns(text="tokens", label="ner"))[0].label == ("B-ORG",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the old may\n\nin may\n", [("the", "old", "may"), (), ("in", "may")]),
        ("the\nold\n\nmay\n", [("the", "old"), ("may",)]),
        ("EU NNP B-ORG\nx NN O\n", [("EU", "x")]),
        ("York I-LOC\n", [("York",)]),
        ("who am I\nit is me\n", [("who", "am", "I"), ("it", "is", "me")]),
        ("who am I\nme B\n", [("who", "me")]),
        ("am I\n\nit is me\n", [("am",), ("it",)]),
        ('{"words": ["a", "b"]}\n', [("a", "b")]),
    ],
)
def test_files_without_tags(text, expected):
    found = tags(text, labelled=False)
    assert [example.texts for example in found] == expected
    assert {example.label for example in found} == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "EU B-ORG\nx I-PER\n",
            "line 2, at the word 'x': the tag 'I-PER' follows 'B-ORG'; an entity begins with 'B-PER'",
        ),
        ("EU I-ORG\n", "line 1, at the word 'EU': the tag 'I-ORG' is the first of its sentence"),
        ("a O\n\nb O\nEU ORG\n", "line 4, at the word 'EU': 'ORG' is no BIO tag"),
        ("a O\nb\n", "line 2: the word 'b' has no tag; a line is WORD TAG"),
        ("\n \n-DOCSTART- O\n", "standard input has no sentence in it"),
        ("", "standard input is empty"),
        (
            '{"words": ["a"]}\n',
            "line 1: an object with the keys 'words' and 'tags' is expected, and its keys are 'words'",
        ),
        ('{"words": ["a"], "tags": ["O", "O"]}\n', "line 1: 1 words have 2 tags"),
        ('{"words": [], "tags": []}\n', "'words' must be a list of texts, with at least one"),
        ('{"words": "a", "tags": ["O"]}\n', "'words' must be a list of texts"),
        ('{"words": [" "], "tags": ["O"]}\n', "a word is empty"),
        ('{"words": ["a"], "tags": ["I-X"]}\n', "line 1, at the word 'a': the tag 'I-X' is the first"),
        ('{"words"\n', "line 1: this is no JSON"),
        ('{"words":' + "[" * 100000 + "\n", "line 1: this is no JSON"),
    ],
)
def test_tagged_files_that_are_refused(text, message):
    with pytest.raises(UsageError) as caught:
        tags(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message", "changes"),
    [
        ("Bob B-X\nGreen E-X\n\nRome S-X\n", "BIOES: write B- for S- and I- for E-, in the", {"S-": "B-", "E-": "I-"}),
        ("Bob B-X\nGreen L-X\n\nRome U-X\n", "BILOU: write B- for U- and I- for L-, in the", {"U-": "B-", "L-": "I-"}),
        ("a O\nBob I-X\n\nRome I-X\n", "IOB1: write B- for the I- with which an entity begins, in the", {"I-": "B-"}),
        ("a O\nBob I\n", "'I' follows 'O'; an entity begins with 'B'; this looks like IOB1: write B-", {" I": " B"}),
        *((f"a {tag}\n", "others; correct or convert the file", {f" {tag}": " B-X"}) for tag in "LUSE"),
        ("a IX\n", "correct or convert the file", {" IX": " B-X"}),
    ],
)
def test_other_schemes_are_told_with_the_way_to_bio(text, message, changes):
    with pytest.raises(UsageError) as caught:
        tags(text)
    assert message in str(caught.value)
    for old, new in changes.items():
        text = text.replace(old, new)
    assert tags(text)


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("classify", '{"data": []}\n', "questions.json is JSON, which is read by lines; save it as .jsonl, with an"),
        ("regress", ' {\n"data": []}', "questions.json is JSON, which is read by lines; save it as .jsonl, with an"),
        ("tag", '{"data": []}\n', "with the keys 'words' and 'tags' is expected, and its keys are 'data'"),
    ],
)
def test_questions_that_are_given_to_another_task(tmp_path, task, content, message):
    path = tmp_path / "questions.json"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        list(TASKS[task].stream(path))
    assert message in str(caught.value)


def test_squad_of_both_versions(tmp_path):
    several = question("q2", [("1066", 58), ("in 1066", 55)], is_impossible=False)
    none = question("q3", [], is_impossible=True, plausible_answers=[{"text": "1066", "answer_start": 0}])
    path = tmp_path / "train.json"
    path.write_text(json.dumps(squad(question(), several, none), indent=1))
    examples = Answer.read(path)
    assert [example.texts for example in examples] == [("When?", CONTEXT)] * 3
    assert [example.label for example in examples] == [(("1066", 58),), (("1066", 58), ("in 1066", 55)), ()]
    assert [example.key for example in examples] == ["q1", "q2", "q3"]
    assert examples[1].place == f"{path}, article 1, paragraph 1, question q2"
    assert (Answer.labels_of(examples), Answer.labels_of(examples[:2])) == ((NONE,), ())
    assert Answer.summary(examples) == {"questions": 3, "without": 1, "median": 4}
    assert [Answer.guess(some)[0] for some in (examples, examples[:2])] == [NONE, "the whole text"]
    path.write_text("\ufeff\n" + json.dumps(squad(question())))
    assert Answer.read(path)[0].label == (("1066", 58),)


def test_questions_without_answers():
    bare = {"id": 7, "question": "When?"}
    assert [(one.label, one.key) for one in questions(squad(bare, question()), labelled=False)] == [
        (None, "7"),
        (None, "q1"),
    ]
    line = json.dumps({"question": "When?", "context": CONTEXT})
    found = questions(f"{line}\n\n{line}\n", labelled=False)
    assert [example.texts for example in found] == [("When?", CONTEXT), (), ("When?", CONTEXT)]
    assert [example.place for example in found] == [f"standard input, line {n}" for n in (1, 2, 3)]


def test_json_lines_with_answers():
    told = []
    line = json.dumps(question() | {"context": CONTEXT})
    found = questions(f"\n{line}\n\n{line}", warn=told.append)
    assert [example.label for example in found] == [(("1066", 58),)] * 2
    assert told == ["standard input: 2 blank lines were passed over"]


def test_a_file_of_one_long_line_is_read():
    long = "x" * (2 << 20)
    assert questions(squad(question(answers=[("1066", len(long))]), context=long + "1066"))[0].label[0][1] == len(long)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            squad(question("q7", [("1066", 57)])),
            "question q7: the answer '1066' is not at character 57 of its context, it stands at 58",
        ),
        (
            squad(question("q7", [("1067", 58)])),
            "question q7: the answer '1067' is not at character 58 of its context, nor is it",
        ),
        (squad(question("q7", [("", 3)])), "question q7: 'text' must be a text that is not empty, and is ''"),
        (squad(question(answers=[("The", -63)])), "is not at character -63"),
        (squad(question(answers=[("The", True)])), "must be a number of characters, and is True"),
        (squad(question() | {"answers": 3}), "'answers' must be a list, and is 3"),
        (
            squad({"id": "a", "question": "b"}),
            "question a: there is no key 'answers'; those there are 'id', 'question'",
        ),
        (squad({"id": "a", "answers": []}), "there is no key 'question'"),
        (squad(), "standard input has no question in it"),
        ({"data": [3]}, "article 1: an object is expected, and there is 3"),
        ({"data": {}}, "'data' must be a list"),
        ('{"version": 3,\n"x": [}', "standard input: this is no JSON (Expecting value: line 2"),
        ("{}", "line 1: there is no key 'context'; the object is empty, and SQuAD's JSON is expected, or JSON lines"),
        ('{"version": 3}', "line 1: there is no key 'context'; those there are 'version'"),
        ("[" * 100000, "standard input: this is no JSON"),
        ("", "standard input is empty"),
        (" \n", "standard input has only blank lines; SQuAD's JSON is expected"),
        ("label\ttext\n", "this is no JSON (Expecting value: line 1 column 1 (char 0)); SQuAD's JSON is expected"),
    ],
)
def test_files_of_questions_that_are_refused(found, message):
    with pytest.raises(UsageError) as caught:
        questions(found)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_answers_as_the_datasets_package_writes_them():
    line = {"question": "when", "context": "in 1066", "answers": {"text": ["1066"], "answer_start": [3]}}
    none = line | {"answers": {"text": [], "answer_start": []}}
    assert [q.label for q in questions(json.dumps(line) + "\n" + json.dumps(none))] == [(("1066", 3),), ()]
    for wrong in ({"text": ["1066"]}, {"text": ["1066"], "answer_start": []}, {"text": "1066", "answer_start": 3}):
        with pytest.raises(UsageError, match="'answers' must have two lists of the same length"):
            questions(json.dumps(line | {"answers": wrong}))


@pytest.mark.parametrize("columns", [Columns(text="w"), Columns(pair="w"), Columns(label="w")])
def test_files_without_named_columns_have_none_to_name(columns, tmp_path):
    named = next(role for role in ("text", "pair", "label") if getattr(columns, role))
    path = tmp_path / "a.conll"
    path.write_text("Anna B-PER\n")
    with pytest.raises(UsageError, match=f"--{named} w names a column, and .*a.conll has words, and tags behind them"):
        list(Tag.stream(path, columns))
    assert len(list(Tag.stream(path, Columns().beside(dataclasses.replace(columns, optional=True))))) == 1
    path = tmp_path / "a.json"
    path.write_text(json.dumps(squad(question())))
    with pytest.raises(
        UsageError, match=f"--{named} w names a column, and .*a.json has the keys of SQuAD; leave it out"
    ):
        list(Answer.stream(path, columns))
