"""The cases of `parameters.py`: each what is done to a trained `nano`, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUANTIZED, PRUNED = "quantized", "pruned"
RECOVERED = "pruned or shared, 300 steps of recovery"
SMALLER = "fewer parameters, trained from the start"
FLOAT = "float32"
Step = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """A case by its name; ``table`` is that of docs/parameters.md, ``label`` its text in the picture.

    ``label`` stands at ``position`` of the point, as plotly names it.
    """

    name: str
    table: str
    group: str
    label: str
    position: str
    steps: tuple[Step, ...]


def _quantized(name: str, position: str, **options: Any) -> Case:
    return Case(name, "quantized", QUANTIZED, name, position, (("quantize", options),))


def _pruned(name: str, position: str, *, recover: int = 300, **options: Any) -> Case:
    group, label = (RECOVERED, name) if recover else (PRUNED, f"{name}, at once")
    case_name = f"{name} {'recovered' if recover else 'at once'}"
    steps = (("prune", {**options, "recover": recover}),)
    return Case(case_name, "pruned", group, label, position, steps)


CASES = (
    Case("float32", "", FLOAT, "nano, float32", "top center", ()),
    _quantized("int8", "bottom center", format="int8"),
    *(
        case
        for size, at in ((32, "bottom right"), (64, "bottom right"), (128, "top right"))
        for case in (
            _quantized(f"int4, groups of {size}", at, format="int4", group_size=size),
            _quantized(
                f"int4, groups of {size}, calibrated",
                at,
                format="int4",
                group_size=size,
                calibrate="stdlib",
            ),
        )
    ),
    _quantized("nf4", "middle right", format="nf4"),
    _quantized("nf4, double", "middle left", format="nf4", double_quantization=True),
    _pruned("SparseGPT 50%", "middle left", sparsity=0.5, method="sparsegpt"),
    _pruned("SparseGPT 50%", "middle right", sparsity=0.5, method="sparsegpt", recover=0),
    _pruned("magnitude 50%", "top right", sparsity=0.5, method="magnitude", recover=0),
    _pruned("Wanda 50%", "middle right", sparsity=0.5, method="wanda", recover=0),
    _pruned("2:4", "middle right", sparsity=0.5, method="2:4", recover=0),
    _pruned("2:4", "middle right", sparsity=0.5, method="2:4"),
    _pruned("units 50%", "middle right", sparsity=0.5, method="units"),
    _pruned("heads 25%", "bottom center", sparsity=0.25, method="heads"),
    _pruned("layers 25%", "middle right", sparsity=0.25, method="layers"),
    Case(
        "units 50% recovered, int4",
        "composed",
        QUANTIZED,
        "units 50%,<br>recovered, int4",
        "bottom center",
        (
            ("prune", {"sparsity": 0.5, "method": "units", "recover": 300}),
            ("quantize", {"format": "int4", "calibrate": "stdlib"}),
        ),
    ),
    _pruned("units 50%", "middle left", sparsity=0.5, method="units", recover=0),
    _pruned("heads 25%", "middle right", sparsity=0.25, method="heads", recover=0),
    _pruned("layers 25%", "middle right", sparsity=0.25, method="layers", recover=0),
    Case(
        "3 layers",
        "smaller",
        SMALLER,
        "3 layers",
        "bottom right",
        (("train", {"num_layers": 3}),),
    ),
    _pruned("SparseGPT 75%", "middle right", sparsity=0.75, method="sparsegpt"),
    Case(
        "2 layers",
        "smaller",
        SMALLER,
        "2 layers",
        "middle right",
        (("train", {"num_layers": 2}),),
    ),
    Case(
        "2 blocks for 4 layers",
        "shared",
        RECOVERED,
        "2 blocks shared by 4 layers",
        "middle right",
        (("share", {"layers": 2}), ("fine-tune", {"max_steps": 300})),
    ),
    _pruned("magnitude 50%", "middle right", sparsity=0.5, method="magnitude"),
    _pruned("Wanda 50%", "top right", sparsity=0.5, method="wanda"),
    Case(
        "2 blocks from the start",
        "smaller",
        SMALLER,
        "2 blocks shared by 4 layers",
        "middle right",
        (("train", {"num_layers": 4, "shared_layers": 2}),),
    ),
    Case(
        "tied head from the start",
        "smaller",
        SMALLER,
        "tied head",
        "middle right",
        (("train", {"tied_embeddings": True}),),
    ),
    _pruned("SparseGPT 75%", "middle right", sparsity=0.75, method="sparsegpt", recover=0),
)
