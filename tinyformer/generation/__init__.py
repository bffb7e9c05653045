"""Writing text with a trained model.

Reading order: `options` (what can be asked for), `filters` (logits to a distribution), `strategies`
(sampling, beam search), `state` (a model as the loop sees it), `streaming`, `prompts`, `decode` (the loop), `fill`.
"""

from .decode import Piece, answer_sources, decode, generate, generate_texts, sample_text
from .fill import Candidate, Filling, fill_masks, fill_spans
from .options import Options
from .state import DecoderState, EncoderDecoderState, State

__all__ = [
    "Candidate",
    "DecoderState",
    "EncoderDecoderState",
    "Filling",
    "Options",
    "Piece",
    "State",
    "answer_sources",
    "decode",
    "fill_masks",
    "fill_spans",
    "generate",
    "generate_texts",
    "sample_text",
]
