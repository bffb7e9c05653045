"""Hugging Face directories, in and out: GPT-2, BERT and T5 as the models here, and our own models as some of theirs.

Reading order: `weights` (the files), `table` (names), `family` (options), `gpt2`, `bert`, `roformer`, `t5`, `llama`
(the data), `tokenizer`, `heads`, `directory` (what is offered). Needs neither torch nor transformers.
"""

from .directory import export_run, import_run, is_directory, prospects, read_model

__all__ = ["export_run", "import_run", "is_directory", "prospects", "read_model"]
