"""`tinyformer prompt`: its table, its JSON, what it shows, and what it refuses."""

import json

import pytest
from commandline import QUICK, finished, output, run

from tinyformer.cli import prompt
from tinyformer.prompting import NORMALISATIONS

SHOTS = [(word, "ab"[i % 2]) for i, word in enumerate(["cow", "dog", "hen", "pig", "cat", "fox", "owl", "ant"])]
SMALL = ["--template", "{text}:{label};"]


@pytest.fixture
def shots(tmp_path, monkeypatch):
    """A folder with some files of examples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shots.tsv").write_text("".join(f"{word}\t{label}\n" for word, label in SHOTS))
    (tmp_path / "texts.tsv").write_text("yak\tb\nape\tb\nemu\ta\n")
    (tmp_path / "bare.tsv").write_text("yak\nape\n")
    (tmp_path / "odd.tsv").write_text("yak\tb\nape\tc\n")
    (tmp_path / "long.tsv").write_text("yak\tb\n" + "ape " * 9 + "\ta\n")
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "blank.tsv").write_text("\n \n")
    (tmp_path / "many.tsv").write_text("".join(f"word\tlabel{i}\n" for i in range(65)))
    (tmp_path / "pairs.csv").write_text("one,other,answer\nyak,ape,a\nemu,gnu,b\nelk,cod,b\n")
    return tmp_path


def test_the_table(trained, shots):
    args = ["prompt", trained, "texts.tsv", "--shots", "shots.tsv", "--k", "2,0,1", *SMALL, "--draws", "4"]
    lines = output(*args).decode().splitlines()
    assert lines[0].split() == ["K", "accuracy", "standard", "error"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert lines[1].split()[-1] == "-", "without shots, nothing was drawn"
    assert lines[4:] == ["3 texts in each of 4 draws; chance 50.0 %, majority 66.7 %"]
    records = [json.loads(line) for line in output(*args, "--json").splitlines()]
    assert [record["k"] for record in records] == [0, 1, 2]
    for line, record in zip(lines[1:], records):
        assert line.split()[1] == f"{100 * record['accuracy']:.1f}"
        assert record["accuracy"] == pytest.approx(sum(record["draws"]) / len(record["draws"]))
        assert (record["chance"], record["majority"], record["answers"]) == (0.5, 2 / 3, 3 * len(record["draws"]))
    answers = [json.loads(line) for line in output(*args, "--answers").splitlines()]
    assert len(answers) == sum(record["answers"] for record in records)
    assert sum(each["right"] for each in answers if each["k"] == 2) / 12 == pytest.approx(records[2]["accuracy"])
    assert all(each["answer"] == max(each["scores"], key=each["scores"].get) for each in answers)
    assert output(*args) == output(*args)


def test_what_is_left_of_the_shots_is_asked(trained, shots):
    args = ["prompt", trained, "--shots", "shots.tsv", "--k", "0,2", *SMALL, "--draws", "2", "--answers"]
    answers = [json.loads(line) for line in output(*args).splitlines()]
    assert len(answers) == 2 * 2 * 6
    assert {each["place"].split(", ")[0] for each in answers} == {"shots.tsv"}
    assert len(output(*args, "--limit", "3").splitlines()) == 12
    again = [json.loads(line) for line in output(*args, "--seed", "5").splitlines()]
    assert [each["place"] for each in again] != [each["place"] for each in answers]


def test_a_prompt_is_shown(trained, shots):
    pairs = ["pairs.csv", "--text", "one", "--pair", "other", "--label", "answer", "--shots", "pairs.csv", "--show"]
    args = ["prompt", trained, *pairs, "--template", "{text}{pair}={label}.", "--limit", "1"]
    one = run(*args, "--k", "1")
    assert one.stdout in ("yakape=a.yakape=\n", "emugnu=b.yakape=\n", "elkcod=b.yakape=\n")
    assert one.stderr == "1 shot, 16 tokens; then one of 'a', 'b'; right is 'a'\n"
    none = run(*args, "--k", "0", "--description", r"\tT:")
    assert none.stdout == "\tT:\nyakape=\n"


def test_answers_are_written_and_summaries_are(trained, shots):
    args = ["prompt", trained, "texts.tsv", "--write", "--tokens", "3", *SMALL]
    lines = output(*args).decode().splitlines()
    assert lines[0].split()[-1] == "ROUGE-L"
    assert lines[2].endswith("; majority 66.7 %")
    assert json.loads(output(*args, "--json"))["rouge_l"] == float(lines[1].split()[-1])
    (first, _) = map(
        json.loads,
        output("prompt", trained, "bare.tsv", "--template", "tldr", "--tokens", "4", "--answers").splitlines(),
    )
    assert (first["label"], first["right"], first["k"]) == (None, None, 0)
    assert len(first["answer"].encode()) <= 4 * 3  # bytes that are no UTF-8 are shown by a mark of three
    shown = run("prompt", trained, "bare.tsv", "--template", "tldr", "--tokens", "4", "--show")
    assert shown.stdout == "yak\nTL;DR:\n"
    assert "then up to 4 tokens are written" in shown.stderr
    stopped = run("prompt", trained, "bare.tsv", "--write", "--stop", r"\n", "--tokens", "4", "--show")
    assert r"until '\n'" in stopped.stderr


def test_shots_that_do_not_fit_are_counted(trained, shots):
    result = run("prompt", trained, "texts.tsv", "--shots", "shots.tsv", "--k", "1,4", *SMALL, "--draws", "2")
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: K = 4: 6 of 6 prompts were longer than the context of 16 tokens, and lost their first shots\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--shots"),
        (["--shots", "missing.tsv"], "missing.tsv"),
        (["--shots", "empty.tsv"], "empty.tsv is empty"),
        (["blank.tsv", "--write", "--show"], "blank.tsv has only blank lines; give a file with texts to answer"),
        (["texts.tsv", "--shots", "bare.tsv"], "bare.tsv, line 1"),
        (["bare.tsv", "--shots", "shots.tsv"], "bare.tsv, line 1"),
        (["odd.tsv", "--shots", "shots.tsv", "--candidates", "a,b"], "odd.tsv, line 2 has the label 'c'"),
        (["texts.tsv", "--shots", "shots.tsv", "--candidates", "a,,b"], "empty one"),
        (["texts.tsv", "--candidates", "b,a,b"], "nothing to choose"),
        (["--shots", "shots.tsv", "--k", "9"], "9 shots cannot be drawn from 8 examples"),
        (["--shots", "shots.tsv", "--k", "8"], "none is left to ask"),
        (["--shots", "shots.tsv", "--k", "some"], "whole numbers"),
        (["--shots", "shots.tsv", "--k", "-1"], "0 or more"),
        (["texts.tsv", "--k", "0,1"], "--k 1 needs examples"),
        (["--shots", "shots.tsv", "--template", "{text}"], "no {label}"),
        (["--shots", "shots.tsv", "--template", "{question} {label}"], "{question}"),
        (["--shots", "shots.tsv", "--template", "{text} {pair} {label}"], "text TAB text TAB label"),
        (["--shots", "shots.tsv", "--text", "one"], "there are: cow, a"),
        (["many.tsv", "--k", "0"], "65 different labels are too many"),
        (["bare.tsv", "--k", "0", "--answers"], "no labels to choose from"),
        (["long.tsv", "--k", "0", "--template", "{text}{label}"], "long.tsv, line 2 makes a prompt of 36 tokens"),
        (["--shots", "shots.tsv", "--draws", "0"], "draws must be at least 1"),
        (["--shots", "shots.tsv", "--limit", "0"], "limit must be at least 1"),
        (["--shots", "shots.tsv", "--seed", "-1"], "seed must be 0"),
        (["--shots", "shots.tsv", "--stop", "x"], "add --write"),
        (["--shots", "shots.tsv", "--tokens", "5"], "add --write"),
        (["--shots", "shots.tsv", "--write", "--tokens", "0"], "tokens must be at least 1"),
        (["--shots", "shots.tsv", "--write", "--top-k", "0"], "top k must be at least 1"),
        (["--shots", "shots.tsv", "--write", "--stop", ""], "stop text must not be empty"),
        (["--shots", "shots.tsv", "--write", "--candidates", "a,b"], "leave one out"),
        (["--shots", "shots.tsv", "--template", "tldr", "--normalise", "sum"], "leave one out"),
        (["--shots", "shots.tsv", "--normalise", "bytes"], "did you mean 'byte'?"),
        (["--shots", "shots.tsv", "--json", "--show"], "exclude each other"),
    ],
)
def test_bad_input(trained, shots, args, message):
    result = run("prompt", trained, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.fixture(scope="module")
def one_label(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "one.tsv"
    path.write_text("yak\tb\nape\tb\nemu\tb\n")
    return path


def test_one_label_is_no_choice(trained, one_label):
    result = run("prompt", trained, "--shots", one_label, "--k", "1")
    assert result.exit_code == 2
    assert "nothing to choose: the candidates are 'b'" in result.stderr


@pytest.mark.parametrize("mode", ["encoder", "encoder-decoder"])
def test_only_decoders_go_on_with_a_prompt(folder, mode):
    (folder / "shots.tsv").write_text("cow\ta\nfox\tb\nowl\tb\n")
    made = run("train", "data.txt", *QUICK, "--mode", mode, "--out", "run")
    assert made.exit_code == 0, made.stderr
    result = run("prompt", "run", "--shots", "shots.tsv", "--k", "0,1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"run is an {mode}" in result.stderr
    assert "a decoder" in result.stderr


def test_help_is_quick_and_the_normalisations_are_those_that_there_are(trained):
    assert tuple(NORMALISATIONS) == prompt.NORMALISATIONS
    code = "import sys; from tinyformer.cli import main; main(['prompt', '--help'], standalone_mode=False)"
    result = finished("prompt", "--help")
    assert result.returncode == 0, code
    assert "--normalise [token|byte|sum|unconditional]" in result.stdout
