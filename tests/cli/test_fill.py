"""`tinyformer fill`, and `generate` with an encoder-decoder: what a user sees, on models whose answers are known."""

import json

import numpy as np
import pytest
from commandline import QUICK, output, run

from tinyformer.cli import fill, generate
from tinyformer.models import ModelConfig, build
from tinyformer.text import ByteTokenizer, CharTokenizer, special_tokens

SHAPE = {"layers": 1, "width": 8, "heads": 1, "hidden": 8, "context": 64}
LETTERS = CharTokenizer("\n abcdeé漢", special_tokens("encoder"))
SPANS = CharTokenizer("\n abcdeé漢", special_tokens("encoder-decoder"))


def encoder(shares, tokenizer=LETTERS):
    """Gives these tokens these probabilities at every mask: all its weights are zero except the logits' bias."""
    config = ModelConfig(vocabulary=tokenizer.vocabulary_size, mode="encoder", head="transform", **SHAPE)
    model = build(config, seed=None)
    model.head.bias.array[:] = -50
    for token, share in shares.items():
        model.head.bias.array[tokenizer.encode_marked(token)] = np.log(share)
    return model


class EncoderDecoder:
    """Answers a source with a text that depends on it."""

    def __init__(self, answer, **given):
        self.answer = answer
        shape = SHAPE | {"positions": "relative"} | given
        self.config = ModelConfig(vocabulary=SPANS.vocabulary_size, mode="encoder-decoder", **shape)

    def encode(self, source, mask=None):
        self.ids = iter(SPANS.encode_marked(self.answer(SPANS.decode(source[0])) + b"</s>").tolist())

    def new_cache(self, rows, memory=None):
        return self

    def select(self, parents):
        pass

    def decode(self, ids, memory, *, cache, last_only, mask=None):
        logits = np.zeros((len(ids), 1, self.config.vocabulary))
        logits[:, :, next(self.ids, 0)] = 40
        return type("Logits", (), {"array": logits})


@pytest.fixture
def use(monkeypatch):
    """Lets the commands find this model in any run."""

    def put(model, tokenizer):
        for command in (fill, generate):
            monkeypatch.setattr(command, "load_language_model", lambda path, backend="auto": (model, tokenizer))
        monkeypatch.setattr(generate, "source_prefix", lambda path: b"")

    return put


def test_an_encoder_shows_a_table_of_tokens(use):
    use(encoder({"b": 0.5, "漢": 0.4, "\n": 0.06, "<pad>": 0.04}), LETTERS)
    assert output("fill", "run", "a <mask>é").decode().splitlines() == [
        '  50.00%  "b"      a bé',
        '  40.00%  "漢"     a 漢é',
        '   6.00%  "\\n"     a \\né',
        '   4.00%  "<pad>"  a <pad>é',
        ' < 0.01%  " "      a  é',
    ]


def test_several_masks_stand_under_headings(use):
    use(encoder({"b": 0.75, "c": 0.25}), LETTERS)
    lines = output("fill", "run", "<mask>a<mask>", "--top", "2").decode().splitlines()
    assert lines[0] == "mask 1 of 2"
    assert lines[1] == '  75.00%  "b"  ba<mask>'
    assert lines[3:5] == ["", "mask 2 of 2"]
    assert lines[6] == '  25.00%  "c"  <mask>ac'


def test_an_encoder_as_json(use):
    use(encoder({"b": 0.75, "c": 0.25}), LETTERS)
    facts = json.loads(output("fill", "run", "é<mask>", "--top", "1", "--json"))
    assert facts["text"] == "é<mask>"
    ((candidate,),) = facts["masks"]
    assert candidate.pop("probability") == pytest.approx(0.75)
    assert candidate == {"token": "b", "id": 3, "sentence": "éb"}


def test_bytes_that_are_no_text_are_written_as_in_a_string(use):
    tokenizer = ByteTokenizer(special_tokens("encoder"))
    use(encoder({b"\xe2": 0.6, b"\x1b": 0.4}, tokenizer), tokenizer)
    lines = output("fill", "run", "a<mask>", "--top", "2").decode().splitlines()
    assert lines == ['  60.00%  "\\xe2"  a\\xe2', '  40.00%  "\\x1b"  a\\x1b']


def test_an_encoder_decoder_shows_its_spans(use):
    use(EncoderDecoder(lambda source: b"<extra_id_0>b c<extra_id_1>d"), SPANS)
    answer = output("fill", "run", "a <mask> a <mask>", "--top", "1").decode()
    assert answer == ' 100.00%  "b c"  "d"  a b c a d\n'
    facts = json.loads(output("fill", "run", "a <mask> a <extra_id_1>", "--top", "1", "--json"))
    (filling,) = facts["fillings"]
    assert filling.pop("probability") == pytest.approx(1)
    assert filling == {
        "spans": ["b c", "d"],
        "sentence": "a b c a d",
        "answer": "<extra_id_0>b c<extra_id_1>d",
    }


def test_a_span_that_was_not_written_is_a_dash(use):
    use(EncoderDecoder(lambda source: b"<extra_id_1>d"), SPANS)
    result = run("fill", "run", "<mask> <mask>", "--top", "1")
    assert (result.stdout, result.stderr) == (' 100.00%  -  "d"  <extra_id_0> d\n', "")


def test_a_model_that_writes_no_sentinels(use):
    use(EncoderDecoder(lambda source: b"abc"), SPANS)
    result = run("fill", "run", "<mask>", "--top", "1")
    assert (result.exit_code, result.stdout) == (0, " 100.00%  -  <extra_id_0>\n")
    assert result.stderr == "warning: the model wrote no sentinel; it fills in only what span corruption taught it\n"


def test_a_table_is_cut_to_a_width_and_json_is_not(use):
    use(EncoderDecoder(lambda source: b"<extra_id_0>" + b"\n" * 60), SPANS)
    line, shown = output("fill", "run", "d <mask>", "--top", "1").decode(), "\\n" * 60
    assert line == f' 100.00%  "{shown[:37]}..."  d {shown[:115]}...\n'
    (filling,) = json.loads(output("fill", "run", "d <mask>", "--top", "1", "--json"))["fillings"]
    assert (filling["spans"], filling["sentence"]) == (["\n" * 60], "d " + "\n" * 60)


def test_a_mask_in_a_prompt_is_told_to_be_text(use):
    letters = CharTokenizer("abc<>msk ", special_tokens("encoder-decoder"))
    use(EncoderDecoder(lambda source: b"a"), letters)
    result = run("generate", "run", "--prompt", "a <mask> b")
    assert result.stderr == "warning: a mask in the prompt is plain text to this model; tinyformer fill fills it in\n"
    assert run("generate", "run", "--prompt", "a b").stderr == ""


@pytest.mark.parametrize("args", [[], ["-"]])
def test_the_sentence_comes_from_a_pipe(use, args):
    use(encoder({"b": 1.0}), LETTERS)
    for text in (b"a<mask>", b"a<mask>\n", b"a<mask>\r\n"):
        assert output("fill", "run", *args, "--top", "1", input=text) == b' 100.00%  "b"  ab\n'


def test_a_source_is_answered_and_not_repeated(use):
    use(EncoderDecoder(lambda source: source.removesuffix(b"</s>")[::-1]), SPANS)
    assert output("generate", "run", "--prompt", "abc") == b"cba\n"
    assert output("generate", "run", input=b"abc\n") == b"cba\n"
    assert output("generate", "run", "--prompt", "abc", "--echo") == b"abc\tcba\n"
    assert output("generate", "run", "--prompt", "abc", "--beams", "2") == b"cba\n"
    record = json.loads(output("generate", "run", "--prompt", "abc", "--json"))
    assert (record["prompt"], record["text"], record["ended"]) == ("abc", "cba", "end")


def test_sentinels_in_a_source_and_in_an_answer(use):
    use(EncoderDecoder(lambda source: b"<extra_id_0>b" if source == b"a<extra_id_0></s>" else b""), SPANS)
    assert output("generate", "run", "--prompt", "a<extra_id_0>") == b"<extra_id_0>b\n"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["fill", "run", "abc"], 2, "the sentence has no <mask>: put it where something is missing"),
        (["fill", "run", ""], 2, "the sentence has no <mask>"),
        (["fill", "run", "xyz<mask>"], 1, "the sentence has the character 'x'"),
        (["fill", "run", "a" * 70 + "<mask>"], 2, "73 tokens, and the model has learned 64 positions"),
        (["fill", "run", "<mask>", "--top", "0"], 2, "top must be at least 1"),
        (["generate", "run", "--prompt", "a"], 2, "an encoder, which cannot write text: use tinyformer fill"),
    ],
)
def test_bad_input_with_an_encoder(use, args, code, message):
    use(encoder({}), LETTERS)
    _is_one_line(run(*args), code, message)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["generate", "run"], 2, "the source is empty: an encoder-decoder answers a text, give one with --prompt"),
        (["generate", "run", "--prompt", "xyz"], 1, "the source has the character 'x'"),
        (["generate", "run", "--prompt", "a" * 70], 2, "71 tokens, and the model has learned 64 positions"),
        (["generate", "run", "--prompt", "a", "--samples", "2"], 2, "same text 2 times"),
        (["fill", "run", "abc"], 2, "the sentence has no <mask>"),
    ],
)
def test_bad_input_with_an_encoder_decoder(use, args, code, message):
    use(EncoderDecoder(lambda source: b"", positions="learned"), SPANS)
    _is_one_line(run(*args), code, message)


def test_filling_with_a_decoder(use):
    use(build(ModelConfig(vocabulary=LETTERS.vocabulary_size, **SHAPE)), LETTERS)
    _is_one_line(run("fill", "run", "a<mask>"), 2, "writes only onwards: use tinyformer generate")


def test_filling_from_a_directory_that_is_no_run(tmp_path):
    _is_one_line(run("fill", tmp_path / "missing", "<mask>"), 2, "missing")


@pytest.mark.parametrize("mode", ["encoder", "encoder-decoder"])
def test_a_trained_run_fills_in(folder, mode):
    made = run("train", "data.txt", *QUICK, "--mode", mode, "--out", "run")
    assert made.exit_code == 0, made.stderr
    facts = json.loads(output("fill", "run", "a s<mask>all fox", "--json"))
    assert facts["text"] == "a s<mask>all fox"
    assert len(facts["masks"][0] if mode == "encoder" else facts["fillings"]) > 0


def _is_one_line(result, code, message):
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
