"""`tinyformer import` and `tinyformer export`: a published model becomes a run, and goes out again."""

import functools
import json
import shlex
import sys

import numpy as np
import pytest
from commandline import files_under, output, run
from published import gpt2_arrays, write_gpt2
from safetensors.numpy import load_file, save_file

import tinyformer
from tinyformer.interop.directory import write_run
from tinyformer.models import ModelConfig, build, resolve
from tinyformer.text import ByteTokenizer, CharTokenizer
from tinyformer.text.special import special_tokens
from tinyformer.training.rundir import new_run

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_gpt2(tmp_path_factory.mktemp("published") / "tiny gpt2")


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    """A run made of it, which tests only read."""
    place = tmp_path_factory.mktemp("imported") / "a run"
    result = run("import", published, "--out", place)
    assert result.exit_code == 0, result.stderr
    return place


def test_an_imported_model_is_told_and_can_be_used(published, tmp_path):
    place = tmp_path / "a run"
    result = run("import", published, "--out", place)
    assert (result.exit_code, result.stdout) == (0, "")
    count = sum(array.size for array in gpt2_arrays().values())
    told = f"imported {published}: decoder, 1 layer, {count:,} parameters\n"
    assert result.stderr == f"{told}next: tinyformer generate '{place}' --prompt 'Once upon a time'\n"
    found = output("generate", place, "--prompt", "on", "--tokens", 5, "--temperature", 0, "--json")
    assert json.loads(found)["tokens"] <= 5
    ids = np.array([[1, 2, 257]])
    assert np.array_equal(tinyformer.load(place)(ids).numpy(), tinyformer.load(published)(ids).numpy())


def run_of_ours(place, mode, made=ByteTokenizer, **more):
    """A run of an untrained model."""
    tokenizer = made(special_tokens=special_tokens(mode))
    shape = resolve(mode=mode, width=8, heads=2, context=40, vocabulary=tokenizer.vocabulary_size, **more)
    with new_run(place, "x", mode) as claimed:
        write_run(claimed, build(shape, seed=0), tokenizer)
    return place


@pytest.mark.parametrize(
    ("mode", "shape", "told"),
    [
        ("decoder", {"layers": 1}, "decoder, 1 layer, "),
        ("encoder", {"layers": 2}, "encoder, 2 layers, "),
        ("encoder-decoder", {"layers": 2, "decoder_layers": 1}, "encoder-decoder, 2 + 1 layers, "),
        ("encoder-decoder", {"layers": 1}, "encoder-decoder, 1 + 1 layers, "),
    ],
)
def test_what_to_type_next_can_be_typed(mode, shape, told, tmp_path):
    run("export", run_of_ours(tmp_path / "ours", mode, **shape), "--out", tmp_path / "theirs")
    first, way = run("import", tmp_path / "theirs", "--out", tmp_path / "a run").stderr.splitlines()
    assert first.startswith(f"imported {tmp_path / 'theirs'}: {told}")
    name, *command = shlex.split(way.removeprefix("next: "))
    assert (name, command[0]) == ("tinyformer", "generate" if mode == "decoder" else "fill")
    assert output(*command)


def test_characters_that_are_not_in_the_vocabulary_are_told_of(tmp_path):
    some = functools.partial(CharTokenizer, "abc")
    result = run("export", run_of_ours(tmp_path / "run", "decoder", some, layers=1), "--out", tmp_path / "out")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert theirs.encode("cab").ids == [2, 0, 1]
    with pytest.raises(Exception, match=r"Missing \[UNK\] token"):
        theirs.encode("cabs")
    assert result.stderr.startswith("warning: the tokenizer knows the 3 characters of its text; in transformers any")
    assert "'Missing [UNK] token'\nexported to " in result.stderr


def test_it_is_evaluated_and_described(imported, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"on and on\n" * 9)
    assert json.loads(output("evaluate", imported, tmp_path / "text.txt", "--json"))["tokens"] > 0
    assert json.loads(output("info", imported, "--json"))["configuration"]["vocabulary"] == 258


@pytest.mark.parametrize(
    ("mode", "task"), [("encoder", "pair"), ("decoder", "classify"), ("encoder-decoder", "text2text")]
)
def test_it_is_fine_tuned(mode, task, tmp_path):
    run("export", run_of_ours(tmp_path / "ours", mode, layers=1), "--out", tmp_path / "theirs")
    assert run("import", tmp_path / "theirs", "--out", tmp_path / "a run").exit_code == 0
    pair = "on\t" if task == "pair" else ""
    (tmp_path / "train.tsv").write_text(f"on\t{pair}yes\noff\t{pair}no\n" * 6)
    options = ["--task", task, "--epochs", 1, "--out", tmp_path / "new"]
    options += ["--prefix", "say: "] if task == "text2text" else []
    result = run("finetune", tmp_path / "a run", tmp_path / "train.tsv", *options)
    assert result.exit_code == 0, result.stderr
    first = tinyformer.load(tmp_path / "new" / "checkpoints" / "step-000000")
    body = getattr(first, "body", first)
    assert np.array_equal(body.tokens.weight.numpy(), tinyformer.load(tmp_path / "a run").tokens.weight.numpy())
    assert len(output("predict", tmp_path / "new", tmp_path / "train.tsv").splitlines()) == 12
    exported = run("export", tmp_path / "new", "--out", tmp_path / "out")
    assert exported.exit_code == 0, exported.stderr
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    kind, name = {
        "pair": ("RoFormer", "RoFormerForSequenceClassification"),
        "classify": ("Arcee", "ArceeForSequenceClassification"),
        "text2text": ("T5", "T5ForConditionalGeneration"),
    }[task]
    assert exported.stderr.endswith(f"exported to {tmp_path / 'out'} as {kind} ({name} of transformers)\n")
    assert config["architectures"] == [name]
    if task != "text2text":
        assert "prefix" not in config
        config["prefix"] = "a b: "
        (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    *warned, way = run("import", tmp_path / "out", "--out", tmp_path / "back").stderr.splitlines()
    use = {"text2text": "generate {} --prompt 'say: I love this red car.'"}
    use = use.get(task, "finetune {} TRAIN --task TASK --prefix 'a b: '").format(tmp_path / "back")
    assert way == f"next: tinyformer {use}"
    told = f"the model wants {config['prefix']!r} before each text, and so has to whoever uses it"
    assert warned[0] == f"warning: {tmp_path / 'out'}: {told}"
    if task == "text2text":
        assert config["prefix"] == "say: "
        told = (
            f"warning: {tmp_path / 'new'} puts 'say: ' before each text, and so has to whoever uses {tmp_path / 'out'}"
        )
        assert exported.stderr.splitlines()[0] == told
        return
    assert (config["id2label"], config["label2id"]) == ({"0": "no", "1": "yes"}, {"no": 0, "yes": 1})
    assert config["problem_type"] == "single_label_classification"
    assert (config["pad_token_id"], config["vocab_size"]) == ((256, 257) if mode == "decoder" else (256, 260))


def test_an_encoder_that_cannot_tell_words_is_not_asked_to(tmp_path):
    run("export", run_of_ours(tmp_path / "ours", "encoder", layers=1), "--out", tmp_path / "theirs")
    weights = load_file(tmp_path / "theirs" / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("cls.")}, tmp_path / "theirs" / "model.safetensors")
    found = run("import", tmp_path / "theirs", "--out", tmp_path / "a run").stderr
    assert found.endswith(f"\nnext: tinyformer finetune '{tmp_path / 'a run'}' TRAIN --task TASK\n")


def test_it_is_trained_on_from(imported, tmp_path):
    (tmp_path / "text.txt").write_bytes(b"on and on\n" * 90)
    result = run("train", "--resume", imported)
    way = f"tinyformer train --init-from '{imported}' FILE"
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"Error: {imported} was imported and has no text to go on with; begin a new run from it: {way}\n"
    )
    more = ["--steps", 2, "--batch-size", 2, "--sample-every", 0, "--out", tmp_path / "new"]
    assert run("train", "--init-from", imported, tmp_path / "text.txt", *more).exit_code == 0
    first = tinyformer.load(tmp_path / "new" / "checkpoints" / "step-000000")
    assert np.array_equal(first.tokens.weight.numpy(), tinyformer.load(imported).tokens.weight.numpy())
    assert output("generate", tmp_path / "new", "--prompt", "on", "--tokens", 3)


def test_a_directory_that_is_not_imported_yet_says_how(published):
    code, message = wrong("generate", published)
    assert (code, message.endswith(f"tinyformer import '{published}' --out RUN makes one of it\n")) == (2, True)


def test_what_goes_out_is_what_came_in(published, imported, tmp_path):
    result = run("export", imported, "--out", tmp_path / "new" / "out")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"exported to {tmp_path / 'new' / 'out'} as GPT-2 (GPT2LMHeadModel of transformers)\n"
    found = load_file(tmp_path / "new" / "out" / "model.safetensors")
    wanted = gpt2_arrays()
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    config = json.loads((tmp_path / "new" / "out" / "config.json").read_text())
    came = json.loads((published / "config.json").read_text())
    assert config.items() >= came.items()
    assert (config["architectures"], config["eos_token_id"]) == (["GPT2LMHeadModel"], 257)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "new" / "out" / name).read_text()) == json.loads((published / name).read_text())


def test_a_checkpoint_goes_out_too(imported, tmp_path):
    assert run("export", imported / "checkpoints" / "step-000000", "--out", tmp_path / "out").exit_code == 0


def test_a_run_of_ours_goes_out_as_what_it_is(trained, tmp_path):
    result = run("export", trained, "--out", tmp_path / "out")
    assert result.stderr.endswith("as Arcee (ArceeForCausalLM of transformers)\n")
    assert np.array_equal(
        tinyformer.load(tmp_path / "out")(np.array([[1, 2]])).numpy(),
        tinyformer.load(trained)(np.array([[1, 2]])).numpy(),
    )


def test_a_decoder_without_a_head_reads_texts_as_they_are_and_keeps_its_precision(tmp_path):
    (tmp_path / "a.txt").write_text("to and fro, " * 40)
    for precision in ("float32", "float64"):
        made, out = tmp_path / precision, tmp_path / f"{precision}-out"
        result = run(
            "train",
            tmp_path / "a.txt",
            "--tokenizer",
            "chars",
            "--width",
            8,
            "--heads",
            2,
            "--layers",
            1,
            "--context",
            16,
            "--steps",
            1,
            "--precision",
            precision,
            "--sample-every",
            0,
            "--out",
            made,
        )
        assert result.exit_code == 0, result.stderr
        assert run("export", made, "--out", out).exit_code == 0
        assert json.loads((out / "config.json").read_text())["dtype"] == precision
        assert json.loads((out / "tokenizer.json").read_text())["post_processor"] is None
        assert {array.dtype.name for array in load_file(out / "model.safetensors").values()} == {precision}


def test_a_model_that_nobody_else_has_names_its_choices(tmp_path):
    model = build(ModelConfig(vocabulary=256, layers=1, width=8, heads=2, norm_position="post", gated=True))
    with new_run(tmp_path / "run", "x", "decoder") as place:
        write_run(place, model, ByteTokenizer())
    code, message = wrong("export", tmp_path / "run", "--out", tmp_path / "out")
    expected = (
        "transformers has no such model; the nearest is GPT-2, which does not have "
        "norm_position = 'post' or gated = True"
    )
    assert (code, message) == (2, f"Error: {expected}\n")
    assert not (tmp_path / "out").exists()


def wrong(*args):
    result = run(*args)
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert "bug" not in result.stderr
    return result.exit_code, result.stderr


def test_wrong_usage_is_one_line(published, imported, trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    before = files_under(tmp_path)
    code, message = wrong("import", tmp_path / "nothing", "--out", tmp_path / "run")
    assert (code, "is no directory; name one with config.json and model.safetensors" in message) == (2, True)
    code, message = wrong("import", imported, "--out", tmp_path / "run")
    assert (code, "has no config.json, so it is no Hugging Face directory" in message) == (2, True)
    code, message = wrong("import", published, "--out", tmp_path / "full")
    assert (code, "is not empty; choose a new --out" in message) == (2, True)
    code, message = wrong("import", published, "--out", imported)
    assert (code, message.split(" (see ")[0].strip().endswith("is not empty; choose a new --out")) == (2, True)
    code, message = wrong("export", imported, "--out", tmp_path / "full")
    assert (code, "is not empty; choose a new --out" in message) == (2, True)
    code, message = wrong("export", imported, "--out", tmp_path / "full" / "mine" / "out")
    assert (code, "cannot create" in message and "choose another --out" in message) == (1, True)
    code, message = wrong("export", tmp_path / "full", "--out", tmp_path / "out")
    assert (code, "is not a run directory" in message) == (2, True)
    for command in ("import", "export"):
        code, message = wrong(command, published)
        assert (code, "--out" in message) == (2, True)
    assert files_under(tmp_path) == before


def test_the_directory_one_is_in_is_not_replaced(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, message = wrong("export", imported, "--out", ".")
    assert (code, "the directory that you are in" in message) == (2, True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert run("export", imported, "--out", "link").exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert tinyformer.load("link").config == tinyformer.load(imported).config


def test_the_package_for_tokenizers_is_asked_for(published, imported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for command in (["import", published, "--out", tmp_path / "run"], ["generate", imported]):
        code, message = wrong(*command)
        assert (code, "pip install 'tinyformer[hf]'" in message) == (2, True)
    assert not (tmp_path / "run").exists()


def test_what_failed_exports_left_under_other_names_is_not_touched(imported, tmp_path):
    (tmp_path / ".tmp-mine").write_text("keep")
    (tmp_path / ".tmp-out").write_text("left by an export that was killed")
    assert run("export", imported, "--out", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-mine", "out"]


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        ({"model_type": "whisper"}, 2, "known are GPT-2 ('gpt2'), BERT ('bert'), RoFormer ('roformer'), T5 ('t5')"),
        ({"n_positions": 13}, 1, "'transformer.wpe.weight' should be of shape (13, 6), and is of shape (12, 6)"),
        ("gone", 2, "lacks 1 of its 1 shards: gone"),
    ],
)
def test_a_directory_that_cannot_be_read_leaves_no_run(tmp_path, spoil, code, message):
    folder = write_gpt2(tmp_path / "in", **({} if spoil == "gone" else spoil))
    if spoil == "gone":
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone"}}')
    found, told = wrong("import", folder, "--out", tmp_path / "run")
    assert (found, message in told) == (code, True)
    assert not (tmp_path / "run").exists()
