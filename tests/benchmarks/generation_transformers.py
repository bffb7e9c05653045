"""transformers' `generate`, with its key/value cache, on torch.

Read before: `contender.py`, `generation.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from .generation import PROMPT, TOKENS


def prepare(folder: Path, threads: int, form: str) -> Callable[[], list[int]]:
    """A step that writes the tokens and returns them."""
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.tensor([PROMPT])
    settings = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "use_cache": True}

    def step() -> list[int]:
        with torch.inference_mode():
            written = model.generate(prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, **settings)
        return written[0, len(PROMPT) :].tolist()

    return step
