"""python scripts/tools/architectures.py: write docs/architectures.md, what is known of each model_type.

tests/test_docs.py makes the same table and compares. Everything in it follows from the declarations.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402
from minilm.architectures import layout_of  # noqa: E402
from minilm.architectures.model_types import MODEL_TYPES  # noqa: E402
from minilm.errors import ConfigError  # noqa: E402
from minilm.ledger.symbols import ZERO  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
HEAD = """# The declared architectures

Each is a `model_type` of a Hugging Face config.json, declared in a file of `minilm/architectures` with the
defaults that the architecture has where config.json says nothing.
`tests/architectures/test_transformers_agreement.py` compares each with transformers' own model, name by name,
on random configurations (`make agree`); the published models of `tests/architectures/test_published.py` and
`tests/architectures/test_published_gpt.py` are counted to the last parameter. minilm's own runs are declared
beside them. `python scripts/tools/architectures.py` writes this page.

- counted: names, shapes, formula, components, memory, active parameters; "language model" is the part of a
  larger model that is declared
- KV cache: its size, and FLOPs; "window" where some layers slide by default, "latent" and "sparse" as in
  DeepSeek's; "state" where layers keep one of constant size, whose size is told, and FLOPs without the scan
- GGUF: llama.cpp's name for it, whose files are checked against the declaration
- runs: minilm loads, trains and exports it; "imports": it loads it

| model_type | counted | KV cache | GGUF | runs |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(row(model_type) for model_type in sorted(MODEL_TYPES))


def row(model_type: str) -> str:
    entry = MODEL_TYPES[model_type]
    module = import_module(f"minilm.architectures.{entry.module}")
    imported = {each.model_type for each in getattr(module, "IMPORTABLE", ())}
    runs = "yes" if entry.runs else "imports" if model_type in imported else ""
    counted = f"language model ({entry.text_of})" if entry.text_of and not entry.whole else "yes"
    return f"| {model_type} | {counted} | {cache(model_type)} | {entry.gguf} | {runs} |\n"


def cache(model_type: str) -> str:
    """In a word, of its defaults."""
    config: dict[str, Any] = {"model_type": model_type}
    try:
        layout = layout_of(config)
    except ConfigError:  # transformers gives no number of experts
        layout = layout_of(config | {"n_routed_experts": 8, "num_experts_per_tok": 2})
    kinds = layout.attention
    names = {letter for kind in kinds for monomial in kind.cache.terms for letter, _ in monomial}
    words = [
        *(["latent"] if "c" in names else []),
        *(["sparse"] if any(kind.selected for kind in kinds) else []),
        *(["window"] if any(kind.window for kind in kinds) else []),
        *(["state"] if layout.state != ZERO else []),
    ]
    return ", ".join(words) or ("yes" if kinds else "no")


if __name__ == "__main__":
    files.write_bytes(PAGE, page().encode())
