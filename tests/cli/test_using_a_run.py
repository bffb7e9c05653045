"""What is done with a run directory: generate, evaluate, info; and directories that are none, or damaged."""

import io
import json

import pytest
from commandline import QUICK, TEXT, output, process, run

import tinyformer
from tinyformer.cli.generate import _writer


def test_generating_echoes_the_prompt_and_is_the_same_for_the_same_seed(trained):
    args = ["generate", trained, "--prompt", "Once", "--tokens", "30"]
    first = output(*args)
    assert first.startswith(b"Once")
    assert len(first) == 4 + 30 + 1
    assert output(*args) == first
    assert output(*args, "--seed", "1") != first
    assert b"Once" + output(*args, "--no-echo") == first


def test_the_prompt_comes_from_an_argument_a_file_or_a_pipe(trained, tmp_path):
    (tmp_path / "prompt.txt").write_bytes(b"a fox")
    options = ["generate", trained, "--tokens", "9"]
    expected = output(*options, "--prompt", "a fox")
    assert expected.startswith(b"a fox")
    assert output(*options, "--prompt-file", tmp_path / "prompt.txt") == expected
    assert output(*options, input=b"a fox") == expected
    assert output(*options, "--prompt", "-", input=b"a fox") == expected
    assert output(*options, "--prompt-file", "-", input=b"a fox") == expected


@pytest.mark.parametrize("options", [["--greedy"], ["--top-k", "5"], ["--top-p", "0.5"], ["--beams", "3"]])
def test_the_cache_changes_nothing_also_beyond_the_context(trained, options):
    args = ["generate", trained, "--prompt", "Once upon", "--tokens", "40", *options]
    assert output(*args, "--cache") == output(*args, "--no-cache")


def test_several_samples_in_words_and_as_json(trained):
    args = ["generate", trained, "--prompt", "a", "--tokens", "12", "--samples", "3", "--temperature", "0.3"]
    records = [json.loads(line) for line in output(*args, "--json").splitlines()]
    assert [record["sample"] for record in records] == [0, 1, 2]
    assert all(record["tokens"] == 12 and record["ended"] == "length" for record in records)
    words = output(*args).decode("utf-8", "replace")
    assert words == "\n---\n".join("a" + record["text"] for record in records) + "\n"


def test_stop_texts(trained):
    args = ["generate", trained, "--greedy", "--tokens", "30", "--prompt", "Once"]
    whole = output(*args, "--no-echo").decode()
    stop = whole[4:6]
    record = json.loads(output(*args, "--stop", stop, "--json"))
    assert record["text"] == whole[: whole.index(stop)]
    assert record["ended"] == "stop"


def test_a_prompt_that_cannot_be_encoded_is_refused_before_anything_is_printed(folder):
    made = run("train", "data.txt", *QUICK, "--tokenizer", "chars", "--out", "run")
    assert made.exit_code == 0, made.stderr
    result = run("generate", "run", "--prompt", "a fox?")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the prompt has the character '?'")


def test_a_character_that_begins_in_the_prompt_is_whole_on_a_terminal(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", screen)
    write = _writer()
    for part in (b"caf\xc3", b"\xa9 \x1b[2J \xe2\x82", b"\n"):
        write(part)
    assert screen.buffer.getvalue().decode() == "caf\u00e9 \ufffd[2J \ufffd\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tokens", "0"], "tokens"),
        (["--temperature", "-1"], "temperature"),
        (["--top-k", "0"], "top k"),
        (["--top-p", "2"], "top p"),
        (["--samples", "0"], "samples"),
        (["--beams", "0"], "beams"),
        (["--repetition-penalty", "0"], "repetition penalty"),
        (["--stop", ""], "stop text"),
        (["--seed", "-1"], "seed"),
        (["--greedy", "--temperature", "1"], "exclude each other"),
        (["--greedy", "--samples", "2"], "same text"),
        (["--beams", "2", "--top-k", "5"], "leave one out"),
        (["--beams", "2", "--samples", "3"], "3 texts"),
        (["--length-penalty", "1"], "--beams"),
        (["--prompt", "a", "--prompt-file", "b"], "exclude each other"),
        (["--prompt-file", "missing.txt"], "missing.txt"),
    ],
)
def test_bad_input_to_generating(trained, args, message):
    result = run("generate", trained, *args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize("command", [["generate"], ["evaluate"], ["train", "--resume"], ["info"]])
def test_a_directory_that_is_no_run(folder, command):
    more = ["data.txt"] if command == ["evaluate"] else []
    for path in (".", "./missing", "data.txt"):
        result = run(*command, path, *more)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert path.removeprefix("./") in result.stderr


def test_a_damaged_checkpoint_is_passed_over_and_all_damaged_is_one_error(copy):
    newest, oldest = sorted(copy.glob("checkpoints/*"))[::-1][:2]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    result = run("generate", copy, "--tokens", "3")
    assert result.exit_code == 0
    damage = f"{weights} is damaged: it has changed since it was saved; going on from {oldest.name}"
    assert result.stderr == f"warning: {damage}\n"
    with pytest.warns(UserWarning, match="is damaged.*going on from") as warned:
        tinyformer.load(copy)
    assert warned[0].filename == __file__
    for hostile in (b"", b"\xff" * 1000, b"\x80\x02c__builtin__\neval\n", b"{" * 100_000):
        for path in (newest, oldest):
            (path / "model.safetensors").write_bytes(hostile)
        for command in (["generate", copy], ["evaluate", copy, copy / "log.jsonl"], ["train", "--resume", copy]):
            result = run(*command)
            assert result.exit_code == 1
            assert result.stderr.count("\n") == 1
            assert "model.safetensors" in result.stderr


@pytest.mark.parametrize("name", ["tokenizer.json", "config.toml"])
@pytest.mark.parametrize("hostile", [b"", b"\xff\xfe", b"[" * 100_000, b'{"kind": 3}', b"[model]\nwidth = -1\n"])
def test_a_hostile_tokenizer_or_config_is_one_line(copy, name, hostile):
    (copy / name).write_bytes(hostile)
    result = run("generate", copy, "--tokens", "3")
    assert result.exit_code in (1, 2)
    assert result.stderr.count("\n") == 1
    assert "bug" not in result.stderr


def test_evaluating_scores_every_token_but_the_first(trained, folder):
    words = output("evaluate", trained, "data.txt").decode()
    assert f"{len(TEXT) - 1:,} tokens" in words
    facts = json.loads(output("evaluate", trained, "data.txt", "--json"))
    assert facts["tokens"] == len(TEXT) - 1
    assert f"{facts['bits_per_byte']:.4f}" in words
    more = (["data.txt", "--stride", "17"], 2), (["data.txt", "--text", "body"], 2)
    for args, code in ((["missing.txt"], 2), (["empty.txt"], 2), *more):
        result = run("evaluate", trained, *args)
        assert (result.exit_code, result.stderr.count("\n")) == (code, 1)


def test_info_knows_a_run(trained):
    facts = json.loads(output("info", trained, "--json"))
    assert facts["configuration"]["width"] == 16
    assert facts["configuration"]["vocabulary"] == 256


def test_text_reaches_a_pipe_while_it_is_written(trained):
    with process("generate", trained, "--prompt", "Once", "--tokens", "100000") as child:
        assert child.stdout.read(10).startswith("Once")
        assert child.poll() is None
        child.stdout.close()  # as `head` does
        assert child.stderr.read() == ""
        assert child.wait(timeout=30) == 1
