"""`tinyformer finetune` end to end, what else is done with such a run, and bad input to it."""

import json
import math
import random
import shlex
import signal

import pytest
from commandline import TINY, files_under, finished, output, process, run

import tinyformer
from tinyformer import ops
from tinyformer.cli.task_words import figures
from tinyformer.tasks import TASKS

QUICK = ["--epochs", "2", "--learning-rate", "0.02"]
GOOD, BAD = ("good", "fine", "nice"), ("bad", "sad", "grim")


def lines(count, seed=0):
    rng = random.Random(seed)
    chosen = [rng.randrange(2) for _ in range(count)]
    return "".join(f"a {rng.choice((BAD, GOOD)[y])} day\t{('neg', 'pos')[y]}\n" for y in chosen)


@pytest.fixture(scope="session")
def origins(tmp_path_factory):
    """A pretrained run of each mode."""
    place = tmp_path_factory.mktemp("origins")
    (place / "text.txt").write_text("A good day, a sad day.\n\nA bad one, and a fine one.\n\n" * 20)
    for mode in ("encoder", "decoder", "encoder-decoder"):
        result = run("train", place / "text.txt", "--mode", mode, *TINY, "--steps", "1", "--out", place / mode)
        assert result.exit_code == 0, result.stderr
    return place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.tsv").write_text(lines(40))
    return tmp_path


@pytest.fixture(scope="session")
def finetuned(origins, tmp_path_factory):
    """A run directory, which tests only read."""
    place = tmp_path_factory.mktemp("finetuned")
    (place / "train.tsv").write_text(lines(40))
    result = run(
        "finetune", origins / "encoder", place / "train.tsv", "--task", "classify", *QUICK, "--out", place / "run"
    )
    assert result.exit_code == 0, result.stderr
    return place / "run"


def test_it_shows_the_examples_first_and_what_to_do_next(folder, origins):
    result = run("finetune", origins / "encoder", "train.tsv", "--task", "classify", *QUICK)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    shown = result.stderr.splitlines()
    (start,) = (number for number, line in enumerate(shown) if line.startswith("fine-tuning runs/train-classify: "))
    assert shown[start + 1] == "examples: 36 to train on, 4 to validate on; 2 epochs of 3 steps"
    assert shown[start + 2].startswith("2 labels: ")
    assert " by always saying " in shown[start + 3]
    assert "36 of 36 rows were cut to the context of 16 tokens" not in result.stderr
    for what in ("epoch 1  validation loss", "epoch 2  validation loss", "best after epoch", "precision", "recall"):
        assert what in result.stderr
    assert "\x1b" not in result.stderr
    command = shlex.split(shown[-1].removeprefix("next: "))
    assert command[:3] == ["tinyformer", "predict", "runs/train-classify"]
    answers = [json.loads(line) for line in output(*command[1:]).splitlines()]
    assert len(answers) == 40
    assert {answer["label"] for answer in answers} <= {"pos", "neg"}


@pytest.mark.parametrize(("given", "schedule"), [([], "constant"), (["--schedule", "linear"], "linear")])
def test_what_is_not_given_is_chosen_for_the_model(folder, origins, given, schedule):
    arguments = ["train.tsv", "--task", "text2text", "--epochs", "1", "--out", "new", *given]
    result = run("finetune", origins / "encoder-decoder", *arguments)
    assert result.exit_code == 0, result.stderr
    assert f'schedule = "{schedule}"' in (folder / "new" / "config.toml").read_text()


def test_texts_that_are_cut_are_counted(folder, origins):
    long = "a good day for an owl and a fox in the wood\tpos\n"
    (folder / "long.tsv").write_text(lines(39) + long)
    (folder / "kept.tsv").write_text(lines(3) + long * 2)
    files = ["long.tsv", "--validation", "kept.tsv"]
    result = run("finetune", origins / "encoder", *files, "--task", "classify", "--epochs", "1")
    assert [line for line in result.stderr.splitlines() if " cut to " in line] == [
        "1 of 40 rows was cut to the context of 16 tokens",
        "2 of 5 rows to validate on were cut to the context of 16 tokens",
    ]


def answered(*answers):
    """Questions about a text, as JSON lines; None for one without an answer."""
    text = "the cat sat"
    given = [[{"text": answer, "answer_start": text.index(answer)}] if answer else [] for answer in answers]
    return "".join(json.dumps({"question": "who", "context": text, "answers": labels}) + "\n" for labels in given)


@pytest.mark.parametrize(
    ("task", "train", "validation", "told"),
    [
        (
            "classify", "a\tx\nb\tx\nc\tx\nd\ty\ne\ty\n", "a\tx\nb\ty\n",
            ["2 labels: x 60.0 %, y 40.0 %", "to compare with: accuracy 50.0 %, F1 0.0 % by always saying x"],
        ),
        (
            "regress", "a\t1\nb\t3\n", "a\t1\nb\t5\n",
            ["numbers: mean 2, deviation 1, from 1 to 3",
             "to compare with: squared error 5, Pearson 0.000 by always saying the mean"],
        ),
        (
            "tag", "a B-X\nb I-X\nc O\n\nd B-Y\ne O\nf B-X\n\ng B-X\n\nh B-Y\n", "a O\nb O\nc O\nd B-X\n",
            ["2 types of entity: X 60.0 %, Y 40.0 %; 25.0 % of the words are O",
             "to compare with: accuracy 75.0 %, F1 0.0 % by always saying O"],
        ),
        (
            "answer", answered("cat", None), answered("cat", None, None, "sat"),
            ["answers: 3 characters in the median; 50.0 % of the questions have none",
             "to compare with: F1 50.0 %, exact match 50.0 % by always saying no answer"],
        ),
        (
            "answer", answered("cat", "sat"), answered("cat", "cat sat"),
            ["answers: 3 characters in the median; every question to train on has one",
             "to compare with: F1 83.3 %, exact match 50.0 % by always saying the whole text"],
        ),
    ],
)  # fmt: skip
def test_what_knowing_nothing_reaches_is_told_first(folder, origins, task, train, validation, told):
    for name, content in (("train", train), ("validation", validation)):
        (folder / name).write_text(content)
    arguments = ["train", "--validation", "validation", "--task", task, "--dry-run"]
    result = run("finetune", origins / "encoder", *arguments)
    assert result.exit_code == 0, result.stderr
    (start,) = (number for number, line in enumerate(result.stderr.splitlines()) if line.startswith("examples: "))
    assert result.stderr.splitlines()[start + 1 : start + 3] == told


def test_json_events_are_one_object_a_line(folder, origins):
    result = run("finetune", origins / "encoder", "train.tsv", "--task", "classify", *QUICK, "--log-format", "json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"prepare", "start", "train", "validation", "saved", "end"} <= {event["event"] for event in events}
    assert events[-1]["report"]["labels"] == ["neg", "pos"]
    assert result.stderr == ""


def test_a_dry_run_leaves_nothing(folder, origins):
    before = files_under(folder)
    result = run("finetune", origins / "encoder", "train.tsv", "--task", "classify", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "2 labels: " in result.stderr
    assert "one step took " in result.stderr
    assert files_under(folder) == before


def test_columns_are_named(folder, origins):
    rows = [line.split("\t") for line in lines(20).splitlines()]
    (folder / "data.csv").write_text("stars,review\n" + "".join(f'{label},"{text}"\n' for text, label in rows))
    (folder / "data.jsonl").write_text("".join(json.dumps({"stars": y, "review": x}) + "\n" for x, y in rows))
    for name in ("data.csv", "data.jsonl"):
        options = ["--task", "classify", "--epochs", "1", "--text", "review", "--label", "stars"]
        result = run("finetune", origins / "encoder", name, *options)
        assert result.exit_code == 0, result.stderr
        place = result.stderr.splitlines()[-1].split()[3]
        assert len(output("predict", place, name).splitlines()) == 20
        assert json.loads(output("evaluate", place, name, "--json"))["examples"] == 20
        (folder / "plain.tsv").write_text(lines(7))
        (folder / "other.csv").write_text((folder / "data.csv").read_text().replace("review", "body"))
        for other, count in (("plain.tsv", 7), ("other.csv --text body", 20)):
            assert json.loads(output("evaluate", place, *other.split(), "--json"))["examples"] == count
        assert len(output("predict", place, "plain.tsv").splitlines()) == 7
        assert "name the text's with --text" in run("evaluate", place, "other.csv").stderr
        assert "  label   " in output("inspect", "--run", place, "plain.tsv").decode()


@pytest.mark.parametrize("mode", ["decoder", "encoder"])
def test_a_run_is_gone_on_with(folder, origins, mode):
    assert run("finetune", origins / mode, "train.tsv", "--task", "classify", *QUICK).exit_code == 0
    result = run("train", "--resume", "runs/train-classify", "--steps", "9")
    assert result.exit_code == 0, result.stderr
    assert "from step 6" in result.stderr
    assert "; 3 epochs of 3 steps" in result.stderr
    assert "epoch 3  validation loss" in result.stderr
    result = run("train", "--resume", "runs/train-classify")
    assert "all 9 steps (3 epochs of 3) are done already; --steps 15 makes it 5 epochs" in result.stderr
    result = run("train", "--resume", "runs/train-classify", "--steps", "10")
    assert "; 3.33 epochs of 3 steps" in result.stderr
    assert "epoch 3.33  validation loss" in result.stderr
    before = files_under(folder)
    result = run("finetune", origins / mode, "train.tsv", "--task", "classify", "--out", "runs/train-classify")
    assert result.exit_code == 2
    assert "exists and is not empty; choose a new --out" in result.stderr
    assert files_under(folder) == before


def test_an_interrupt_saves_and_says_how_to_go_on(folder, origins):
    with process("finetune", origins / "encoder", "train.tsv", "--task", "classify", "--epochs", "5000") as child:
        while "step" not in child.stderr.readline():
            pass
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        assert child.wait() == 130
    assert "go on with: tinyformer train --resume runs/train-classify" in rest.splitlines()[-1]
    assert (folder / "runs/train-classify/config.toml").exists()


def test_what_is_told_to_do_where_the_loss_explodes_can_be_done(folder, origins, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(TASKS["classify"], "judge", lambda self, scores, labels, *, total: ops.sum(scores) * math.nan)
        result = run("finetune", origins / "encoder", "train.tsv", "--task", "classify", *QUICK)
    assert result.exit_code == 1
    program, *way = shlex.split(result.stderr.splitlines()[-1].partition("may help: ")[2])
    assert (program, way[:3]) == ("tinyformer", ["train", "--resume", "runs/train-classify"])
    assert run(*way).exit_code == 0


def test_info_counts_what_the_run_has(finetuned):
    facts = json.loads(output("info", finetuned, "--json"))
    held = sum(p.array.size for p in tinyformer.load(finetuned).parameters().values())
    assert facts["parameters"]["total"] == held
    assert facts["training_bytes"]["weights"] == 4 * held
    assert (facts["row"]["scored"], "output layer" in facts["forward_flops"]) == (0, False)
    assert f"reading a row of {facts['row']['source']} tokens\n" in output("info", finetuned).decode()


def test_info_tells_the_task_its_labels_and_the_best_epoch(finetuned):
    best = json.loads((next((finetuned / "best").iterdir()) / "state.json").read_text())["validation"]
    assert output("info", finetuned).decode().splitlines()[1:4] == [
        "task classify, 2 labels: neg, pos",
        f"best after epoch {best['epoch']:.0f} (step {best['step']}): {figures(best)}",
        "",
    ]
    told = json.loads(output("info", finetuned, "--json"))["task"]
    assert told == {"name": "classify", "labels": ["neg", "pos"], "best": best}


def test_a_run_is_measured_on_other_examples(finetuned, folder):
    shown = output("evaluate", finetuned, "train.tsv").decode()
    assert shown.startswith("accuracy ")
    assert "which label (rows) was taken for which (columns)" in shown
    assert shown.endswith("measured on 40 examples\n")
    for content, message in (
        ("a good day\tmixed\n", "other.tsv, line 1: the label 'mixed' is none of those"),
        ("a good day\n", "other.tsv, line 1 has no tab; each line is text TAB label (of a file with a header,"),
    ):
        (folder / "other.tsv").write_text(content)
        result = run("evaluate", finetuned, "other.tsv")
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["generate", "RUN", "--prompt", "a"],
            "was fine-tuned for the task classify, and writes no text; use it with: ",
        ),
        (["fill", "RUN", "a <mask> day"], "was fine-tuned for the task classify, and writes no text; use it with: "),
        (["evaluate", "RUN", "train.tsv", "--stride", "3"], "--stride belongs to decoders"),
        (["evaluate", "RUN", "train.tsv", "--pair", "b"], "here it is one; leave it out"),
        (["train", "--resume", "RUN", "--devices", "2"], "fine-tuning takes one GPU; leave --devices 2 out"),
    ],
)
def test_what_cannot_be_done_with_it_is_one_line(finetuned, folder, arguments, message):
    before = files_under(finetuned)
    result = run(*(finetuned if argument == "RUN" else argument for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert files_under(finetuned).keys() - {finetuned / ".lock"} == before.keys() - {finetuned / ".lock"}


BAD_INPUT = {  # files, arguments, and what is told
    "unknown label": ({"v.tsv": "a day\tmixed\n"}, ["--validation", "v.tsv"], "v.tsv, line 1: the label 'mixed' is"),
    "label seen once": ({"train.tsv": lines(20) + "a day\tmixed\n"}, [], "line 21: the label 'mixed' is there once"),
    "one class": ({"train.tsv": "a day\tpos\n" * 20}, [], "train.tsv has one class only ('pos')"),
    "missing column": ({"train.csv": "text,stars\na,b\n"}, [], "no column 'label' (there are: text, stars)"),
    "no tab": ({"train.tsv": "a day\n" * 9}, [], "train.tsv, line 1 has no tab; each line is text TAB label"),
    "empty": ({"train.tsv": ""}, [], "train.tsv is empty"),
    "blank lines only": ({"train.tsv": "\n\n"}, [], "train.tsv has no example"),
    "missing": ({}, ["--validation", "nothing.tsv"], "no such file: nothing.tsv"),
    "not UTF-8": ({"train.tsv": b"caf\xe9\tpos\n"}, [], "train.tsv, line 1 is not UTF-8"),
    "nothing left": ({"train.tsv": lines(1)}, [], "has 1 example, of which --validation 0.1 leaves none to train on"),
    "wrong fraction": ({}, ["--validation", "1.5"], "--validation must be a file or a fraction between 0 and 1"),
    "wrong task": ({}, ["--task", "clasify"], "did you mean 'classify'?"),
    "wrong mode": ({}, ["--task", "text2text"], "a model of mode encoder cannot do the task text2text; it can do "),
    "labels that are texts": (
        {"train.tsv": "".join(f"a day\tlabel {i // 2}\n" for i in range(4000))}, [], "has 2,000 different labels"
    ),
    "a label that is a text": (
        {"train.tsv": f"a\t{'long ' * 50}\nb\tx\n" * 9}, [], "a label of 249 characters, and 200 are the most"
    ),
    "one sentence": ({"train.conll": "a O\nb O\n"}, ["--task", "tag"], "to train on; a blank line ends a sentence"),
    "to resume": ({}, ["--resume", "runs/a b"], "to go on with a run: tinyformer train --resume 'runs/a b'"),
    "no tags": ({"train.conll": "a O\nb I-X\n"}, ["--task", "tag"], "the tag 'I-X' follows 'O'"),
    "no answer": (
        {"train.json": json.dumps({"data": [{"paragraphs": [{"context": "the cat", "qas": [
            {"id": "1", "question": "who", "answers": [{"text": "dog", "answer_start": 4}]}]}]}]})},
        ["--task", "answer"],
        "the answer 'dog' is not at character 4 of its context",
    ),
    "no number": ({"train.tsv": "a\t1\nb\tmany\n"}, ["--task", "regress"], "train.tsv, line 2: 'many' is no number"),
    "nothing to freeze": ({}, ["--task", "text2text", "--freeze"], "--freeze trains a task's head alone"),
    "long warm-up": ({}, ["--warmup", "10"], "--warmup 10 is longer than all 9 steps (--epochs 3, of 3 steps each)"),
    "no epochs": ({}, ["--epochs", "0"], "--epochs must be at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(folder, origins, case):
    files, arguments, message = BAD_INPUT[case]
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    train = next((name for name in files if name.startswith("train")), "train.tsv")
    task = [] if "--task" in arguments else ["--task", "classify"]
    if "text2text" in arguments and "text2text" not in TASKS:
        pytest.skip("there is no such task yet")
    mode = "encoder-decoder" if "--freeze" in arguments else "encoder"
    before = files_under(folder)
    result = run("finetune", origins / mode, train, *task, *arguments, "--out", "new")
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr.splitlines()[-1]
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error")]) == 1
    assert "--debug" not in result.stderr
    assert files_under(folder) == before
    assert not (folder / "new").exists()


def test_a_task_has_to_be_named(folder, origins):
    result = finished("finetune", origins / "encoder", "train.tsv")
    assert result.returncode == 2
    assert result.stderr.startswith(
        "Error: what shall it learn? add --task classify, pair, regress, tag, answer or text2"
    )
    assert len(result.stderr.splitlines()) == 1


def test_a_run_that_is_not_there_and_a_published_model_are_told(folder):
    assert "no run at nowhere" in run("finetune", "nowhere", "train.tsv", "--task", "classify").stderr
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text("{}")
    assert "tinyformer import bert --out RUN" in run("finetune", "bert", "train.tsv", "--task", "classify").stderr
