"""Small models of transformers with drawn settings and weights, and ours read from what they save."""

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from tinyformer.interop.directory import family_of
from tinyformer.interop.table import to_theirs

torch.set_num_threads(1)  # matrices this small only get slower with more
transformers.utils.logging.disable_progress_bar()

ACTIVATIONS = ["gelu_new", "gelu", "relu", "silu", "gelu_pytorch_tanh", "swish"]
QUIET = {"attn_implementation": "eager"}
SETTINGS = range(20)


def randomised(model, rng):
    """The model with every parameter drawn anew, also the norms and biases that start at 1 and 0.

    Small enough for the models to be no chaos: else the last bits of float32 would decide.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.tensor(rng.normal(size=tuple(parameter.shape)), dtype=torch.float32)
            is_norm = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.3 * drawn if is_norm else drawn * max(parameter.shape) ** -0.5)
    return model.eval()


def drawn_sizes(rng):
    """Heads, channels of a head, layers, hidden width and vocabulary, odd ones too."""
    names = ("heads", "channels", "layers", "hidden", "vocabulary")
    return dict(zip(names, map(int, rng.integers([1, 3, 1, 3, 5], [5, 8, 4, 40, 60]))))


def gpt2(seed, **more):
    rng = np.random.default_rng([1, seed])
    size = drawn_sizes(rng) | more
    config = transformers.GPT2Config(
        vocab_size=size["vocabulary"],
        n_positions=int(rng.integers(9, 20)),
        n_embd=size["heads"] * size["channels"],
        n_layer=size["layers"],
        n_head=size["heads"],
        n_inner=size["hidden"] if rng.random() < 0.7 else None,
        activation_function=ACTIVATIONS[seed % len(ACTIVATIONS)],
        tie_word_embeddings=bool(seed % 3),
        scale_attn_weights=bool(rng.random() < 0.7),
        layer_norm_epsilon=float(rng.choice([1e-5, 1e-3])),
        bos_token_id=0,
        eos_token_id=0,
        **QUIET,
    )
    return randomised(transformers.GPT2LMHeadModel(config), rng), rng


def encoder_options(rng, seed, size):
    return {
        "vocab_size": size["vocabulary"],
        "hidden_size": size["heads"] * size["channels"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "intermediate_size": size["hidden"],
        "hidden_act": ACTIVATIONS[seed % len(ACTIVATIONS)],
        "max_position_embeddings": int(rng.integers(9, 20)),
        "type_vocab_size": int(rng.integers(1, 4)),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-3])),
        "tie_word_embeddings": bool(seed % 3),
        "pad_token_id": None,  # else torch gives that row of the embedding no gradient
        **QUIET,
    }


def bert(seed, kind=transformers.BertForPreTraining, **more):
    rng = np.random.default_rng([2, seed])
    size = drawn_sizes(rng) | more
    config = transformers.BertConfig(**encoder_options(rng, seed, size))
    return randomised(kind(config), rng), rng


def roformer(seed, kind=transformers.RoFormerForMaskedLM, **more):
    rng = np.random.default_rng([5, seed])
    size = drawn_sizes(rng) | more
    size["channels"] += size["channels"] % 2  # turned in pairs
    model = kind(transformers.RoFormerConfig(**encoder_options(rng, seed, size)))
    angles = model.roformer.encoder.embed_positions.weight.clone()
    randomised(model, rng)
    model.roformer.encoder.embed_positions.weight.data.copy_(angles)
    return model, rng


def t5(seed, version, **more):
    rng = np.random.default_rng([3, seed])
    size = drawn_sizes(rng)
    plain = ["relu", "gelu", "silu", "gelu_new"][seed % 4]
    gated = ["gated-gelu", "gated-silu", "gated-relu", "gated-gelu_new"][seed % 4]
    more = {"num_decoder_layers": int(rng.integers(1, 4)), "vocab_size": size["vocabulary"]} | more
    config = transformers.T5Config(
        d_model=int(rng.integers(3, 20)),
        d_kv=size["channels"],
        d_ff=size["hidden"],
        num_layers=size["layers"],
        num_heads=size["heads"],
        relative_attention_num_buckets=int(rng.choice([4, 8, 12, 32])),
        relative_attention_max_distance=int(rng.choice([17, 128])),
        layer_norm_epsilon=float(rng.choice([1e-6, 1e-3])),
        feed_forward_proj=plain if version == "1.0" else gated,
        tie_word_embeddings=version == "1.0",
        decoder_start_token_id=0,
        **QUIET,
        **more,
    )
    model = transformers.T5ForConditionalGeneration(config)
    if seed % 3:  # 1.1 as published has an output layer of its own, which transformers 5 ties unless it finds two
        if version == "1.1":
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
            model.all_tied_weights_keys.pop("lm_head.weight", None)
    elif version == "1.0":
        config.scale_decoder_outputs = False
    return randomised(model, rng), rng


def llama(seed, gated):
    rng = np.random.default_rng([4, seed])
    size = drawn_sizes(rng)
    channels = 2 * ((size["channels"] + 1) // 2)  # turned in pairs
    kind, model = (
        (transformers.LlamaConfig, transformers.LlamaForCausalLM)
        if gated
        else (transformers.ArceeConfig, transformers.ArceeForCausalLM)
    )
    config = kind(
        vocab_size=size["vocabulary"],
        max_position_embeddings=int(rng.integers(9, 20)),
        hidden_size=size["heads"] * 6,
        head_dim=channels,
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        intermediate_size=size["hidden"],
        hidden_act=ACTIVATIONS[seed % len(ACTIVATIONS)],
        tie_word_embeddings=bool(seed % 3),
        rms_norm_eps=float(rng.choice([1e-6, 1e-3])),
        bos_token_id=None,
        eos_token_id=None,
        **QUIET,
    )
    return randomised(model(config), rng), rng


def saved(model, folder, **how):
    model.save_pretrained(folder, **how)
    return folder


def our_arrays(model, values):
    """Arrays that belong to our parameters, under their names and in their layout."""
    return to_theirs(family_of(model.config).rows(model.config), values)


def close(ours, theirs, tolerance, what="", *, noise=0.0):
    """Whether the largest error is small against the largest number; `noise` is what rounding alone may leave."""
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    error, size = np.abs(ours - theirs).max(), np.abs(theirs).max()
    assert error <= tolerance * size + noise, f"{what}: {error} of {size}"


def losses(logits, targets):
    return F.cross_entropy(logits.flatten(0, -2), torch.tensor(targets).flatten())
