"""What a fine-tuning finds where it writes, and what is told of the examples that it reads."""

import json

import pytest
from tiny_runs import Events
from tiny_tasks import settings, write

import tinyformer
from tinyformer.errors import UsageError
from tinyformer.tasks import TASKS
from tinyformer.training import finetuning, task_examples
from tinyformer.training.rundir import open_run
from tinyformer.training.trainer import train


def test_what_a_killed_preparation_left_is_known_as_that(origins, examples, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "tokenizer.json", "train.jsonl", "validation.jsonl"):
        (run / name).write_text("half")
    with pytest.raises(UsageError, match=r"is not empty; .* it is the beginning of a run that was killed"):
        train(settings(origins["encoder"], examples), Events(), out=run)
    (run / "notes.txt").write_text("of a user")
    with pytest.raises(UsageError, match=r"is not empty; choose a new --out$"):
        train(settings(origins["encoder"], examples), Events(), out=run)


def test_what_always_saying_the_commonest_label_reaches(origins, tmp_path):
    file, events = write(tmp_path / "file.tsv", [("abc", "x")] * 30 + [("bca", "y")] * 10), Events()
    train(settings(origins["encoder"], file), events, out=tmp_path / "run", dry_run=True)
    (facts,) = events.of("dry_run")
    assert facts["balance"] == {"x": 24, "y": 8}
    assert facts["baseline"] == {"accuracy": 0.75, "f1": 0.0}
    assert not (tmp_path / "run").exists()


def test_a_question_that_was_cut_counts_once_however_many_windows_it_has(origins, tmp_path):
    lines = [
        {"question": question, "context": "abc xa bcb ac y bab", "answers": [{"text": "y", "answer_start": 14}]}
        for question in ("ab", "abcabcabc", "ac", "bc")
    ]
    file, told = tmp_path / "questions.jsonl", []
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    train(settings(origins["encoder"], file, "answer", epochs=1, validation=0.5), Events(), out=tmp_path / "run")
    model = tinyformer.load(tmp_path / "run")
    found = finetuning.evaluate(open_run(tmp_path / "run"), model, str(file), warn=told.append)
    assert found["examples"] == 4
    assert told == ["1 of 4 texts was cut to the context of 12 tokens"]


QUESTION = {"question": "ab", "context": "abc xa", "answers": [{"text": "xa", "answer_start": 4}]}
ONE_TEACHES = {  # 40 examples
    "answer": [QUESTION, *[QUESTION | {"answers": []}] * 39],
    "tag": [{"words": ["ab", "bc"], "tags": ["B-X", "B-X"]}, *[{"words": ["c"], "tags": ["O"]}] * 39],
}


@pytest.mark.parametrize("validation", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("task", ONE_TEACHES)
def test_not_all_that_teaches_something_is_kept_for_validation(origins, tmp_path, task, validation):
    file = tmp_path / "examples.jsonl"
    for place in (0, 20, 39):
        lines = [*ONE_TEACHES[task][1:]]
        lines.insert(place, ONE_TEACHES[task][0])
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for seed in range(8):
            config, events = settings(origins["encoder"], file, task, validation=validation, seed=seed), Events()
            some, kept = task_examples.read(TASKS[task], config, pytest.fail)
            assert sum(map(TASKS[task].teaches, some)) == 1
            assert len(kept) == 40 * validation
            assert sorted(example.place for example in (*some, *kept)) == sorted(
                f"{file}, line {number}" for number in range(1, 41)
            )
        train(config, events, out=tmp_path / "run", dry_run=True)
        (facts,) = events.of("dry_run")
        assert facts["examples"] == len(some)


def test_a_warm_up_may_last_to_the_end(origins, examples, tmp_path):
    given = {"epochs": 3, "batch_size": 32}  # 96 of 120 to train on
    with pytest.raises(UsageError, match="--warmup 10 is longer than all 9 steps"):
        train(settings(origins["encoder"], examples, warmup=10, **given), Events(), out=tmp_path / "run")
    assert train(settings(origins["encoder"], examples, warmup=9, **given), Events(), out=tmp_path / "run")["step"] == 9


def test_a_batch_has_no_more_rows_than_there_are_examples(origins, tmp_path):
    file, told = write(tmp_path / "file.tsv", [("abc", "x"), ("bca", "y")] * 10), []
    for size in (16, 10**6):
        events = Events()
        given = settings(origins["encoder"], file, batch_size=size)
        train(given, events, out=tmp_path / "run", dry_run=True)
        (facts,) = events.of("dry_run")
        told.append((facts["flops_per_step"], facts["memory_per_step"], facts["tokens_per_step"]))
    assert told[0] == told[1]
