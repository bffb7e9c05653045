"""`tinyformer predict`: an answer for each line, beside its line, while lines come; and bad input."""

import json
import os
import signal
import threading

import pytest
from commandline import output, process, run
from made_runs import made_run

from tinyformer.cli.runs import done_with, given_lines

LINES = [f"{'text ' * (1 + i % 4)}{i}" for i in range(40)]
PATIENCE = 30  # seconds
TAGS = ("B-PER", "I-PER", "O")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run for each task."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "classify": made_run(folder / "classify", "classify", labels=("no", "yes")),
        "pair": made_run(folder / "pair", "pair", "decoder", labels=("no", "yes")),
        "regress": made_run(folder / "regress", "regress", labels=("3.0", "2.0"), text="review", label="stars"),
        "tag": made_run(folder / "tag", "tag", labels=TAGS),
        "answer": made_run(folder / "answer", "answer", context=64),
        "text2text": made_run(folder / "text2text", "text2text", "encoder-decoder", context=16, prefix="say: "),
    }


def answers(*args, **more):
    return [json.loads(line) for line in output("predict", *args, **more).splitlines()]


def test_a_class_with_its_probabilities_for_each_line(runs, tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(LINES))
    found = answers(runs["classify"], tmp_path / "lines.txt")
    assert len(found) == len(LINES)
    for answer in found:
        assert set(answer["probabilities"]) == {"no", "yes"}
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert len({answer["probabilities"]["no"] for answer in found}) == len(LINES)
    assert answers(runs["classify"], "-", input="\n".join(LINES)) == found
    one_by_one = answers(runs["classify"], tmp_path / "lines.txt", "--batch-size", "1", "--threads", "2")
    for one, other in zip(one_by_one, found, strict=True):
        assert one["probabilities"]["no"] == pytest.approx(other["probabilities"]["no"], abs=2e-6)


def test_lines_with_labels_give_the_same_answers(runs, tmp_path):
    (tmp_path / "labelled.txt").write_text("".join(f"{line}\tno\n" for line in LINES))
    (tmp_path / "table.csv").write_text("n,text,label\n" + "".join(f"1,{line},\n" for line in LINES))
    expected = answers(runs["classify"], "-", input="\n".join(LINES))
    assert answers(runs["classify"], tmp_path / "labelled.txt") == expected
    assert answers(runs["classify"], tmp_path / "table.csv") == expected


def test_pairs_with_a_decoder(runs):
    one, other, same = answers(runs["pair"], "-", input="a\tb\nb\ta\na\tb\tyes\n")
    assert one == same != other


def test_numbers_and_the_columns_of_the_training(runs, tmp_path):
    expected = answers(runs["regress"], "-", input="good\n")
    assert isinstance(expected[0]["number"], float)
    (tmp_path / "a.csv").write_text("stars,review\n?,good\n")
    assert answers(runs["regress"], tmp_path / "a.csv") == expected
    assert answers(runs["regress"], "-", input='{"review": "good"}\n') == expected
    (tmp_path / "b.txt").write_text("body\tmore\ngood\tx\n")
    assert answers(runs["regress"], tmp_path / "b.txt", "--text", "body") == expected


def test_a_run_for_numbers_of_pairs_wants_pairs(tmp_path):
    """As one for classes of pairs does; its own examples tell that it is one."""
    path = made_run(tmp_path / "run", "regress", labels=("3.0", "2.0"))
    assert len(answers(path, "-", input="a\nb\n")) == 2
    (path / "train.jsonl").write_text(json.dumps({"texts": ["a", "b"], "label": 1.0, "place": "", "key": ""}) + "\n")
    for content in ("a\n", '{"text": "a"}\n'):
        result = run("predict", path, "-", input=content)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "standard input, line 1 has no " in result.stderr
    assert len(answers(path, "-", input="a\tb\n")) == 1


def test_tags_of_sentences_and_of_columns(runs):
    sentences = answers(runs["tag"], "-", input="Ada met Bob .\nBob left .\n")
    assert [answer["words"] for answer in sentences] == [["Ada", "met", "Bob", "."], ["Bob", "left", "."]]
    for answer in sentences:
        assert len(answer["tags"]) == len(answer["words"])
        assert set(answer["tags"]) <= set(TAGS)
        assert all({"type", "text"} <= set(entity) for entity in answer["entities"])
    assert answers(runs["tag"], "-", input="Ada O\nmet O\nBob O\n. O\n\nBob O\nleft O\n. O\n") == sentences


@pytest.mark.parametrize(
    ("content", "found", "line"),
    [
        ("Hello\nHow are you\nBye\n", ["Hello", "How are you", "Bye"], None),
        ("\nHello\n\nHow are you\nBye bye\n", ["Hello", "How Bye"], 4),
        ("Hello\nThere\nHow are you\nBye bye\n", ["Hello There How Bye"], 3),
        ("Hello O\nAda B-PER\nNew York\n", ["Hello Ada New"], 3),
        ("Hello O\nAda X B-PER\n", ["Hello Ada"], None),
    ],
)
@pytest.mark.parametrize("name", ["-", "a.txt"])
def test_words_that_are_not_read_are_told(runs, tmp_path, monkeypatch, content, found, line, name):
    """Once, with the first line that has some; a line of one word alone does not make a file one of words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(content)
    result = run("predict", runs["tag"], name, input=content)
    assert result.exit_code == 0
    answered = [json.loads(answer) for answer in result.stdout.splitlines()]
    assert [" ".join(answer["words"]) for answer in answered if answer] == found
    told = [words for words in result.stderr.splitlines() if "null" not in words]
    assert len(told) == (line is not None)
    assert line is None or f" begins with a word on each line: of line {line}, and of all others, only" in told[0]


def test_answers_to_questions(runs, tmp_path):
    question = {"id": "q1", "question": "Who left?", "context": "Ada met Bob and Carol, and then Bob left." * 3}
    (tmp_path / "a.jsonl").write_text(json.dumps(question) + "\n")
    (found,) = answers(runs["answer"], tmp_path / "a.jsonl")
    assert found["answer"] == question["context"][found["start"] : found["stop"]] != ""
    asked = {"id": "q1", "question": question["question"]}
    nested = {"data": [{"paragraphs": [{"context": question["context"], "qas": [asked]}]}]}
    (tmp_path / "a.json").write_text(json.dumps(nested))
    assert answers(runs["answer"], tmp_path / "a.json") == [found]


def test_written_texts_are_what_generate_writes(runs):
    """Both put the run's prefix before the source."""
    sources = ["one", "a longer one", "two"]
    found = answers(runs["text2text"], "-", input="\n".join(sources))
    for source, answer in zip(sources, found, strict=True):
        written = output("generate", runs["text2text"], "--prompt", source[:10], "--greedy")
        assert answer["text"] == written.decode("utf-8", "replace").removesuffix("\n")
    searched = answers(runs["text2text"], "-", "--beams", "3", input="\n".join(sources))
    assert searched != found
    for source, answer in zip(sources, searched, strict=True):
        written = output("generate", runs["text2text"], "--prompt", source[:10], "--beams", "3")
        assert answer["text"] == written.decode("utf-8", "replace").removesuffix("\n")


def test_a_blank_line_is_null_and_a_cut_text_is_told(runs):
    result = run("predict", runs["classify"], "-", input=f"a\n\n{'long ' * 20}\n  \nb\n")
    shown = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer is None for answer in shown] == [False, True, False, True, False]
    assert (result.exit_code, result.stderr.splitlines()) == (
        0,
        [
            "warning: 2 blank lines were answered with null",
            "warning: 1 of 3 texts was cut to the context of 32 tokens",
        ],
    )


@pytest.mark.parametrize("task", ["classify", "pair", "regress", "tag", "answer", "text2text"])
def test_blank_lines_alone_are_null_too(runs, task, tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n\n")
    result = run("predict", runs[task], tmp_path / "blank.txt")
    told = "warning: 3 blank lines were answered with null\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, "null\n" * 3, told)


def test_blank_lines_before_all_others_are_null(runs):
    line = json.dumps({"question": "Who?", "context": "Ada left."})
    for task, text in (("classify", "a\n"), ("tag", "Ada left .\n"), ("tag", '{"words": ["a"]}\n'), ("answer", line)):
        assert answers(runs[task], "-", input="\n\n" + text) == [None, None, *answers(runs[task], "-", input=text)]
    assert len(answers(runs["tag"], "-", input="\n\nAda\nleft\n")) == 1


@pytest.mark.parametrize(
    ("args", "text", "shown", "code", "message"),
    [
        (["classify", "-"], b"a\nb\xff\nc\n", 1, 2, "line 2 is not UTF-8"),
        (["classify", "-"], b"a\nb\tc\td\n", 1, 2, "line 2 has 3 fields"),
        (["pair", "-"], b"a\tb\nc\td\ne\n", 2, 2, "line 3 has no tab"),
        (["pair", "-"], b"a\tb\n\tb\n", 1, 2, "line 2 has an empty text"),
        (["classify", "-"], b'{"text": "a"}\n{"text": 3}\n', 1, 2, "line 2"),
        (["classify", "-"], b"", 0, 2, "standard input is empty"),
        (["pair", "-"], b"a\n", 0, 2, "name the columns: --text, --pair)"),
        (["tag", "-"], b"", 0, 2, "standard input is empty"),
        (["answer", "-"], b"", 0, 2, "standard input is empty"),
        (["answer", "-"], b"a\n", 0, 2, "with the keys 'question', 'context' and (but for predict) 'answers'\n"),
        (["tag", "-"], b"-DOCSTART- O\n", 0, 2, "has no sentence in it; a line is a sentence, or a word, with blank"),
        (["classify", "missing.txt"], b"", 0, 2, "missing.txt"),
        (["classify", "."], b"", 0, 2, "."),
        (["classify", "-", "--text", "body"], b"text\na\n", 0, 2, "no column 'body' (there are: text)"),
        (["classify", "-", "--pair", "body"], b"a\n", 0, 2, "here it is one"),
        (["classify", "-", "--beams", "2"], b"a\n", 0, 2, "--beams belongs to text2text"),
        (["classify", "-", "--batch-size", "0"], b"a\n", 0, 2, "--batch-size"),
        (["classify", "-", "--threads", "0"], b"a\n", 0, 2, "--threads"),
    ],
)
def test_bad_input_is_one_line_after_the_answers_before_it(runs, args, text, shown, code, message):
    result = run("predict", runs[args[0]], *args[1:], input=text)
    assert (result.exit_code, result.stdout.count("\n")) == (code, shown)
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_run_that_was_not_fine_tuned_is_told_how(tmp_path):
    path = made_run(tmp_path / "pretrained")
    result = run("predict", path, "-", input="a\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"tinyformer finetune {path} TRAIN --task TASK" in result.stderr
    assert run("predict", tmp_path / "missing", "-").exit_code == 2


def test_a_line_is_answered_before_the_next_is_written(runs):
    """The last one is a mistake, which ends it while the pipe is still open."""
    with process("predict", runs["classify"], "-", stdin=-1) as child:
        for line in ("one", "two", "", "four"):
            answer = json.loads(_asked(child, f"{line}\n"))
            assert (answer is None) == (not line)
        assert _asked(child, "f\ti\tve\n") == ""
        assert child.wait(PATIENCE) == 2
        assert "line 5 has 3 fields" in child.stderr.read()


def test_a_reader_that_has_seen_enough_ends_it_quietly(runs):
    with process("predict", runs["classify"], "-", stdin=-1) as child:
        assert _asked(child, "a\n")
        child.stdout.close()
        child.stdin.write("b\n")
        child.stdin.flush()
        assert child.wait(PATIENCE) == 1
        assert child.stderr.read() == ""


def test_ctrl_c_while_it_waits(runs):
    with process("predict", runs["classify"], "-", stdin=-1) as child:
        assert _asked(child, "a\n")
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stderr.read().strip() == ""


def test_memory_does_not_grow_with_the_input(runs):
    """What the process holds after many lines is what it held after some."""
    with process("predict", runs["classify"], "-", "--threads", "1", stdin=-1) as child:
        sizes = []
        for _ in range(4):
            for _ in range(10):
                _asked(child, "some text of a line\n" * 100, lines=100)
            with open(f"/proc/{child.pid}/statm") as file:
                sizes.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert sizes[-1] - sizes[1] < 8 << 20


def _asked(child, text, lines=1):
    """What a process answers to lines that it gets, while its input stays open."""
    child.stdin.write(text)
    child.stdin.flush()
    return "".join(child.stdout.readline() for _ in range(lines))


def test_files_that_are_pipes_are_read_as_such(runs, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("a\nb\n",))
    writer.start()
    assert answers(runs["classify"], tmp_path / "pipe") == answers(runs["classify"], "-", input="a\nb\n")
    writer.join()
    assert given_lines(str(tmp_path)) == (tmp_path, False)


def test_standard_input_comes_slowly_unless_it_is_a_file(tmp_path, monkeypatch):
    path = tmp_path / "lines.txt"
    path.write_text("a\nb\n")
    read, write = os.pipe()
    os.close(write)
    for descriptor, slow in ((os.open(path, os.O_RDONLY), False), (read, True)):
        with os.fdopen(descriptor) as source:
            monkeypatch.setattr("sys.stdin", source)
            lines, live = given_lines("-")
            assert live == slow
            assert lines.readline() == (b"" if slow else b"a\n")
            done_with(lines)
            assert lines.closed
            assert not source.closed
