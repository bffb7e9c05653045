"""What config.json and the names of tensors say, against what our models are then made of."""

import re

import pytest

from tinyformer.errors import UsageError
from tinyformer.interop import heads
from tinyformer.interop.bert import BERT
from tinyformer.interop.directory import family_of
from tinyformer.interop.gpt2 import GPT2
from tinyformer.interop.llama import ARCEE, LLAMA
from tinyformer.interop.roformer import ROFORMER
from tinyformer.interop.t5 import T5
from tinyformer.models import resolve
from tinyformer.tasks import TASKS


class Named:
    """Weights of which only the names matter."""

    path = "x"

    def __init__(self, *names):
        self.names = names


def config(family, **options):
    return family.config(options, Named())


def test_older_spellings_of_names_are_found():
    """As google-bert/bert-base-uncased and google-t5/t5-small were saved before such things were renamed."""
    old = "bert.encoder.layer.0.attention.output.LayerNorm"
    weights = Named(f"{old}.gamma", f"{old}.beta", "bert.embeddings.position_ids", "cls.predictions.bias")
    find = BERT.finder(weights)
    assert (find(f"{old}.weight"), find(f"{old}.bias")) == weights.names[:2]
    assert find("cls.predictions.decoder.bias") == "cls.predictions.bias"
    assert BERT.leftover(weights, set(weights.names[:2])) == []
    body = Named("embeddings.word_embeddings.weight", "cls.predictions.bias")
    assert BERT.finder(body)("bert.embeddings.word_embeddings.weight") == body.names[0]
    assert BERT.finder(body)("cls.predictions.bias") == body.names[1]
    both = Named("cls.predictions.bias", "cls.predictions.decoder.bias")
    assert BERT.finder(both)("cls.predictions.bias") == both.names[0]
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    weights = Named("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", unused)
    assert T5.finder(weights)("shared.weight") == weights.names[0]
    assert T5.leftover(weights, {weights.names[0]}) == []
    assert T5.leftover(Named("x"), set()) == ["x"]
    buffers = Named("model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight")
    assert LLAMA.leftover(buffers, set()) == []


@pytest.mark.parametrize(
    ("family", "option"),
    [
        (GPT2, "scale_attn_by_inverse_layer_idx"),
        (GPT2, "add_cross_attention"),
        (BERT, "add_cross_attention"),
        (ROFORMER, "rotary_value"),
        (ROFORMER, "is_decoder"),
        (BERT, "is_decoder"),
        (LLAMA, "attention_bias"),
        (LLAMA, "mlp_bias"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(family, option):
    assert config(family, **{option: False}) == config(family)
    with pytest.raises(UsageError, match=f"with {option} = True is not supported, only False"):
        config(family, **{option: True})


def test_options_of_other_models():
    """As the published config.json files have them; what these do not say is as in the paper's model."""
    assert config(GPT2, n_embd=24, n_inner=None).hidden == 96
    assert config(GPT2).hidden == 3072
    told = BERT.remarks({"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1})
    assert told == [
        "attention_probs_dropout_prob is 0.1 and hidden_dropout_prob 0.2; the latter is used for both in training"
    ]
    bert = config(BERT, hidden_size=128, num_attention_heads=2, num_hidden_layers=2, intermediate_size=512)
    assert (bert.vocabulary, bert.context, bert.segments, bert.epsilon) == (30522, 512, 2, 1e-12)
    assert (bert.activation, bert.norm_position, bert.head) == ("gelu-exact", "post", "transform")
    t5 = config(T5, d_model=512, n_positions=512)
    assert (t5.vocabulary, t5.decoder_layers, t5.activation, t5.gated) == (32128, None, "relu", False)
    assert (t5.scaled_head, t5.scaled_scores, t5.bias, t5.channels) == (True, False, False, 64)
    v11 = config(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_layers=8, num_decoder_layers=6)
    assert (v11.activation, v11.gated, v11.scaled_head, v11.decoder_layers) == ("gelu", True, False, 6)
    with pytest.raises(UsageError, match="position_embedding_type = 'relative_key' is not supported"):
        config(BERT, position_embedding_type="relative_key")
    with pytest.raises(UsageError, match="feed_forward_proj = 'mish' is not supported; known are gelu_new"):
        config(T5, feed_forward_proj="gated-mish")
    llama = config(LLAMA, hidden_size=64, num_attention_heads=4, head_dim=8, rope_parameters={"rope_theta": 10000.0})
    assert (llama.channels, llama.activation, llama.gated, llama.positions) == (8, "silu", True, "rotary")
    with pytest.raises(UsageError, match="8 num_key_value_heads for 32 heads are not supported"):
        config(LLAMA, num_key_value_heads=8)
    for angles in ({"rope_theta": 500000.0}, {"rope_scaling": {"type": "linear", "factor": 2.0}}):
        with pytest.raises(UsageError, match=r"only rotary angles with rope_theta 10000\.0 and no scaling"):
            config(LLAMA, **angles)


def test_the_family_of_a_model_of_ours():
    gpt2 = {"vocabulary": 9, "norm": "layer", "positions": "learned", "bias": True, "gated": False}
    assert family_of(resolve(width=12, heads=3, **gpt2)).title == "GPT-2"
    assert family_of(resolve(width=12, heads=3, head_width=4, **gpt2)).title == "GPT-2"
    with pytest.raises(UsageError, match=r"the nearest is GPT-2, which does not have head_width = 6$"):
        family_of(resolve(width=12, heads=3, head_width=6, **gpt2))
    assert family_of(resolve(mode="encoder", vocabulary=9, segments=1)).title == "RoFormer"
    assert family_of(resolve(mode="encoder", vocabulary=9, segments=1, positions="learned")).title == "BERT"
    with pytest.raises(UsageError, match=r"the nearest is RoFormer, which does not have segments = 0$"):
        family_of(resolve(mode="encoder", vocabulary=9, segments=0))
    assert family_of(resolve(mode="encoder", vocabulary=9, next_sentence=True)).title == "RoFormer"
    assert family_of(resolve(mode="encoder-decoder", vocabulary=9)).title == "T5"


def test_every_head_of_every_family_has_a_class_of_theirs():
    whole = {
        "encoder": {"classify", "pair", "regress", "tag", "answer"},
        "decoder": {"classify", "pair", "regress"},
        "encoder-decoder": set(),
    }
    for family in (GPT2, BERT, T5, LLAMA, ARCEE):
        mode = family.choices["mode"]
        headed = {name for name, task in TASKS.items() if mode in task.modes} - {"text2text"}
        assert headed == whole[mode]
        for task in headed:
            (name,) = heads.options(family, task, ["a", "b"])["architectures"]
            assert re.fullmatch(
                r"(Bert|RoFormer|GPT2|Llama|Arcee)For(Sequence|Token)Classification|(Bert|RoFormer)ForQuestionAnswering",
                name,
            )
    with pytest.raises(UsageError, match="transformers has no T5 with the head of the task classify"):
        heads.options(T5, "classify", ["a", "b"])


@pytest.mark.parametrize(
    ("architectures", "headed"),
    [(["BertForTokenClassification"], True), (["BertForMaskedLM"], False), (5, False), (None, False), ([5], False)],
)
def test_what_was_saved_with_a_head_is_told_by_its_class(architectures, headed):
    assert heads.is_headed({"architectures": architectures}) == headed
