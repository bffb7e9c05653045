"""Hugging Face directories made by hand: names as published checkpoints have them, and the files byte for byte."""

import json
import struct

import numpy as np

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 258,
    "n_positions": 12,
    "n_embd": 6,
    "n_layer": 1,
    "n_head": 2,
    "n_inner": 8,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
GPT2_SHAPES = {
    "transformer.wte.weight": (258, 6),
    "transformer.wpe.weight": (12, 6),
    "transformer.h.0.ln_1.weight": (6,),
    "transformer.h.0.ln_1.bias": (6,),
    "transformer.h.0.attn.c_attn.weight": (6, 18),
    "transformer.h.0.attn.c_attn.bias": (18,),
    "transformer.h.0.attn.c_proj.weight": (6, 6),
    "transformer.h.0.attn.c_proj.bias": (6,),
    "transformer.h.0.ln_2.weight": (6,),
    "transformer.h.0.ln_2.bias": (6,),
    "transformer.h.0.mlp.c_fc.weight": (6, 8),
    "transformer.h.0.mlp.c_fc.bias": (8,),
    "transformer.h.0.mlp.c_proj.weight": (8, 6),
    "transformer.h.0.mlp.c_proj.bias": (6,),
    "transformer.ln_f.weight": (6,),
    "transformer.ln_f.bias": (6,),
}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def bits(array, dtype):
    """An array as the bytes of a safetensors dtype. A bfloat16 here is a float32 that lost its lower half."""
    if dtype == "BF16":
        return (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.asarray(array, {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I8": "i1"}[dtype]).tobytes()


def safetensors(arrays, dtype="F32"):
    """The content of a file, written out by hand."""
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        data = bits(array, dtype)
        place = [len(content), len(content) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": place}
        content += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def gpt2_arrays():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in GPT2_SHAPES.items()}


def gpt2_tokenizer():
    """Bytes, one merge, and GPT-2's end mark."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in visible}
    letters |= {byte: chr(256 + n) for n, byte in enumerate(sorted(set(range(256)) - set(visible)))}
    vocabulary = {letters[byte]: byte for byte in range(256)} | {"on": 256, "<|endoftext|>": 257}
    end = {"id": 257, "content": "<|endoftext|>", "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["o", "n"]]},
    }


def write_gpt2(folder, arrays=None, *, tokenizer=True, dtype="F32", **options):
    """A directory of a tiny GPT-2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(GPT2 | options))
    (folder / "model.safetensors").write_bytes(safetensors(gpt2_arrays() if arrays is None else arrays, dtype))
    if tokenizer:
        (folder / "tokenizer.json").write_text(json.dumps(gpt2_tokenizer()))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    return folder
