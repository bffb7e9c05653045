"""Directories in and out: what transformers writes comes back bit for bit, and opens without a complaint."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import regex
import torch
import transformers
from huggingface import bert, close, gpt2, roformer, saved, t5
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyformer import interop
from tinyformer.generation import fill_masks
from tinyformer.interop import tokenizer as tokenizers
from tinyformer.interop.directory import write_run
from tinyformer.models import build, resolve
from tinyformer.text import BPETokenizer, ByteTokenizer, CharTokenizer, load_tokenizer
from tinyformer.text.bpe_training import count_pieces, train_bpe
from tinyformer.text.special import special_tokens
from tinyformer.training.rundir import new_run

pytestmark = pytest.mark.oracle

MODES = ("decoder", "encoder", "encoder-decoder")
AUTO = {
    "decoder": transformers.AutoModelForCausalLM,
    "encoder": transformers.AutoModelForPreTraining,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
}
SAMPLE = """Once upon a time there was a small dragon who couldn't breathe fire. "I'll try," he said, 12 times.
  The old  dragon laughed.\tÜber den Wölken  — 你好，世界。 </s> <mask> \r\n\r\n   end   """


def merges(size):
    """Rules learned from the sample."""
    counts = Counter()
    count_pieces(counts, [SAMPLE.encode() * 3])
    return train_bpe(counts, size)


def with_tokenizer(folder):
    """A directory of a model with a vocabulary of 256, completed with a tokenizer: bytes."""
    for name, content in tokenizers.write(ByteTokenizer(), interop.read_model(folder).config).items():
        (folder / name).write_text(json.dumps(content))
    return folder


def same_state(first, second):
    """Whether two models of transformers hold the same tensors, bit for bit."""
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def opened(folder, auto, **more):
    """The model in a directory, which must lack nothing and have nothing to spare."""
    model, information = auto.from_pretrained(folder, output_loading_info=True, attn_implementation="eager", **more)
    assert not any(information.values()), information
    return model.eval()


FAMILIES = {
    "gpt2": lambda seed: gpt2(seed, vocabulary=256),
    "bert": lambda seed: bert(seed, vocabulary=256),
    "bert-mlm": lambda seed: bert(seed, transformers.BertForMaskedLM, vocabulary=256),
    "roformer": lambda seed: roformer(seed, vocabulary=256),
    "t5-1.0": lambda seed: t5(seed, "1.0", vocab_size=256),
    "t5-1.1": lambda seed: t5(seed, "1.1", vocab_size=256),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FAMILIES)
def test_in_and_out_again_is_the_same_bit_for_bit(name, seed, tmp_path):
    theirs, _ = FAMILIES[name](seed)
    with_tokenizer(saved(theirs, tmp_path / "in"))
    run = interop.import_run(tmp_path / "in", tmp_path / "run")
    interop.export_run(run.path, tmp_path / "out")
    auto = transformers.AutoModelForMaskedLM if name in ("bert-mlm", "roformer") else AUTO[run.config().mode]
    back = opened(tmp_path / "out", auto)
    assert type(back) is type(theirs)
    for side in (theirs, back):  # an untied BERT holds a second bias that nothing reads
        if "cls" in dict(side.named_children()) and not side.config.tie_word_embeddings:
            side.cls.predictions.bias.data.zero_()
    same_state(theirs, back)


GPT2 = {"norm": "layer", "positions": "learned", "bias": True}
RUNS = [(mode, {}) for mode in MODES] + [
    ("encoder", {"positions": "learned"}),
    ("decoder", GPT2),
    ("decoder", {"gated": True, "tied": False}),
]


@pytest.mark.parametrize(("mode", "choices"), RUNS)
def test_a_run_of_ours_opens_there_and_gives_the_same_logits(mode, choices, tmp_path):
    tokenizer = BPETokenizer(merges(300), special_tokens(mode))
    shape = resolve(mode=mode, layers=2, width=32, context=24, vocabulary=tokenizer.vocabulary_size, **choices)
    model = build(shape, seed=3)
    with new_run(tmp_path / "run", "x", mode) as run:
        write_run(run, model, tokenizer)
    interop.export_run(run.path, tmp_path / "out")
    auto = transformers.AutoModelForMaskedLM if mode == "encoder" else AUTO[mode]
    theirs = opened(tmp_path / "out", auto)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, shape.vocabulary, (2, 24))
    mask = np.arange(24) < np.array([[24], [11]])
    read = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}
    if mode == "encoder-decoder":
        logits = model(ids, ids[:, :7], mask=mask)
        their_logits = theirs(**read, decoder_input_ids=torch.tensor(ids[:, :7])).logits
        start = torch.tensor([[tokenizer.special_id("pad")]])
        labels = theirs(**read, labels=torch.tensor(ids[:, :7])).logits  # which shifts by config.json's start token
        shifted = torch.cat([start.expand(2, 1), torch.tensor(ids[:, :6])], dim=1)
        assert torch.equal(labels, theirs(**read, decoder_input_ids=shifted).logits)
    else:
        logits, their_logits = model(ids, mask=mask), theirs(**read).logits
    close(logits.numpy(), their_logits, 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_and_shards(dtype, tmp_path):
    theirs, _ = t5(1, "1.1")
    theirs = theirs.to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path, max_shard_size="2KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    ours = interop.read_model(tmp_path, warn=pytest.fail)
    wanted = theirs.shared.weight.detach().to(torch.float32).numpy()
    assert np.array_equal(ours.tokens.weight.numpy(), wanted)
    wanted = theirs.lm_head.weight.detach().to(torch.float32).numpy()
    assert np.array_equal(ours.head.output.weight.numpy(), wanted.T)


def test_bodies_without_a_head(tmp_path):
    theirs, rng = gpt2(1)
    saved(theirs.transformer, tmp_path / "gpt2")
    ids = rng.integers(0, theirs.config.vocab_size, (2, 5))
    ours = interop.read_model(tmp_path / "gpt2", warn=pytest.fail)
    close(ours(ids).numpy(), theirs(torch.tensor(ids)).logits, 1e-5)
    theirs, rng = bert(1)
    saved(theirs.bert, tmp_path / "bert")
    ids = rng.integers(0, theirs.config.vocab_size, (2, 5))
    with pytest.warns(UserWarning, match=r"lacks head\.bias, head\.dense\.bias.*next_sentence.*start fresh"):
        ours = interop.read_model(tmp_path / "bert")
    close(ours.hidden(ids).numpy(), theirs.bert(torch.tensor(ids)).last_hidden_state, 1e-5)
    assert ours.head.dense.weight.numpy().any()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Our tokenizers of each kind and mode, with what AutoTokenizer makes of them."""
    found = {}
    for mode in MODES:
        special = special_tokens(mode)
        for ours in (
            ByteTokenizer(special),
            BPETokenizer(merges(340), special),
            CharTokenizer("".join(sorted({*SAMPLE, *map(chr, range(32, 127))})), special),
        ):
            folder = tmp_path_factory.mktemp("tokenizer")
            shape = resolve(mode=mode, vocabulary=ours.vocabulary_size, context=1 << 20)
            for name, content in tokenizers.write(ours, shape).items():
                (folder / name).write_text(json.dumps(content))
            kind = {"decoder": "gpt2", "encoder": "bert", "encoder-decoder": "t5"}[mode]
            (folder / "config.json").write_text(json.dumps({"model_type": kind}))
            found[mode, ours.kind] = ours, transformers.AutoTokenizer.from_pretrained(folder)
    return found


def check_ids(ours, theirs, text):
    ids = ours.encode(text).tolist()
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids) == text


any_text = st.text(st.characters(exclude_categories=["Cs"]))
long_runs = st.lists(st.tuples(st.sampled_from(" \n\téa1.\u3000\U00016d80"), st.integers(1, 600)), max_size=4)
runs = long_runs.map(lambda parts: "".join(letter * count for letter, count in parts))
names = st.lists(st.sampled_from(["<mask>", "</s>", "<extra_id_3>", "<cls>", " ", "a", "don't"]), max_size=5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@settings(max_examples=150, deadline=None)
@given(text=any_text | runs | names.map("".join))
def test_autotokenizer_gives_our_ids_for_any_text(exported, mode, kind, text):
    check_ids(*exported[mode, kind], text)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=50, deadline=None)
@given(text=st.text(st.sampled_from(SAMPLE)) | names.map("".join))
def test_characters_too(exported, mode, text):
    check_ids(*exported[mode, "chars"], text)


def test_letters_numbers_and_spaces_of_every_edition_of_unicode_are_split_alike(tmp_path):
    """Where such a range begins or ends, each character stands between two letters and between two numbers.

    The merges join a letter, a number and a space with whatever byte follows, so every split shows in the ids.
    """
    everything = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    classes = [regex.compile(kind).match for kind in (r"\p{L}", r"\p{N}", r"\s")]
    kinds = [tuple(bool(match(c)) for match in classes) for c in everything]
    edges = {i + step for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1] for step in (-1, 0)}
    assert len(edges) > 1000
    ours = BPETokenizer([(left, byte) for left in b"a1 " for byte in range(128, 256)])
    for name, content in tokenizers.write(ours, resolve(vocabulary=ours.vocabulary_size, context=1 << 20)).items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    check_ids(ours, theirs, "".join(f"a{c}a 1{c}1 {c}" for c in map(everything.__getitem__, sorted(edges))))


def test_special_tokens_where_they_are_asked_for(exported):
    for kind in ("bytes", "bpe", "chars"):
        ours, theirs = exported["encoder", kind]
        cls, sep = ours.special_id("cls"), ours.special_id("sep")
        one, two = ours.encode("I said").tolist(), ours.encode("12").tolist()
        found = theirs("I said", "12")
        assert found["input_ids"] == [cls, *one, sep, *two, sep]
        assert found["token_type_ids"] == [0] * (len(one) + 2) + [1] * (len(two) + 1)
        for text in ("I <mask>", "I<mask>", "<mask> said <mask> <mask>.", "I <sep> <mask>"):
            marked = theirs(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
            assert marked == ours.encode_marked(text).tolist()
        assert (theirs.pad_token_id, theirs.mask_token_id) == (ours.special_id("pad"), ours.special_id("mask"))
        ours, theirs = exported["encoder-decoder", kind]
        assert theirs("said")["input_ids"] == [*ours.encode("said").tolist(), ours.special_id("end")]
        assert theirs.convert_tokens_to_ids("<extra_id_0>") == ours.sentinels[0] == ours.vocabulary_size - 1
        marked = theirs("I <extra_id_0> 12 <extra_id_1>", add_special_tokens=False, split_special_tokens=False)
        assert marked["input_ids"] == ours.encode_marked("I <extra_id_0> 12 <extra_id_1>").tolist()


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("kind", ["bytes", "bpe", "chars"])
def test_a_pipeline_fills_masks_as_we_do(kind, positions, exported, tmp_path):
    """Also where two masks stand side by side, at the beginning of the text, and behind a letter."""
    tokenizer = exported["encoder", kind][0]
    shape = resolve(
        mode="encoder", layers=2, width=32, context=48, vocabulary=tokenizer.vocabulary_size, positions=positions
    )
    model = build(shape, seed=3)
    rng = np.random.default_rng(0)
    for parameter in model.parameters().values():  # else every probability is much the same
        parameter.array += rng.normal(0, 0.3, parameter.shape).astype(np.float32)
    with new_run(tmp_path / "run", "x", "encoder") as run:
        write_run(run, model, tokenizer)
    interop.export_run(run.path, tmp_path / "out", warn=lambda message: None)
    fill = transformers.pipeline("fill-mask", str(tmp_path / "out"))
    for text in ("The dragon was <mask> in 12 times", "<mask> dragon", "a <mask> <mask>.", "drag<mask>"):
        wanted = fill_masks(model, tokenizer, text)
        found = fill(text, tokenizer_kwargs={"split_special_tokens": False})
        for theirs, ours in zip(found if len(wanted) > 1 else [found], wanted, strict=True):
            assert [one["token"] for one in theirs] == [one.token for one in ours]
            assert [one["score"] for one in theirs] == pytest.approx([one.probability for one in ours], rel=2e-5)
            assert ours[0].probability > 3 / tokenizer.vocabulary_size


def test_a_tokenizer_that_came_in_goes_out_as_it_was(tmp_path):
    theirs, _ = FAMILIES["gpt2"](1)
    with_tokenizer(saved(theirs, tmp_path / "in"))
    run = interop.import_run(tmp_path / "in", tmp_path / "run")
    interop.export_run(run.path, tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "in" / name).read_text()) == json.loads((tmp_path / "out" / name).read_text())
    shutil.rmtree(tmp_path / "in")  # a run does not depend on where it came from
    assert interop.export_run(run.path, tmp_path / "again")[1] == "GPT2LMHeadModel"


def test_an_imported_tokenizer_reads_marks_there_unless_it_is_told_not_to(tmp_path):
    theirs, _ = bert(1, vocabulary=64)
    saved(theirs, tmp_path / "in")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "mask", "un", "##want", "##ed", "a"]
    (tmp_path / "in" / "vocab.txt").write_text("\n".join(words))
    run = interop.import_run(tmp_path / "in", tmp_path / "run")
    interop.export_run(run.path, tmp_path / "out")
    ours, theirs = load_tokenizer(run.tokenizer_file), transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "a [MASK] unwanted a"
    assert theirs(text)["input_ids"] == [2, 11, 4, 8, 9, 10, 11, 3]
    split = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert split == ours.encode(text).tolist() == [11, 5, 7, 6, 8, 9, 10, 11]
    assert ours.encode_marked(text).tolist() == [11, 4, 8, 9, 10, 11]
