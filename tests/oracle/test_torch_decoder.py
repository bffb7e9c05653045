"""Twenty training steps of whole decoders against other people's, from the same weights on the same batches.

The others are transformers' GPT-2 (pre-norm), GPT-1 (post-norm) and LLaMA, and for the default preset, which nobody
publishes, a decoder of a few lines of torch. Every step's loss must agree, so the gradient, its clipping and the
update must: an error in any of them shows in the next loss.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from einops import rearrange

from tinyformer.models import ModelConfig, build
from tinyformer.objectives import CausalLM
from tinyformer.training.optimizer import AdamW, FlatParameters
from tinyformer.training.step import Workers, training_step

pytestmark = pytest.mark.oracle

STEPS, CLIP, DECAY = 20, 0.5, 0.1
RATE = {"learning_rate": 3e-3}
ADAM = {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8}
SIZES = {"vocabulary": 31, "context": 24, "layers": 2, "heads": 4, "width": 32, "hidden": 128}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def token_batches():
    """Sequences in which the next token is one of two: there is something to learn in twenty steps."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        steps = rng.integers(1, 3, size=(4, SIZES["context"] + 1))
        yield np.cumsum(steps, axis=1) % SIZES["vocabulary"]


def our_losses(model):
    flat, objective = FlatParameters(model.parameters()), CausalLM()
    optimizer = AdamW.of(flat, weight_decay=DECAY, **ADAM)
    losses = []
    with Workers(1) as workers:
        for step, tokens in enumerate(token_batches(), start=1):
            batch = objective.corrupt(tokens)
            outcome = training_step(
                model, objective, flat, optimizer, batch, clip=CLIP, step=step, workers=workers, **RATE
            )
            losses.append(outcome.loss)
    return losses


def torch_losses(forward, parameters):
    """The same steps by torch: cross_entropy, the two halves of clip_grad_norm_, AdamW with decay on matrices only."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=RATE["learning_rate"], betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["epsilon"]
    )
    losses, norms = [], []
    for tokens in token_batches():
        tokens = torch.tensor(tokens)
        loss = F.cross_entropy(forward(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        # clip_grad_norm_ adds 1e-6 to the norm before it divides, which would show as 1e-8 in later losses.
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters]))
        torch.nn.utils.clip_grads_with_norm_(parameters, CLIP, norms[-1] - 1e-6)
        optimizer.step()
        losses.append(loss.item())
    assert max(norms) > CLIP, "the clipping was never needed"
    return losses


def arrays_of(model):
    """The parameters as torch tensors that share no memory with the model."""
    return {name: torch.tensor(parameter.numpy()) for name, parameter in model.parameters().items()}


def gpt_weights(ours, names):
    """Our parameters under the names, and in the layout, of transformers' GPT-1 and GPT-2."""
    state = {theirs: ours[name] for theirs, name in names.items() if name in ours}
    parts = {
        "ln_1": "attention_norm",
        "attn.c_proj": "attention.output",
        "ln_2": "feed_forward_norm",
        "mlp.c_fc": "feed_forward.up",
        "mlp.c_proj": "feed_forward.down",
    }
    for i in range(SIZES["layers"]):
        for kind in ("weight", "bias"):
            for theirs, name in parts.items():
                state[f"h.{i}.{theirs}.{kind}"] = ours[f"stack.blocks.{i}.{name}.{kind}"]
            projections = [ours[f"stack.blocks.{i}.attention.{name}.{kind}"] for name in ("query", "key", "value")]
            state[f"h.{i}.attn.c_attn.{kind}"] = torch.cat(projections, dim=-1)
    return state


def gpt2(ours):
    config = transformers.GPT2Config(
        vocab_size=SIZES["vocabulary"],
        n_positions=SIZES["context"],
        n_layer=SIZES["layers"],
        n_head=SIZES["heads"],
        n_embd=SIZES["width"],
        n_inner=SIZES["hidden"],
        activation_function="gelu_new",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    names = {
        "wte.weight": "tokens.weight",
        "wpe.weight": "stack.positions.weight",
        "ln_f.weight": "stack.norm.weight",
        "ln_f.bias": "stack.norm.bias",
    }
    return transformers.GPT2LMHeadModel(config), gpt_weights(ours, names)


def gpt1(ours):
    config = transformers.OpenAIGPTConfig(
        vocab_size=SIZES["vocabulary"],
        n_positions=SIZES["context"],
        n_layer=SIZES["layers"],
        n_head=SIZES["heads"],
        n_embd=SIZES["width"],
        afn="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    names = {"tokens_embed.weight": "tokens.weight", "positions_embed.weight": "stack.positions.weight"}
    return transformers.OpenAIGPTLMHeadModel(config), gpt_weights(ours, names)


def llama(ours):
    config = transformers.LlamaConfig(
        vocab_size=SIZES["vocabulary"],
        max_position_embeddings=SIZES["context"],
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        hidden_size=SIZES["width"],
        intermediate_size=SIZES["hidden"],
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    parts = {
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.o_proj": "attention.output",
        "mlp.gate_proj": "feed_forward.gate",
        "mlp.up_proj": "feed_forward.up",
        "mlp.down_proj": "feed_forward.down",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "feed_forward_norm",
    }
    state = {"embed_tokens.weight": ours["tokens.weight"], "norm.weight": ours["stack.norm.weight"]}
    for i in range(SIZES["layers"]):
        for theirs, name in parts.items():
            weight = ours[f"stack.blocks.{i}.{name}.weight"]  # torch's Linear holds it the other way round
            state[f"layers.{i}.{theirs}.weight"] = weight.T if weight.ndim == 2 else weight
    return transformers.LlamaForCausalLM(config), state | {"lm_head.weight": ours["head.output.weight"].T}


LLAMA = {"positions": "rotary", "norm": "rms", "bias": False, "activation": "silu", "gated": True, "tied": False}


@pytest.mark.parametrize(
    ("make", "choices", "dtype"),
    [
        pytest.param(gpt2, {}, "float32", id="GPT-2 float32"),
        pytest.param(gpt2, {}, "float64", id="GPT-2 float64"),
        pytest.param(gpt1, {"norm_position": "post"}, "float32", id="GPT-1 float32"),
        pytest.param(gpt1, {"norm_position": "post"}, "float64", id="GPT-1 float64"),
        pytest.param(llama, LLAMA, "float32", id="LLaMA float32"),  # its norms and angles are float32 in any case
    ],
)
def test_training_equals_transformers(make, choices, dtype):
    model = build(ModelConfig(**SIZES, **choices), dtype=dtype)
    theirs, state = make(arrays_of(model))
    theirs = theirs.to(getattr(torch, dtype))
    base = theirs.base_model_prefix
    state = {name if name.startswith("lm_head") else f"{base}.{name}": array for name, array in state.items()}
    result = theirs.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) <= {"lm_head.weight"}, "tied to the embedding"
    theirs.train()
    compare(model, torch_losses(lambda ids: theirs(ids).logits, theirs.parameters()), dtype)


def torch_decoder(parameters, ids):
    """The default preset: RMS norm, rotary positions as complex numbers, gelu, no biases, a tied head."""
    x = parameters["tokens.weight"][ids]
    pairs = SIZES["width"] // SIZES["heads"] // 2
    frequencies = 10000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    turns = torch.exp(1j * torch.outer(torch.arange(ids.shape[1]), frequencies))
    turns = turns.to(torch.complex64 if x.dtype == torch.float32 else torch.complex128)

    def turn(z):
        z = torch.complex(*z.chunk(2, dim=-1)) * turns
        return torch.cat([z.real, z.imag], dim=-1)

    def norm(x, name):
        return F.rms_norm(x, x.shape[-1:], parameters[f"{name}.weight"], eps=1e-5)

    for i in range(SIZES["layers"]):
        block = {name.removeprefix(f"stack.blocks.{i}."): p for name, p in parameters.items()}
        y = norm(x, f"stack.blocks.{i}.attention_norm")
        q, k, v = (
            rearrange(y @ block[f"attention.{name}.weight"], "b t (h c) -> b h t c", h=SIZES["heads"])
            for name in ("query", "key", "value")
        )
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        x = x + rearrange(y, "b h t c -> b t (h c)") @ block["attention.output.weight"]
        y = norm(x, f"stack.blocks.{i}.feed_forward_norm") @ block["feed_forward.up.weight"]
        x = x + F.gelu(y, approximate="tanh") @ block["feed_forward.down.weight"]
    return norm(x, "stack.norm") @ parameters["tokens.weight"].T


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_training_of_the_default_preset_equals_torch(dtype):
    model = build(ModelConfig(**SIZES, positions="rotary", norm="rms", bias=False), dtype=dtype)
    parameters = {name: p.requires_grad_() for name, p in arrays_of(model).items()}
    compare(model, torch_losses(lambda ids: torch_decoder(parameters, ids), parameters.values()), dtype)


def compare(model, theirs, dtype):
    assert theirs[-1] < theirs[0] - 0.5, "nothing was learned, so nothing was compared"
    np.testing.assert_allclose(our_losses(model), theirs, rtol=0, atol=TOLERANCE[dtype])
