"""The independent witnesses of a count (formula, file, module), and how they compare."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from minilm.architectures import layout_of
from minilm.architectures.ignored_weights import ignored_weights
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import UndeclaredClassError, class_name_of
from minilm.errors import FormatError, naming_file
from minilm.formats.header import Header
from minilm.inspection import similar_types
from minilm.inspection.comparison import (
    ClassifiedTensors,
    Shapes,
    classify_tensors,
    compare_shapes,
    compare_totals,
    expected_shapes,
)
from minilm.inspection.index_totals import compare_index
from minilm.inspection.names import frozen_norm_tensors, next_token_layers
from minilm.inspection.report import Comparison, IndexTotal, Witnesses, WitnessName
from minilm.inspection.target import Target
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import LogicalTensors, decode
from minilm.runs.files import CONFIG

if TYPE_CHECKING:
    from minilm.inspection.module_reader import ModuleContents

# A thousand layers take a second to build, and a config.json may say ten thousand.
MOST_LAYERS = 512


@dataclass(frozen=True)
class Evidence:
    """Every witness that ``target`` has, and how they compare.

    ``logical`` are the tensors that its file stands for and ``file`` the same by kind, None where it has
    no weights; ``module`` is the module that it is, or that was built from its configuration.
    """

    target: Target
    logical: LogicalTensors | None
    file: ClassifiedTensors | None
    module: ModuleContents | None
    witnesses: Witnesses
    comparisons: tuple[Comparison, ...]
    mismatches: tuple[str, ...]
    index_totals: tuple[IndexTotal, ...]
    notes: tuple[str, ...]


def gather_evidence(target: Target, *, live: bool | None = None) -> Evidence:
    """Read the file's tensors and, if ``live``, build the module; compare both with the formula.

    ``live`` is by default true for a run of at most MOST_LAYERS layers. Raises FormatError for a target
    without any witness.
    """
    may_be_live = live is not False
    if live is None:
        live = target.is_run and _num_layers(target) <= MOST_LAYERS
    # Many experts are many names: expanded once, and only where there is something to compare.
    is_compared = target.header is not None or target.module is not None or live
    expected = expected_shapes(target.layout) if target.layout and is_compared else {}
    logical = file = None
    if target.header is not None:
        logical = decode(target.header, target.quantization_config, expected)
        file = classify_tensors(
            target.layout,
            expected.keys(),
            logical.tensors,
            tied_copies_allowed=target.config is None,
            shared=target.header.shared,
            marked_buffers=_marked_buffers(target, target.header),
            mtp_layers=next_token_layers(target.hugging_face, target.header.metadata),
            unread=ignored_weights(target.hugging_face),
        )
    module, module_note = _read_module(target, live)
    witnesses = [_file_witness(file, logical)] if file is not None and logical is not None else []
    if module is not None:
        witnesses.append(_module_witness(module, same_names=target.config is not None))
    if target.layout is None and not witnesses:
        raise _no_witness(target, may_be_live)
    index_totals: tuple[IndexTotal, ...] = ()
    index_notes: tuple[str, ...] = ()
    if target.header is not None and file is not None:
        index_totals, index_notes = compare_index(target.header, file, target.layout)
    comparisons: tuple[Comparison, ...] = ()
    partial_note = None
    if target.partial and file is not None:
        mismatches = _compare_part(expected, witnesses[0])
        partial_note = _partial_note(target, len(mismatches))
        target = replace(
            target, layout=None, undeclared="a part of a model has no formula of its own"
        )
        witnesses = witnesses[:1]
    else:
        comparisons, mismatches = _compare(target.layout, expected, witnesses)
    if target.is_run and file is None:
        mismatches = ("file: model.safetensors is missing", *mismatches)
    return Evidence(
        target=target,
        logical=logical,
        file=file,
        module=module,
        witnesses=Witnesses(
            formula=target.layout.count() if target.layout else None,
            **{witness.name: witness.total for witness in witnesses},
        ),
        comparisons=comparisons,
        mismatches=mismatches,
        index_totals=index_totals,
        notes=(
            *index_notes,
            *target.notes,
            *(logical.notes if logical else ()),
            *((partial_note,) if partial_note else ()),
            *(target.header.lines if target.header else ()),
            *((module_note,) if module_note else ()),
            *_depth_notes(target, module),
        ),
    )


def _marked_buffers(target: Target, header: Header) -> Set[str]:
    """Buffers by what the whole file says: a program of torch, or its batch norms."""
    if target.layout is not None:
        return header.buffers
    # Every transformers needs a torch whose norms count their batches.
    is_recent = "transformers_version" in target.hugging_face
    names = {tensor.name for tensor in header.tensors}
    return header.buffers | frozen_norm_tensors(names, is_recent=is_recent)


def _num_layers(target: Target) -> int:
    return target.config.num_layers if target.config else 0


def _depth_notes(target: Target, module: ModuleContents | None) -> tuple[str, ...]:
    if not target.is_run or module is not None or _num_layers(target) <= MOST_LAYERS:
        return ()
    return (f"a module of over {MOST_LAYERS} layers is built with --live only",)


class _Witness(NamedTuple):
    """A witness beside the formula; ``shapes`` is None where its names are not those of the formula."""

    name: WitnessName
    total: int
    shapes: Shapes | None
    assumed: int = 0


def _file_witness(file: ClassifiedTensors, logical: LogicalTensors) -> _Witness:
    tensors = file.parameters
    total = sum(tensor.count for tensor in tensors.values())
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return _Witness("file", total, shapes, len(logical.assumed))


def _module_witness(module: ModuleContents, *, same_names: bool) -> _Witness:
    """transformers' modules are named otherwise than their files since its version 5."""
    total = sum(row.count for row in module.rows)
    return _Witness(
        "module", total, {row.name: row.shape for row in module.rows} if same_names else None
    )


def _compare(
    layout: Layout | None, expected: Shapes, witnesses: Sequence[_Witness]
) -> tuple[tuple[Comparison, ...], tuple[str, ...]]:
    """Each witness with the formula; without a formula, the totals of file and module."""
    comparisons, mismatches = [], []
    if layout is not None:
        for witness in witnesses:
            if witness.shapes is not None:
                mismatches += compare_shapes(expected, witness.shapes, witness.name)
            mismatches += compare_totals(layout.count(), witness.total, witness.name, "formula")
            by: Literal["names", "totals"] = "totals" if witness.shapes is None else "names"
            comparisons.append(Comparison(witness.name, "formula", by, witness.assumed))
    elif len(witnesses) > 1:
        file, module = witnesses
        mismatches += compare_totals(file.total, module.total, module.name, file.name)
        comparisons.append(Comparison(module.name, file.name, "totals"))
    return tuple(comparisons), tuple(mismatches)


def _compare_part(expected: Shapes, file: _Witness) -> tuple[str, ...]:
    """The tensors of a file that has only some: each must be in the formula, where there is one."""
    assert file.shapes is not None
    if not expected:
        return ()
    part = {name: shape for name, shape in expected.items() if name in file.shapes}
    return tuple(compare_shapes(part, file.shapes, file.name))


def _partial_note(target: Target, num_mismatches: int) -> str:
    text = f"{target.partial} of a model, which is not the whole"
    if target.layout is None:
        return text
    text += f": that has {target.layout.count():,} parameters by the formula"
    return text if num_mismatches else f"{text}, and the tensors here are as it says"


def _read_module(target: Target, live: bool) -> tuple[ModuleContents | None, str | None]:
    """The module of a target, or why there is none, or how it is compared.

    Raises FormatError where it cannot be built and the target has no weights.
    """
    if target.module is not None or not live:
        return target.module, None
    from minilm.inspection.module_reader import (
        hugging_face_model,
        meta_model,
        read_adapted,
        read_module,
    )

    if target.config is not None:
        return read_adapted(meta_model(target.config, target.quantization, target.lora)), None
    if not target.hugging_face:
        return None, "no config.json to build a module from"
    path = Path(target.name)
    config = path if path.suffix == ".json" else (target.folder or path) / CONFIG
    try:
        with naming_file(config):
            module = hugging_face_model(target.hugging_face, class_name_of(target.hugging_face))
    except FormatError as error:
        if target.header is None:
            raise
        return None, f"no module: {error}"
    return read_module(module), "the module is transformers' own, compared by its total"


def _undeclared_part(target: Target) -> tuple[str, str]:
    """What is not declared of a declared type, and what would be: a class, or a field of config.json."""
    class_name = class_name_of(target.hugging_face) or "a part"
    whole = (class_name, "a class whose parts are declared")
    try:
        layout_of(target.hugging_face)
    except UndeclaredClassError as error:
        field = str(error.where).removeprefix("config.json: ")
        return whole if field == "architectures" else (f"{field} {error.got}", error.expected)
    return whole


def _no_witness(target: Target, may_be_live: bool) -> FormatError:
    remedy = "name its weights, which are counted without a formula"
    if may_be_live:
        remedy += ", or add --live where transformers is installed"
    is_declared = target.architecture in MODEL_TYPES
    part, expected = _undeclared_part(target) if is_declared else ("", "")
    if "text_config" in target.hugging_face and not part.startswith("text_config"):
        remedy = "save its text_config as a config.json to count the text alone; or " + remedy
    if is_declared:
        what = f"{part} of model_type {target.architecture!r} without weights"
        return FormatError(target.name, what, expected, remedy)
    offer = similar_types.advice(target.hugging_face)
    model_type = target.hugging_face.get("model_type")
    named = "no model_type" if model_type is None else f"model_type {model_type!r}"
    return FormatError(
        target.name,
        f"{named} without weights",
        f"one of the {len(MODEL_TYPES)} that `minilm architectures` lists",
        f"{offer}; or {remedy}" if offer else remedy,
    )
