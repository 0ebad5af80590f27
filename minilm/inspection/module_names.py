"""A layout under the names of transformers' modules, where a file has those.

`save_pretrained` of version 5 writes image-text and audio-text models under the names of version 4, which
the layouts have; what saves a `state_dict` by itself writes those of the modules. Which part has moved
where: huggingface/transformers `conversion_mapping.py`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensors

_TEXT = "language_model."
_EXPERTS = {
    ".experts.fc1.weight": ".experts.gate_up_proj",
    ".experts.fc2.weight": ".experts.down_proj",
}


def with_names_of_file(layout: Layout, names: Set[str]) -> Layout:
    """``layout``, under the names of the modules if more of the file's are of those, or of the body's."""
    tables = {t.name for t in layout.tensors if t.component == components.TOKEN_EMBEDDING}
    # Mostly a file holds the declared table: nothing is expanded for it.
    if tables & names or not any(name.startswith((_TEXT, f"model.{_TEXT}")) for name in names):
        return layout
    moved = replace(
        layout,
        tensors=_moved(layout.tensors),
        buffers=_moved(layout.buffers),
        mtp=_moved(layout.mtp),
        ignored=tuple(map(_name_of_module, layout.ignored)),
        ties=tuple((_name_of_module(copy), _name_of_module(table)) for copy, table in layout.ties),
    )
    declared, of_modules = ({t.name for t in each.named_tensors()} for each in (layout, moved))
    in_file = max(len(of_modules & names), len(of_modules & {f"model.{name}" for name in names}))
    return moved if in_file > len(declared & names) else layout


def _moved(tensors: Tensors) -> Tensors:
    return tuple(replace(tensor, name=_name_of_module(tensor.name)) for tensor in tensors)


def _name_of_module(name: str) -> str:
    """The text is in `model.language_model`, the head outside of `model`, and all else in it."""
    for old, new in _EXPERTS.items():  # Aria's
        name = name.replace(old, new)
    text = name.removeprefix(_TEXT)
    if text.startswith("lm_head."):
        return text
    if text.startswith("model."):
        return f"model.{_TEXT}{text.removeprefix('model.')}"
    return f"model.{name}"
