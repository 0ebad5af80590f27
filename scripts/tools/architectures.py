"""python scripts/tools/architectures.py: write docs/architectures.md, what is known of each model_type.

tests/test_docs.py makes the same table and compares. Everything in it follows from the declarations.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm import files  # noqa: E402
from minilm.architectures.overview import Overview, overviews  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
HEAD = """# The declared architectures

Each is a `model_type` of a Hugging Face config.json, declared in a file of `minilm/architectures` with the
defaults that the architecture has where config.json says nothing.
`tests/architectures/test_transformers_agreement.py` compares each with transformers' own model, name by name,
on random configurations (`make agree`). Those that transformers does not have, whose config.json names
code in their own repository, are held against names and shapes listed by hand from that code
(`tests/architectures/test_remote_types.py`). The models of `tests/architectures/test_published*.py`, those of
2023 to 2026 in `tests/architectures/published.json`, are counted to the last parameter. Every type of nine
of transformers' mappings, declared or not, is saved small and inspected by
`python -m tests.architectures.saved_folders`. minilm's own runs are declared beside them.
`minilm architectures` prints this table (`scripts/tools/architectures.py` writes this page).
Encoders, encoder-decoders, networks over pictures and models that see or hear are declared by class, which
`tests/architectures/test_classes_agreement.py` compares: with a masked language model's head, as a
classifier, alone, or whole. A class that is not declared is counted from its file. Each is there since minilm
0.1.0. A model_type that is not is read as another by `minilm inspect --as TYPE`; where the fields of a
config.json are those of a declared one, the error offers that.

Of the 189 types of causal language models that transformers 5.23 has, six are not declared: gemma4_assistant,
gemma4_unified_assistant, musicgen, musicgen_melody, qwen4_exp and qwen4_exp_text. It builds none of them from
its own defaults, which are of sizes that it refuses or lacks. The seven that 5.24 adds are declared. `make
agree` lists what is not, and what a newer transformers adds.

- counted: names, shapes, formula, components, memory, active parameters; "language model" is the part of a
  larger model that is declared
- KV cache: its size, and FLOPs; "window" where some layers slide by default, "latent" and "sparse" as in
  DeepSeek's; "state" where layers keep one of constant size, whose size is told, and FLOPs without the scan;
  "no" for encoders, whose FLOPs are told where they are a token's or a patch's. Of an encoder-decoder it is
  that of both attentions, with as long a text in the encoder, which runs once: its FLOPs are not a token's.
  Of Llama 3.2 Vision it is that of both too, with one picture of all tiles.
  None are told of convolutional networks, of detectors, of networks whose later layers see fewer places
  (Swin, PVT, SegFormer, ...), of a tower alone, nor of BLT and Reformer, where they follow from the text.
  DeBERTa's are without its relative attention.
  FLOPs are those that torch counts on transformers' model: `tests/architectures/test_flops_agreement.py`
  names the eight types of which transformers computes something that no token needs, and how much
- GGUF: llama.cpp's name for it, whose files are checked against the declaration by the sizes in their own
  metadata; what llama.cpp's conversion splits, stacks, swaps or leaves out is in
  `minilm/architectures/gguf_*.py`, and `tests/architectures/test_gguf_architectures.py` makes such files
  with gguf's own map of names and writer. The texts of Qwen2-VL, Qwen3-VL, PaddleOCR, DeepSeek-OCR and
  HunYuanVL, EmbeddingGemma, encoders of T5 and Nemotron-H with experts have names of their own (`qwen2vl`,
  ...), and so have models in the shape of another: Dream is Qwen 2's, LLaDA and Refact Llama's, Maincoder
  Qwen 3's, LLaDA-MoE and RND1 Qwen 3's with experts. Files of other architectures, which are below the
  table, are counted by name
- runs: minilm loads, trains and exports it; "imports": it loads it

| model_type | counted | KV cache | GGUF | runs | the same as |
|---|---|---|---|---|---|
"""
TAIL = """
GGUF files of these architectures of llama.cpp, of the 126 that gguf 0.19 names, are counted by name:

- no conversion of llama.cpp writes them: gptj
- towers of pictures and sounds of many models, under one name: clip
- later than the one RWKV that is declared, the fourth: arwkv7, rwkv6, rwkv6qwen2, rwkv7
- encoders of text that are not declared: jina-bert-v2, neo-bert, nomic-bert-moe
- language models that are not declared: cogvlm, grovemoe, plamo2, plamo3, plm
- a language model that is declared, and whose conversion is not: step35
- a decoder of sound: wavtokenizer-dec
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(row(overview) for overview in overviews()) + TAIL


def row(overview: Overview) -> str:
    """A line of the table."""
    return f"| {' | '.join(overview)} |\n"


if __name__ == "__main__":
    files.write_bytes(PAGE, page().encode())
