"""Tokens that stand for no text: padding, the mask, the marks around a document, and T5's sentinels.

A model is told things that no text says: here the row is only padded, this word is hidden, here a document ends.
Each is an id of its own after the ordinary ones. Which of them a tokenizer has depends on what it was made for
(BERT: Devlin 2019, §3.1; T5: Raffel 2020, §3.1.4), and published tokenizers spell them differently, so whoever
needs one asks by its role.

Read before: `tinyformer.models.config`, for the modes. Read next: `tokenizers.py`.
"""

SENTINELS = 100  # as in T5's published vocabulary
SPELLINGS = {  # of a role; ours first
    "pad": ("<pad>", "[PAD]"),
    "cls": ("<cls>", "[CLS]"),
    "sep": ("<sep>", "[SEP]"),
    "mask": ("<mask>", "[MASK]"),
    "end": ("</s>", "<|endoftext|>"),
}
ROLES = {  # that a mode needs
    "decoder": (),
    "encoder": ("pad", "cls", "sep", "mask"),
    "encoder-decoder": ("pad", "end"),
}


def special_tokens(mode: str) -> tuple[str, ...]:
    """The names of the special tokens that a tokenizer for this mode has, in the order of their ids.

    T5 counts its sentinels down from the end of the vocabulary, so `<extra_id_0>` comes last.
    """
    sentinels = map(sentinel, reversed(range(SENTINELS))) if mode == "encoder-decoder" else ()
    return *(SPELLINGS[role][0] for role in ROLES[mode]), *sentinels


def sentinel(number: int) -> str:
    """The name of a sentinel: it stands for span `number` that was taken out of a text."""
    return f"<extra_id_{number}>"


def spellings(name: str) -> tuple[str, ...]:
    """All names of the role that a special token has; only its own if it has none of the known roles."""
    return next((names for names in SPELLINGS.values() if name in names), (name,))
