"""`tinyformer train` and `evaluate` in the modes that are not a decoder's."""

import json
import re
import tomllib

import pytest
from commandline import TINY, files_under, output, run
from safetensors.numpy import load_file

STORY = "A fox met an owl.\nThey sat.\nIt was late.\nThe owl sang.\n\nA bear\nslept.\nIt snored\nall day.\n\n" * 12
SHORT = [*TINY, "--steps", "4", "--eval-every", "2", "--sample-every", "4"]
PAIRS = [("cat", "tac"), ("doge", "egod"), ("ox", "xo"), ("birds", "sdrib"), ("ant", "tna"), ("horse", "esroh")]


@pytest.fixture
def texts(folder):
    (folder / "story.txt").write_text(STORY)
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS * 6))
    return folder


@pytest.mark.parametrize(
    ("mode", "file", "objective", "shown"),
    [
        (
            "encoder",
            "story.txt",
            [],
            ["encoder (masked), 1 layer,", "[hidden token as", "tinyformer fill runs/st"],
        ),
        ("encoder", "story.txt", ["--objective", "next-sentence"], ["0.6931 by guessing (ln 2)", "next sentence"]),
        (
            "encoder-decoder",
            "story.txt",
            [],
            ["(span-corruption), 1 + 1 lay", "rows of 16 +", "| source: ", "fill"],
        ),
        (
            "encoder-decoder",
            "pairs.tsv",
            ["--objective", "seq2seq"],
            ["exact match", "| answer: ", "| target: ", "generate runs/pa"],
        ),
    ],
)
def test_training_shows_the_figures_of_its_mode(texts, mode, file, objective, shown):
    result = run("train", "--mode", mode, *objective, file, *SHORT)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    for part in [*shown, "(ln v)", "unigram entropy", "by the commonest one", "accuracy", "(unigram ", " %"]:
        assert part in result.stderr, part
    assert "bits/byte" not in result.stderr
    done = next(line for line in result.stderr.splitlines() if line.startswith("done: "))
    assert re.search(r"loss [\d.]+ \(unigram [\d.]+\) nats per token, accuracy [\d.]+ % \(unigram [\d.]+ %\)", done)
    assert ("(the commoner answer " in done) == ("next-sentence" in objective)
    out = f"runs/{file.split('.')[0]}-{mode}"
    facts = json.loads(output("evaluate", out, file, "--json"))
    assert {"loss", "accuracy", "unigram_accuracy", "tokens", "perplexity"} <= facts.keys()
    assert "bits_per_byte" not in facts
    text = output("evaluate", out, file).decode()
    assert re.match(r"loss           [\d.]+ nats per token \(unigram [\d.]+\)\n", text)
    assert "accuracy       " in text
    assert ("exact match" in text) == ("seq2seq" in objective)
    assert ("next sentence" in text) == ("next-sentence" in objective)
    assert "tokens of 36 pairs" in text or "seq2seq" not in objective


def test_exact_match_is_what_greedy_writing_gives(texts):
    options = ["--width", "32", "--layers", "1", "--context", "16", "--dropout", "0", "--tokenizer", "chars"]
    options += ["--steps", "120", "--batch-size", "6", "--learning-rate", "0.01", "--sample-every", "0"]
    mode = ["--mode", "encoder-decoder", "--objective", "seq2seq"]
    assert run("train", "pairs.tsv", *mode, *options, "--out", "run").exit_code == 0
    asked = [*PAIRS[:4], ("tan", "nat"), ("xo", "ox"), ("ant", "ant")]
    (texts / "asked.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in asked))
    answers = [output("generate", "run", "--prompt", a, "--greedy").decode().strip() for a, _ in asked]
    right = sum(answer == b for answer, (_, b) in zip(answers, asked))
    assert 4 <= right < 7
    assert json.loads(output("evaluate", "run", "asked.tsv", "--json"))["exact_match"] == right / 7


def test_a_dry_run_lines_up_long_names(texts):
    sizes = [*TINY, "--mode", "encoder-decoder", "--dry-run"]
    lines = run("train", "story.txt", *sizes).stderr.splitlines()
    first, last = lines.index("shapes"), lines.index("a step")
    shapes = [line for line in lines[first:last] if ".weight" in line]
    assert max(line.index(" ", 2) for line in shapes) > 42
    assert len({re.search(r"\d+( x \d+)?$", line).start() for line in shapes}) == 1


def test_the_published_mode_of_a_preset_needs_no_flag(texts):
    result = run("train", "story.txt", "--preset", "bert-tiny", "--tokenizer", "bytes", "--context", "16", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "encoder (masked), 2 layers, width 128" in result.stderr
    assert "next_sentence.weight" in result.stderr


@pytest.mark.parametrize(
    ("objective", "shown"),
    [("masked", "encoder (masked)"), ("span-corruption", "encoder-decoder (span-corruption)"), ("causal", "decoder,")],
)
def test_an_objective_alone_chooses_its_mode(texts, objective, shown):
    result = run("train", "story.txt", "--objective", objective, *TINY, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert shown in result.stderr


@pytest.mark.parametrize("mode", ["decoder", "encoder", "encoder-decoder"])
def test_a_text_that_is_not_utf8_is_told_once(texts, mode):
    result = run("train", "latin1.txt", "--mode", mode, *TINY, "--steps", "1", "--sample-every", "0", "--out", "run")
    assert result.exit_code == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == ["warning: latin1.txt is not UTF-8; training on its bytes"]


def test_a_bert_with_its_norms_before(texts):
    flags = ["--mode", "encoder", *TINY, "--steps", "1", "--sample-every", "0"]
    names = {}
    for place in ("post", "pre"):
        result = run("train", "story.txt", *flags, "--norm-position", place, "--out", place)
        assert result.exit_code == 0, result.stderr
        assert tomllib.loads((texts / place / "config.toml").read_text())["model"]["norm_position"] == place
        names[place] = load_file(texts / place / "checkpoints/step-000001/model.safetensors").keys()
    assert names["pre"] - names["post"] == {"stack.norm.weight", "stack.norm.bias"}  # closes a pre-norm stack
    assert run("train", "--resume", "pre", "--norm-position", "post", "--steps", "2").exit_code == 2


def test_a_config_of_a_run_begins_one_of_another_mode_or_objective(texts):
    assert run("train", "story.txt", *SHORT, "--mode", "encoder", "--out", "run").exit_code == 0
    sizes = {}
    for mode, objective in (("decoder", []), ("encoder-decoder", []), ("encoder", ["--objective", "next-sentence"])):
        flags = ["--config", "run", "--mode", mode, *objective, "--steps", "1", "--out", mode]
        result = run("train", *flags)
        assert result.exit_code == 0, result.stderr
        written = tomllib.loads((texts / mode / "config.toml").read_text())
        sizes[mode] = {written["model"][name] for name in ("width", "context")}
        fresh = ["train", "story.txt", *SHORT, "--mode", mode, *objective, "--steps", "1", "--out", f"fresh-{mode}"]
        assert run(*fresh).exit_code == 0
        assert written == tomllib.loads((texts / f"fresh-{mode}/config.toml").read_text())
    assert list(sizes.values()) == [{16}] * 3
    result = run("train", "story.txt", "--config", "run", "--init-from", "encoder", "--steps", "1", "--out", "begun")
    assert result.exit_code == 0, result.stderr
    begun = tomllib.loads((texts / "begun/config.toml").read_text())
    assert begun["model"]["next_sentence"] is True
    assert begun["model"]["init_from"] == str(texts / "encoder")
    assert run("train", "--config", "begun", "--out", "again").exit_code == 0
    assert run("train", "--resume", "begun", "--steps", "2").exit_code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["story.txt", "--mode", "encodr"], "did you mean 'encoder'?"),
        (
            ["story.txt", "--objective", "masked", "--mode", "decoder"],
            "masked belongs to --mode encoder, and the mode here is decoder",
        ),
        (["story.txt", "--objective", "masked", "--preset", "gpt2"], "and the mode here is decoder"),
        (["story.txt", "--masking", "fixed"], "--masking belongs to --mode encoder"),
        (["story.txt", "--label-smoothing", "0.1"], "--label-smoothing belongs to --objective seq2seq"),
        (
            ["story.txt", "--mode", "encoder-decoder", "--label-smoothing", "0.1"],
            "objective here is span-corruption",
        ),
        (["story.txt", "--label-smoothing", "1"], "--label-smoothing must be below 1"),
        (["story.txt", "--mode", "encoder-decoder", "--objective", "seq2seq"], "story.txt, line 1 has no tab"),
        (["long.tsv", "--mode", "encoder-decoder", "--objective", "seq2seq"], "give --context 41, or shorten"),
        (
            ["short.txt", "--mode", "encoder"],
            "the text has 9 tokens, which is too short: training and validation each need 16",
        ),
        (["short.txt", "--mode", "encoder-decoder"], "validation each need 17 for a context of 16; give more text"),
        (["story.txt", "--mode", "encoder", "--preset", "gpt2"], "is of mode decoder"),
        (["story.txt", "--init-from", "none"], "no run at none"),
        (["story.txt", "--init-from", "none", "--mode", "encoder"], "no run at none"),
        (
            ["story.txt", "--mode", "encoder", "--vocab-size", "257", "--tokenizer", "bpe"],
            "and 4 special tokens",
        ),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(texts, args, message):
    (texts / "long.tsv").write_text("a\tb\n" * 9 + "a\t" + "b" * 40 + "\n" + "a\tb\n" * 9)
    before = files_under(texts)
    options = [] if "--tokenizer" in args else ["--tokenizer", "bytes"]
    result = run("train", *args, "--steps", "2", "--context", "16", *options)
    assert result.exit_code == 2, result.stderr
    *progress, error = result.stderr.splitlines()
    assert all(line.startswith(("encoding the", "counting the")) for line in progress)
    assert error.startswith("Error: ")
    assert message in error
    assert "bug" not in error
    assert files_under(texts) == before


def test_the_help_tells_how_text_is_read():
    text = " ".join(output("train", "--help").decode().split())
    assert "For an encoder, blank lines separate documents, which never see each other" in text
    assert "A decoder and span corruption read the text as one stream" in text
    assert "each line is a source, a tab, and its target" in text
    assert "[default: 1500]" in text
