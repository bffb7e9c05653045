import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer import Tensor, backends, backward, no_grad, ops, primitive
from tinyformer.analysis import counts
from tinyformer.models import ModelConfig, build, resolve
from tinyformer.models.config import CHOICES
from tinyformer.nn import ACTIVATIONS
from tinyformer.objectives import OBJECTIVES, CausalLM, MaskedLM, NextSentence, Seq2Seq, SpanCorruption

DECODER, ENCODER, BOTH = CHOICES["mode"]


@st.composite
def configs(draw):
    mode, heads = draw(st.sampled_from(CHOICES["mode"])), draw(st.integers(1, 3))
    return ModelConfig(
        mode=mode,
        vocabulary=draw(st.integers(1, 40)),
        context=draw(st.integers(1, 20)),
        layers=draw(st.integers(1, 3)),
        decoder_layers=draw(st.sampled_from([None, 1, 2])) if mode == "encoder-decoder" else None,
        heads=heads,
        width=heads * draw(st.integers(1, 4)) * 2,
        head_width=draw(st.sampled_from([None, 2, 6])),
        hidden=draw(st.integers(1, 30)),
        norm=draw(st.sampled_from(CHOICES["norm"])),
        norm_position=draw(st.sampled_from(CHOICES["norm_position"])),
        positions=draw(st.sampled_from(CHOICES["positions"])),
        buckets=draw(st.sampled_from([8, 32])),
        segments=draw(st.integers(0, 3)),
        embedding_norm=draw(st.booleans()),
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
        gated=draw(st.booleans()),
        bias=draw(st.booleans()),
        tied=draw(st.booleans()),
        scaled_head=draw(st.booleans()),
        head=draw(st.sampled_from(CHOICES["head"])),
        next_sentence=mode == "encoder" and draw(st.booleans()),
    )


SUMS = ("total", "per token", "without pretraining heads")
PARTS = {
    "token embedding": ("tokens.",),
    "position embedding": (".positions.",),
    "segment embedding": (".segments.",),
    "relative positions": (".relative.",),
    "attention": (".attention.",),
    "cross-attention": (".cross_attention.",),
    "feed-forward": (".feed_forward.",),
    "norms": ("_norm.", "stack.norm.", "coder.norm."),
    "pooler": ("pooler.",),
    "next-sentence head": ("next_sentence.",),
    "head transform": ("head.dense.", "head.norm.", "head.bias"),
    "output layer": ("head.output.",),
}


@given(configs())
def test_the_formulas_count_what_a_built_model_has(config):
    sizes = {name: p.array.size for name, p in build(config, seed=None).parameters().items()}
    held = {part: sum(sizes[n] for n in sizes if any(mark in n for mark in marks)) for part, marks in PARTS.items()}
    assert counts.parameters_by_part(config) == {part: size for part, size in held.items() if size}
    assert counts.count_parameters(config) == sum(sizes.values())
    without = counts.count_parameters(config, heads=False)
    assert without == sum(sizes.values()) - held["head transform"] - held["next-sentence head"]


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("bert-tiny", 4_385_920),
        ("bert-mini", 11_170_560),
        ("bert-small", 28_763_648),
        ("bert-medium", 41_373_184),
        ("bert-base", 109_482_240),
        ("bert-large", 335_141_888),
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("t5-large", 737_668_096),
        ("t5-3b", 2_851_598_336),
        ("t5-11b", 11_307_321_344),
        ("t5-v1.1-small", 76_961_152),
        ("t5-v1.1-base", 247_577_856),
        ("t5-v1.1-large", 783_150_080),
        ("t5-v1.1-xl", 2_849_757_184),
        ("t5-v1.1-xxl", 11_135_332_352),
        ("gpt1", 116_534_784),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("gpt3-small", 125_226_240),
        ("gpt3-2.7b", 2_651_553_280),
        ("gpt3-6.7b", 6_658_404_352),
        ("gpt3-13b", 12_853_386_240),
        ("gpt3-175b", 174_604_259_328),
    ],
)
def test_published_parameter_counts(preset, published):
    assert counts.count_parameters(resolve(preset), heads=False) == published


def test_what_published_counts_of_bert_base_leave_out():
    """The model with both pretraining heads, and without its pooler."""
    assert counts.count_parameters(resolve("bert-base")) == 110_106_428
    assert counts.count_parameters(resolve("bert-base", next_sentence=False), heads=False) == 108_891_648


def test_the_published_sizing_of_gpt2_without_biases():
    """nanoGPT's notebook `transformer_sizing`, at context 1024."""
    config = resolve("gpt2", bias=False)
    assert counts.count_parameters(config) == 124_337_664
    assert counts.forward_flops(config) == 291_648_307_200
    assert counts.training_flops(config, sequences=2) == 6 * 291_648_307_200


@contextlib.contextmanager
def matrix_products():
    """A list to which each matrix product adds its FLOPs, also in gradients; with composed functions, not kernels."""
    made, multiply = [], ops.matmul.__wrapped__

    @primitive
    def counted(xp, a, b):
        out, vjp = multiply(xp, a, b)
        flops = 2 * out.size * a.shape[-1]
        made.append(flops)

        def counted_vjp(g):
            made.extend([flops, flops])
            return vjp(g)

        return out, counted_vjp

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends.get("numpy"), "kernels", {})
        patch.setattr(ops, "matmul", counted)
        patch.setattr(Tensor, "__matmul__", counted)
        yield made


@given(configs(), st.data())
def test_flops_are_the_matrix_products_that_a_forward_pass_makes(config, data):
    source, target = (np.zeros((1, data.draw(st.integers(1, config.context))), int) for _ in range(2))
    s, t = source.size, target.size
    model = build(config, seed=None)
    with matrix_products() as made, no_grad():
        if config.mode == "encoder":
            hidden, scored = model.hidden(source), data.draw(st.integers(1, s))
            lengths = counts.Lengths(s, 0, scored)
            model.score(hidden[:, :scored])
            if config.next_sentence:
                model.next_sentence_logits(hidden)
        elif config.mode == "decoder":
            lengths = counts.Lengths(0, t, t)
            model(target)
        else:
            lengths = counts.Lengths(s, t, t)
            model(source, target)
    assert counts.forward_flops(config, lengths) == sum(made)


def batch_of(config, objective, rows):
    """A batch of full rows for an objective, by name, from random tokens."""
    random = np.random.default_rng(0)
    rngs = [np.random.default_rng(row) for row in range(rows)]

    def tokens(count):
        return random.integers(10, config.vocabulary, count)

    special = {"vocabulary": config.vocabulary, "cls": 1, "sep": 2, "mask": 3, "pad": 0}
    context, line_ends = config.context, np.ones(config.vocabulary, bool)
    made = {
        "causal": CausalLM,
        "masked": lambda: MaskedLM(**special),
        "next-sentence": lambda: NextSentence(**special, line_ends=line_ends, context=context),
        "span-corruption": lambda: SpanCorruption(sentinels=range(100), end=1, pad=0),
        "seq2seq": lambda: Seq2Seq(end=1, pad=0),
    }[objective]()
    length = context - 1 if objective == "seq2seq" else made.row_tokens(context)
    if objective in ("seq2seq", "next-sentence"):
        return made, made.corrupt([(tokens(length), tokens(length)) for _ in range(rows)], rngs)
    return made, made.corrupt([tokens(length) for _ in range(rows)], rngs)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_flops_of_a_training_step_are_its_matrix_products_but_for_those_that_a_causal_mask_hides(objective):
    config = resolve(
        mode=OBJECTIVES[objective].mode, vocabulary=130, layers=2, width=24, heads=3, context=28,
        next_sentence=objective == "next-sentence",
    )  # fmt: skip
    model, (made_by, batch) = build(config), batch_of(config, objective, 3)
    with matrix_products() as made:
        backward(made_by.loss(model, batch))
    source = 0 if config.mode == DECODER else batch.inputs.shape[1]
    target = 0 if config.mode == ENCODER else batch.targets.shape[1]
    lengths = counts.Lengths(source, target, target or int(batch.tokens) // 3)
    assert counts.training_flops(config, 3, lengths) == sum(made)
    later = int(np.triu(np.ones((target, target)), 1).sum())
    hidden = later * config.layers * config.heads * config.channels * 2 * 2 * 3  # FLOPs, two products, and gradients
    assert counts.needed_flops(config, 3, lengths) == sum(made) - 3 * hidden


@given(st.sampled_from(["causal", "masked", "span-corruption", "seq2seq"]), st.integers(3, 300))
def test_rows_have_the_lengths_that_objectives_make(objective, context):
    config = resolve(mode=OBJECTIVES[objective].mode, vocabulary=100, context=context)
    _, batch = batch_of(config, objective, 1)
    source = batch.inputs.shape[1] if config.mode != DECODER else 0
    target = batch.targets.shape[1] if config.mode != ENCODER else 0
    assert counts.row_lengths(config, objective) == (source, target, batch.tokens)


@pytest.mark.parametrize("preset", ["bert-large", "t5-11b", "gpt3-175b"])
def test_counting_the_largest_models_takes_no_memory(preset):
    config = resolve(preset)
    tracemalloc.start()
    counts.summary(config, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    ("mode", "objective", "given_"),
    [
        (DECODER, "causal", {}),
        (DECODER, "causal", {"layers": 1, "vocabulary": 2048}),
        (DECODER, "causal", {"layers": 2, "norm": "layer", "bias": True, "positions": "learned", "dropout": 0.1}),
        (DECODER, "causal", {"layers": 2, "hidden": 1024, "activation": "relu"}),
        (DECODER, "causal", {"layers": 2, "activation": "silu", "gated": True}),
        (DECODER, "causal", {"layers": 2, "heads": 8, "context": 256, "norm_position": "post"}),
        (ENCODER, "masked", {}),
        (ENCODER, "masked", {"layers": 1, "vocabulary": 8192}),
        (ENCODER, "masked", {"layers": 2, "positions": "relative", "heads": 16, "context": 256, "dropout": 0.0}),
        (ENCODER, "next-sentence", {"layers": 2, "next_sentence": True}),
        (BOTH, "span-corruption", {}),
        (BOTH, "span-corruption", {"layers": 1, "vocabulary": 4096, "tied": False}),
        (BOTH, "span-corruption", {"layers": 2, "decoder_layers": 1, "context": 256, "dropout": 0.0}),
        (BOTH, "seq2seq", {"layers": 1, "decoder_layers": 3, "heads": 8, "context": 256}),
        (BOTH, "seq2seq", {"layers": 2, "activation": "gelu", "gated": True, "head_width": 64}),
        (BOTH, "seq2seq", {"layers": 1, "decoder_layers": 5, "hidden": 32, "heads": 16, "context": 256}),
        (BOTH, "seq2seq", {"layers": 2, "positions": "sinusoidal", "norm": "layer", "norm_position": "post"}),
    ],
)
def test_a_training_step_takes_the_estimated_memory_within_a_factor_of_one_and_a_half(mode, objective, given_):
    config = resolve("tiny", mode=mode, **({"vocabulary": 256} | given_))
    model, rows = build(config), 4
    made, batch = batch_of(config, objective, rows)
    rng = backends.get("numpy").generator(0, 1) if config.dropout else None

    def step():
        return backward(made.loss(model, batch, rng=rng))

    step()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    step()
    taken = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    estimate = counts.training_memory(config, rows, counts.row_lengths(config, objective))
    assert taken / 1.5 < estimate["activations"] + estimate["gradients"] < taken * 1.5


def test_each_worker_takes_the_memory_of_another_gradient():
    config = resolve("tiny", vocabulary=256)
    one, three = (sum(counts.training_memory(config, 4, workers=n).values()) for n in (1, 3))
    assert three - one == 2 * 4 * sum(p.array.size for p in build(config, seed=None).parameters().values())


@pytest.mark.parametrize(("mode", "objective"), [(DECODER, "causal"), (BOTH, "seq2seq")])
def test_what_a_head_transform_keeps_for_the_backward_pass_is_estimated_too(mode, objective):
    def kept(head):
        config = resolve("tiny", mode=mode, layers=1, vocabulary=256, dropout=0.0, head=head)
        model, (made, batch) = build(config), batch_of(config, objective, 4)
        tracemalloc.start()
        loss = made.loss(model, batch)  # holds the graph
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del loss
        return taken, counts.training_memory(config, 4, counts.row_lengths(config, objective))["activations"]

    taken, estimated = np.subtract(kept("transform"), kept("linear"))
    assert taken / 1.5 < estimated < taken * 1.5


@pytest.mark.parametrize("head_width", [None, 24])
@pytest.mark.parametrize("mode", [DECODER, BOTH])
def test_the_caches_hold_what_is_said(mode, head_width):
    config = resolve("tiny", mode=mode, vocabulary=10, layers=3, head_width=head_width)
    model, memory = build(config), counts.generation_memory(config, 2)
    with no_grad():
        source = [model.encode(np.zeros((2, config.context), int))] if mode == BOTH else []
        cache = model.new_cache(2, *source)
    assert memory["key/value cache"] == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    if mode == BOTH:
        held = sum(x.array.nbytes for layer in cache.layers for x in layer.memory)
        assert memory["cross-attention cache"] == held


def test_an_encoder_writes_no_text():
    config = resolve("bert-tiny")
    assert counts.generation_memory(config) == {}
    assert "generation_bytes" not in counts.summary(config)


@pytest.mark.parametrize("mode", CHOICES["mode"])
def test_a_summary_has_the_total_of_each_section(mode):
    for section, parts in counts.summary(resolve("tiny", mode=mode, vocabulary=50), 2).items():
        if section != "training_flops":
            assert parts["total"] == sum(n for part, n in parts.items() if part not in SUMS)
