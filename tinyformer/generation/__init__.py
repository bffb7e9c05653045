"""Writing text with a trained model.

Reading order: `options` (what can be asked for), `filters` (logits to a distribution), `strategies`
(sampling, beam search), `state` (a model as the loop sees it), `streaming`, `decode` (the loop).
"""

from .decode import Piece, decode, generate, generate_texts, sample_text
from .options import Options
from .state import DecoderState, State

__all__ = ["DecoderState", "Options", "Piece", "State", "decode", "generate", "generate_texts", "sample_text"]
