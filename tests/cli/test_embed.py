"""`tinyformer embed`: the library's features, as JSON lines or a NumPy file, of any run; and bad input."""

import json
import os
import shutil

import numpy as np
import pytest
from commandline import files_under, output, process, run
from made_runs import made_run

import tinyformer
from tinyformer.tasks.features import POOLS, embed
from tinyformer.text import CharTokenizer, load_tokenizer

TEXTS = ["a text", "another one, longer", "", "x" * 60]
PATIENCE = 30  # seconds


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A pretrained run of each mode, and a fine-tuned one."""
    folder = tmp_path_factory.mktemp("runs")
    made = {mode: made_run(folder / mode, mode=mode) for mode in POOLS}
    return made | {"tuned": made_run(folder / "tuned", "classify", labels=("no", "yes"))}


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def expected(path, **settings):
    model, tokenizer = tinyformer.load(path), load_tokenizer(path / "tokenizer.json")
    return np.stack(list(embed(model, tokenizer, TEXTS, **settings)))


@pytest.mark.parametrize(
    ("name", "pool"), [(mode, pool) for mode in POOLS for pool in POOLS[mode]] + [("tuned", "mean")]
)
def test_json_lines_and_a_file_hold_the_same_numbers(runs, lines, name, pool, tmp_path):
    wanted = expected(runs[name], pool=pool)
    shown = output("embed", runs[name], lines, "--pool", pool).splitlines()
    assert np.array_equal(np.array([json.loads(line)["features"] for line in shown], np.float32), wanted)
    result = run("embed", runs[name], lines, "--pool", pool, "--out", tmp_path / "a.npy")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        f"wrote {tmp_path / 'a.npy'}: 4 x 16, float32",
        "warning: 1 blank line was given features of 0",
        "warning: 1 of 3 texts was cut to the context of 32 tokens",
    ]
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert found.dtype == np.float32
    assert np.array_equal(found, wanted)


def test_blank_lines_alone_have_features_of_0(runs):
    result = run("embed", runs["encoder"], "-", input="\n\n")
    shown = [json.loads(line)["features"] for line in result.stdout.splitlines()]
    assert (result.exit_code, shown) == (0, [[0.0] * 16] * 2)
    assert result.stderr == "warning: 2 blank lines were given features of 0\n"


def test_texts_from_a_pipe_and_from_a_table(runs, lines, tmp_path):
    plain = output("embed", runs["encoder"], lines)
    assert output("embed", runs["encoder"], "-", input="\n".join(TEXTS)) == plain
    texts = [text for text in TEXTS if text]
    (tmp_path / "a.csv").write_text("n,caption\n" + "".join(f'1,"{text}"\n' for text in texts))
    found = output("embed", runs["encoder"], tmp_path / "a.csv", "--text", "caption").splitlines()
    assert found == [line for text, line in zip(TEXTS, plain.splitlines(), strict=True) if text]


def test_a_line_is_answered_before_the_next_is_written(runs):
    with process("embed", runs["decoder"], "-", stdin=-1) as child:
        for _ in range(2):
            child.stdin.write("a text\n")
            child.stdin.flush()
            assert len(json.loads(child.stdout.readline())["features"]) == 16
        child.stdin.close()
        assert child.wait(PATIENCE) == 0


def test_a_full_disk_leaves_nothing(runs, lines, tmp_path):
    """A device that is always full: /dev/full behind the temporary name."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / ".tmp-a.npy").symlink_to("/dev/full")
    result = run("embed", runs["encoder"], lines, "--out", tmp_path / "a.npy")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "No space left on device" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["encoder", "lines.txt", "--out", "lines.txt"], "lines.txt exists; choose a new --out"),
        (["decoder", "lines.txt", "--pool", "cls"], "no features by --pool cls; it has mean and last"),
        (["decoder", "bad.txt", "--out", "a.npy"], "line 2 is not UTF-8"),
        (["decoder", "missing.txt"], "missing.txt"),
        (
            ["decoder", "lines.txt", "--out", "nowhere/a.npy"],
            "there is no folder nowhere; make it, or choose another --out",
        ),
        (["decoder", "lines.txt", "--text", "caption"], "no column 'caption' (there are: a text)"),
        (["decoder", "lines.txt", "--pool", "means"], "did you mean 'mean'?"),
        (["decoder", "lines.txt", "--out", ""], "--out needs a name"),
        (["missing", "lines.txt"], "no run at"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(runs, lines, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"good\nb\xffd\n")
    before = files_under(tmp_path)
    result = run("embed", runs.get(args[0], "missing"), *args[1:])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert files_under(tmp_path) == before


def test_damaged_weights_are_told(runs, lines, tmp_path):
    copy = shutil.copytree(runs["encoder"], tmp_path / "copy")
    (weights,) = copy.glob("checkpoints/*/model.safetensors")
    weights.write_bytes(b"")
    result = run("embed", copy, lines)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "model.safetensors is damaged" in result.stderr


def test_a_character_that_the_tokenizer_does_not_know_is_told_with_its_line(runs, tmp_path):
    copy = shutil.copytree(runs["decoder"], tmp_path / "copy")
    CharTokenizer("ab").save(copy / "tokenizer.json")
    (tmp_path / "a.txt").write_text("ab\n\nacb\n")
    result = run("embed", copy, tmp_path / "a.txt")
    assert result.exit_code == 1
    assert f"{tmp_path / 'a.txt'}, line 3 has the character 'c'" in result.stderr
