"""What a GGUF file is where it is no model of its own: an adapter, an importance matrix, a projector.

Sources: ggml-org/llama.cpp `gguf-py/gguf/constants.py` (`GGUFType`), `convert_lora_to_gguf.py`,
`tools/imatrix`, `tools/cvector-generator`, `tools/mtmd`.
"""

from __future__ import annotations

from typing import NamedTuple

from minilm.formats.header import Header
from minilm.safe_text import short_repr


class SpecialFile(NamedTuple):
    """``noun`` says what it is, ``description`` what is in it; ``has_parameters`` whether that is weights."""

    noun: str
    description: str
    has_parameters: bool = True


def special_file(header: Header) -> SpecialFile | None:
    """What a file is that is no model; None for a model."""
    metadata = header.metadata
    architecture = metadata.get("general.architecture", "")
    kind = metadata.get("general.type", "")
    if kind == "adapter":
        return _adapter(header, architecture)
    if "imatrix" in (kind, architecture):
        return SpecialFile(
            "an importance matrix",
            "an importance matrix (imatrix): statistics of activations that guide quantization, "
            "no parameters",
            has_parameters=False,
        )
    if kind == "mmproj" or architecture == "clip":
        encoders = [
            name
            for name in ("vision", "audio")
            if metadata.get(f"clip.has_{name}_encoder") == "True"
        ]
        encoder = f"the {' and '.join(encoders)} encoder" if encoders else "the encoder"
        return SpecialFile(
            "a multimodal projector",
            f"a multimodal projector (mmproj): {encoder} and the projection into a language model, "
            "which is in a file of its own",
        )
    if architecture == "controlvector":
        return SpecialFile(
            "a control vector",
            "a control vector: directions that are added to a model's activations",
        )
    return None


def _adapter(header: Header, architecture: str) -> SpecialFile:
    kind = header.metadata.get("adapter.type", "")
    name = "LoRA adapter" if kind == "lora" else f"adapter of type {short_repr(kind)}"
    ranks = sorted({t.shape[0] for t in header.tensors if t.name.endswith(".lora_a") and t.shape})
    details = []
    if ranks:
        details.append(f"rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else ""))
    alpha = header.metadata.get("adapter.lora.alpha")
    if alpha is not None:
        details.append(f"alpha {short_repr(alpha)[1:-1]}")
    num_tensors = sum(tensor.name.endswith(".lora_a") for tensor in header.tensors)
    if num_tensors:
        details.append(f"on {num_tensors} tensor{'s' if num_tensors > 1 else ''}")
    text = f"{name} for {short_repr(architecture)[1:-1]}, whose weights are not in the file"
    return SpecialFile("an adapter", ": ".join((text, ", ".join(details))) if details else text)
