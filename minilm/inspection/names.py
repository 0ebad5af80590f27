"""What a tensor is by its name alone, for modules and files that no family declares."""

from __future__ import annotations

import re

# Linear's and attention's, in_proj_bias; recurrent layers' bias_ih_l0 and bias_hh_l0_reverse.
_BIAS = re.compile(r"bias|.*_bias|bias_(ih|hh)_l\d+(_reverse)?")
_EMBEDDING = re.compile(r"(^|[._])(wte|wpe|embed\w*)([._]|$)")


def component_by_name(name: str) -> str:
    """What a tensor of an unknown family is part of: its owner's path without numbers."""
    owner = name.rpartition(".")[0] or name
    return re.sub(r"(^|\.)\d+(?=\.|$)", "", owner).strip(".") or owner


def is_bias(name: str) -> bool:
    """Whether a parameter is added: named bias, or as torch's recurrent and attention ones are."""
    last = name.rpartition(".")[2]
    return _BIAS.fullmatch(last) is not None


def is_embedding(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a matrix is a token or position table: wte, wpe, embed_tokens, embedding, ..."""
    return len(shape) == 2 and _EMBEDDING.search(name) is not None
