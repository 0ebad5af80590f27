"""A Modelfile, with which `ollama create` takes a GGUF file.

Instructions: ollama/ollama `docs/modelfile.md`.
"""

from __future__ import annotations

import os
from pathlib import Path

from minilm.config import ModelConfig


def modelfile(
    gguf_file: Path, folder: Path, config: ModelConfig, *, has_chat_template: bool
) -> str:
    """The text of a Modelfile in ``folder``.

    Ollama's own context is longer than small models have, and its template is of a chat: a text model's
    is the prompt itself.
    """
    path = os.path.relpath(gguf_file.absolute(), folder.absolute())
    template = [] if has_chat_template else ['TEMPLATE """{{ .Prompt }}"""']
    return "\n".join(
        [f"FROM ./{path}", f"PARAMETER num_ctx {config.context_length}", *template, ""]
    )
