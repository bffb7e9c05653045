"""What `inspect` prints: the chapter's figures, laid out for any text, width and encoding; and its bad input."""

import json
import os
import pty
import subprocess

import pytest
from commandline import COMMAND, finished, output, run
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

CAR = "I love this red car"
BERT = """\
encoder, masked; tokens are words, 9 ids

in short
  input   <cls> I <mask> this red car
  target  love

text
  token  <cls>  I  love  this  red  car  <sep>
  id     6      0  1     2     3    4    7

encoder
  place   0      1  2       3     4    5    6
  input   <cls>  I  <mask>  this  red  car  <sep>
  id      6      0  8       2     3    4    7
  target            love
  id                1
  weight  0      0  1       0     0    0    0

attention
  ■ where the token of the row may look at the token of the column
                    0 1 2 3 4 5 6
    0 <cls>         ■ ■ ■ ■ ■ ■ ■
    1 I             ■ ■ ■ ■ ■ ■ ■
    2 <mask>        ■ ■ ■ ■ ■ ■ ■
    3 this          ■ ■ ■ ■ ■ ■ ■
    4 red           ■ ■ ■ ■ ■ ■ ■
    5 car           ■ ■ ■ ■ ■ ■ ■
    6 <sep>         ■ ■ ■ ■ ■ ■ ■
"""
T5 = """\
                    encoder     decoder
                    0 1 2 3 4   0 1 2 3 4 5
  decoder
    0 <pad>         ■ ■ ■ ■ ■   ■ · · · · ·
    1 <extra_id_0>  ■ ■ ■ ■ ■   ■ ■ · · · ·
    2 love          ■ ■ ■ ■ ■   ■ ■ ■ · · ·
    3 <extra_id_1>  ■ ■ ■ ■ ■   ■ ■ ■ ■ · ·
    4 red           ■ ■ ■ ■ ■   ■ ■ ■ ■ ■ ·
    5 car           ■ ■ ■ ■ ■   ■ ■ ■ ■ ■ ■
  encoder
    0 I             ■ ■ ■ ■ ■
    1 <extra_id_0>  ■ ■ ■ ■ ■
    2 this          ■ ■ ■ ■ ■
    3 <extra_id_1>  ■ ■ ■ ■ ■
    4 </s>          ■ ■ ■ ■ ■
"""


# Of one, two and no columns, from right to left, unprintable; and not those on whose width terminals disagree.
SPECIMENS = "  \n\tфЖשلक\u0941한\u1112\u1161\u11ab字カﾊＡ…␣☺🦊\u200b\u202e\u2028\ufeff\ufffd"


def shown(*args, **more):
    return output("inspect", *args, **more).decode()


def test_the_figure_of_bert():
    assert shown("--mode", "encoder", CAR, "--hide", "love") == BERT


def test_the_figure_of_t5():
    out = shown("--mode", "encoder-decoder", CAR, "--hide", "love", "--hide", "red car")
    assert "  input   I <X> this <Y>\n  target  <X> love <Y> red car <Z>\n" in out
    assert "  <X> is <extra_id_0>, <Y> is <extra_id_1>; to the model, </s> ends both\n" in out
    assert out.endswith(T5)
    assert out == shown("--mode", "encoder-decoder", CAR, "--hide", "love", "--hide", "red", "--hide", "car")


def test_the_figure_of_gpt():
    out = shown("--mode", "decoder", CAR)
    assert "  input   I     love  this  red\n" in out
    assert "  target  love  this  red   car\n" in out
    triangle = ["■ · · ·", "■ ■ · ·", "■ ■ ■ ·", "■ ■ ■ ■"]
    assert [line[20:] for line in out.splitlines()[-4:]] == triangle


def test_next_sentence_and_pairs(folder):
    (folder / "tales.txt").write_text("I love it.\nIt is red.\n\nHe was old.\nHe slept.\n")
    out = shown("tales.txt", "--objective", "next-sentence")
    assert "\ndocument\n" in out
    assert "\nanother\n" in out
    assert "  segment  " in out
    assert "  label   0, B follows A\n" in out or "  label   1, B is from another document\n" in out
    out = shown("--objective", "seq2seq", "-", input="ein Haus\ta house\n")
    assert "  input   ein Haus\n  target  a house\n" in out
    assert "\nsource\n  token  ein  Haus\n" in out


def test_documents_of_a_file_share_a_row(folder):
    (folder / "tales.txt").write_text("\n\nfirst line\r\n\r\nsecond one\nthird\n")
    assert "  input   <cls> first <mask>\n" in shown("tales.txt", "--mode", "encoder", "--hide", "line")
    out = shown("tales.txt", "--mode", "encoder", "--line", "3-5", "--hide", "line")
    assert "  document  1      1      1       1      2      2       2    2\n" in out
    assert "    3 <sep>         ■ ■ ■ ■ · · · ·\n    4 <cls>         · · · · ■ ■ ■ ■\n" in out
    assert "second" in shown("tales.txt", "--mode", "decoder", "--line", "5")
    assert "third" in shown("--mode", "encoder", "--line", "6", "--hide", "third", input=b"\n" * 5 + b"third\n")


def test_draws_are_those_of_the_seed():
    args = ["--mode", "encoder-decoder", CAR * 9]
    assert shown(*args) == shown(*args, "--seed", "0") != shown(*args, "--seed", "1")


def test_everything_as_json():
    facts = json.loads(shown("--mode", "encoder", CAR, "--hide", "love", "--json"))
    assert facts["drawn"] == {"input": "<cls> I <mask> this red car", "target": "love"}
    assert facts["inputs"] == {
        "ids": [6, 0, 8, 2, 3, 4, 7],
        "texts": ["<cls>", "I", "<mask>", "this", "red", "car", "<sep>"],
    }
    assert facts["attention"]["encoder"] == [[True] * 7] * 7


def test_a_run_has_its_own_tokenizer_mode_and_context(trained):
    out = shown("--tokenizer", trained, "Once upon a time there was")
    assert out.startswith("decoder, causal; tokens are bytes, 256 ids\n")
    assert "9 more tokens of the text did not fit the context\n" in out, "26 bytes, of which 17 make a row of 16"
    same = shown("--tokenizer", trained / "tokenizer.json", "Once", "--mode", "encoder", "--hide", "Once")
    assert "260 ids" in same, "the special tokens of the mode are added, as in training"


@given(
    st.text(
        st.characters(max_codepoint=0x36F, exclude_characters="·") | st.sampled_from(SPECIMENS), min_size=2, max_size=40
    ),
    st.sampled_from(["words", "chars", "bytes"]),
    st.sampled_from(["decoder", "encoder", "encoder-decoder"]),
    st.integers(60, 120),
)
@example(" ".join(SPECIMENS), "words", "encoder", 120)
def test_columns_stand_below_each_other_whatever_the_text(text, kind, mode, columns):
    result = run(
        *("inspect", "--mode", mode, "--tokenizer", kind, "-"), input=text.encode(), env={"COLUMNS": str(columns)}
    )
    if result.exit_code:  # nothing but white space, or a single token
        assert result.exit_code == 2
        return
    pattern = result.stdout.partition("\nattention\n")[2]
    for line in result.stdout.splitlines():
        assert line.isprintable()
        assert cell_len(line) <= columns
    rows = [line for line in pattern.splitlines() if line[:5].strip().isdigit() and "■" in line]
    assert rows
    assert {cell_len(line[: min(line.find(mark) for mark in "■·" if mark in line)]) for line in rows} == {20}


def test_a_long_text_shows_what_fits_or_what_is_asked_for():
    text = " ".join(f"w{i}" for i in range(100))
    out = shown("--mode", "decoder", text)
    assert "69 more tokens not shown; --tokens 99 shows all\n" in out
    assert "w30" not in out.partition("\ntext\n")[2].replace("w30\n", "")
    assert "more token" not in shown("--mode", "decoder", text, "--tokens", "99")
    assert "98 more tokens not shown" in shown("--mode", "decoder", text, "--tokens", "1")


def test_a_short_target_leaves_its_room_to_the_source():
    """Of 80 columns 20 hold a token's name, and a mark takes two: 29 tokens, of which the target needs 6."""
    out = shown("--objective", "seq2seq", " ".join(map(str, range(40))) + "\ta b c d e", env={"COLUMNS": "80"})
    assert "18 more tokens not shown; --tokens 41 shows all" in out


def test_a_line_that_ends_with_cr_lf(tmp_path):
    path = tmp_path / "dos.txt"
    path.write_bytes(b"\r\nab\r\nc\r\n")
    for line in ([], ["--line", "2"]):
        facts = json.loads(output("inspect", "--mode", "decoder", "--tokenizer", "bytes", "--json", *line, str(path)))
        assert facts["texts"][0]["texts"] == ["a", "b"]


def test_an_encoding_without_the_marks_gets_letters_and_escapes():
    args = ["inspect", "--mode", "encoder", "I l\xf6ve 红 car", "--tokenizer", "words", "--hide", "car"]
    result = finished(*args, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "  input   <cls> I l\\xf6ve \\u7ea2 <mask>\n" in result.stdout
    assert "    1 I             x x x x x x\n" in result.stdout
    assert result.stdout.isascii()


@pytest.mark.parametrize(("settings", "bold"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_headings_are_bold_on_a_terminal_only(settings, bold):
    master, terminal = pty.openpty()
    command = [*COMMAND, "inspect", "--mode", "decoder", CAR]
    with subprocess.Popen(command, stdout=terminal, env=os.environ | settings) as child:
        os.close(terminal)
        screen = b""
        try:
            while chunk := os.read(master, 4096):
                screen += chunk
        except OSError:  # what reading a terminal ends with when its other end is closed
            pass
    os.close(master)
    assert child.returncode == 0
    assert (b"\x1b[1mattention\x1b[0m" in screen) == bold == (b"\x1b" in screen)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([CAR], 2, "a model of which kind? add --mode decoder"),
        (["--mode", "encodre", CAR], 2, "did you mean 'encoder'?"),
        (["--mode", "encoder", "--objective", "causal", CAR], 2, "--objective causal belongs to --mode decoder"),
        (["--mode", "encoder", ""], 2, "the text is empty"),
        (["--mode", "encoder", "empty.txt"], 2, "the text is empty"),
        (["--mode", "encoder"], 2, "the text is empty"),  # of stdin
        (["--mode", "encoder", "."], 2, "cannot read .: not a regular file"),
        (["--mode", "encoder", "short.txt", "--line", "2"], 2, "short.txt has no line 2, only 1 line"),
        (["--mode", "encoder", "short.txt", "--line", "0"], 2, "no line number"),
        (["--mode", "encoder", "short.txt", "--line", "3-2"], 2, "no line number"),
        (["--mode", "encoder", CAR, "--line", "1"], 2, "there is no file"),
        (["--mode", "encoder", CAR, "--hide", "hate"], 2, "'hate' is no word of the row"),
        (["--mode", "decoder", CAR, "--hide", "love"], 2, "hides no words; leave --hide out"),
        (["--mode", "encoder", CAR, "--tokenizer", "bpe"], 2, "learned from a long text"),
        (["--mode", "encoder", CAR, "--tokenizer", "missing"], 2, "there is no tokenizer 'missing'"),
        (["--mode", "encoder", CAR, "--tokenizer", "data.txt"], 1, "data.txt is not a usable tokenizer"),
        (["--mode", "encoder", CAR, "--tokenizer", ""], 2, "--tokenizer needs a name"),
        ([CAR, "--run", "missing"], 2, "no run at missing: it does not exist"),
        ([CAR, "--run", "missing", "--tokenizer", "bytes"], 2, "brings its own tokenizer; leave --tokenizer bytes out"),
        ([CAR, "--run", "."], 2, ". is not a run directory: no config.toml"),
        (["--mode", "encoder", CAR, "--context", "2"], 2, "2 is not in the range"),
        (["--mode", "encoder", CAR, "--tokens", "0"], 2, "0 is not in the range"),
        (["--mode", "encoder", "latin1.txt", "--line", "41", "--tokenizer", "chars"], 1, "is not UTF-8 at byte 3"),
        (["--objective", "seq2seq", CAR], 2, "a source, one tab, and a target"),
        (["--objective", "next-sentence", CAR], 2, "needs a second document"),
    ],
)
def test_bad_input(folder, args, code, message):
    result = run("inspect", *args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_run_of_another_mode(trained):
    result = run("inspect", "--mode", "encoder", "--tokenizer", trained, CAR)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {trained} is a run of --mode decoder; leave --mode encoder out")
