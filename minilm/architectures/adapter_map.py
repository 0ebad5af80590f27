"""Where the LoRA matrices of minilm's modules are in PEFT's file for the exported Hugging Face model.

Names: huggingface/peft `utils/save_and_load.py`. Where the exported model has several matrices of
minilm's as one, their adapters are one of as many times the rank: A's are stacked, and B's are blocks
beside zeros.

Shapes: n adapted matrices in one module, r rank, i inputs, o outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minilm.architectures.conversion import Architecture, exportable
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.tensor_map import TensorMapping, tensor_mappings
from minilm.config import ModelConfig
from minilm.config.lora import LoraConfig
from minilm.errors import ConfigError
from minilm.formats.tensor_io import Array
from minilm.ledger.layout import Layout, Role
from minilm.ledger.layout_changes import FACTORS, own_names, with_adapters

# What PEFT puts before the names of its base.
PREFIX = "base_model.model."
_WEIGHT = ".weight"
HEAD = "lm_head"  # the module of every class, whatever its tensor is called in the file
_OLD_HEAD = "embed_out"  # GPT-NeoX's, before transformers 5

Factors = tuple[Array, ...]  # A (r, i) and B (o, r), with DoRA the lengths (o,)


@dataclass(frozen=True)
class AdaptedModule:
    """A module of the file, and the matrices of minilm's whose adapters it has.

    ``matrices`` are all that are joined in it, ``adapted`` those of them that have an adapter; ``outputs``
    are the outputs of each.
    """

    path: str
    mapping: TensorMapping
    matrices: tuple[str, ...]
    adapted: tuple[str, ...]
    outputs: tuple[int, ...]
    inputs: int
    dora: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of A and B in the file, and of the lengths."""
        return tuple(f"{PREFIX}{self.path}.{name}" for name in own_names(self.dora))

    @property
    def _rows(self) -> TensorMapping:
        """How the rows of B are joined: A and B are never stored transposed."""
        return replace(self.mapping, transposed=False)

    def shapes(self, rank: int) -> tuple[tuple[int, ...], ...]:
        """Of A and B in the file, for adapters of ``rank``, and of the lengths."""
        joined, outputs = rank * len(self.adapted), sum(self.outputs)
        return (joined, self.inputs), (outputs, joined), *([(outputs,)] if self.dora else [])

    def join(self, factors: Sequence[Factors], config: ModelConfig) -> Factors:
        """The file's A and B of those of the adapted matrices, and their lengths."""
        rank = factors[0][0].shape[0]
        blocks = [
            np.zeros((outputs, rank * len(self.adapted)), np.float32) for outputs in self.outputs
        ]
        for number, (name, (_, b, *_)) in enumerate(zip(self.adapted, factors, strict=True)):
            block = blocks[self.matrices.index(name)]
            block[:, number * rank : (number + 1) * rank] = b
        joined = np.concatenate([each[0] for each in factors]), self._rows.join(blocks, config)
        if not self.dora:
            return joined
        columns = [each[2][:, None] for each in factors]
        return *joined, self._rows.join(columns, config)[:, 0]

    def split(self, a: Array, b: Array, *lengths: Array, config: ModelConfig) -> list[Factors]:
        """The inverse of `join`. Raises ValueError where B is not zero beside the blocks."""
        rank = a.shape[0] // len(self.adapted)
        rows = self._rows.split(b, self.outputs, config)
        factors: list[Factors] = []
        for number, name in enumerate(self.adapted):
            own = slice(number * rank, (number + 1) * rank)
            factors.append((a[own], np.ascontiguousarray(rows[self.matrices.index(name)][:, own])))
        if np.count_nonzero(b) != sum(np.count_nonzero(block) for _, block in factors):
            raise ValueError("B is not zero beside the blocks")
        if not self.dora:
            return factors
        columns = self._rows.split(lengths[0][:, None], self.outputs, config)
        return [(*pair, column[:, 0]) for pair, column in zip(factors, columns, strict=True)]


@dataclass(frozen=True)
class AdapterMap:
    """All adapted modules of a model, and what adapter_config.json says of them.

    ``class_name`` is the class of transformers whose names they are; empty where they are minilm's own,
    for ``reason``.
    """

    config: ModelConfig
    modules: tuple[AdaptedModule, ...]
    target_modules: tuple[str, ...]
    joined: dict[str, int]  # of a name in target_modules, how many adapters are one
    transposed: bool
    class_name: str = ""
    reason: str = ""

    def shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """Of every tensor of the file."""
        return {
            name: shape
            for module in self.modules
            for name, shape in zip(module.names, module.shapes(rank), strict=True)
        }


def adapter_map(config: ModelConfig, lora: LoraConfig) -> AdapterMap:
    """By the names of the model that ``config`` is exported as, or by minilm's own where there is none.

    Raises ConfigError for targets and a rank that do not fit the model.
    """
    shapes = adapted_shapes(config, lora)
    try:
        if config.num_blocks < config.num_layers:
            raise ConfigError(
                "model.shared_layers", "layers that share blocks", "layers of their own"
            )
        architecture = exportable(config)[0]
        stored = architecture.stored_config(config)
        layout = architecture.layout(architecture.config_json(stored))
        modules = tuple(_exported_modules(architecture, stored, layout, shapes, lora.dora))
        if lora.dora and any(module.adapted != module.matrices for module in modules):
            raise ConfigError(
                "dora", "a part of the matrices that are one there", "all of them or none"
            )
    except ConfigError as error:
        own = tuple(
            _module(name, TensorMapping(name, (name,)), shapes, lora.dora) for name in shapes
        )
        targets = tuple(dict.fromkeys(_last(name) for name in shapes))
        return AdapterMap(config, own, targets, {}, transposed=False, reason=str(error))
    target_modules = {_target(module.path, layout): len(module.adapted) for module in modules}
    return AdapterMap(
        config,
        modules,
        tuple(target_modules),
        {name: number for name, number in target_modules.items() if number > 1},
        transposed=any(module.mapping.transposed for module in modules),
        class_name=architecture.class_name,
    )


def module_path(mapping: TensorMapping) -> str:
    """The module that has this tensor of the file."""
    is_head = mapping.minilm_names == (HEAD + _WEIGHT,)
    return HEAD if is_head else mapping.hf_name.removesuffix(_WEIGHT)


def current_name(name: str) -> str:
    """The name in adapter files of the tensor that is called ``name`` in one."""
    old = f"{PREFIX}{_OLD_HEAD}."
    return f"{PREFIX}{HEAD}.{name.removeprefix(old)}" if name.startswith(old) else name


def adapted_shapes(config: ModelConfig, lora: LoraConfig) -> dict[str, tuple[int, int]]:
    """The modules of minilm's that have an adapter, each with its outputs and inputs."""
    layout = with_adapters(minilm_layout(config), lora.targets, lora.rank, dora=lora.dora)
    shapes = {tensor.name: tensor.shape for tensor in layout.named_tensors()}
    a, b = (f".{name}" for name in FACTORS)
    modules = [name.removesuffix(a) for name in shapes if name.endswith(a)]
    return {name: (shapes[name + b][0], shapes[name + a][1]) for name in modules}


def _exported_modules(
    architecture: Architecture,
    config: ModelConfig,
    layout: Layout,
    shapes: dict[str, tuple[int, int]],
    dora: bool,
) -> Iterator[AdaptedModule]:
    outputs = {tensor.name: tensor.shape[0] for tensor in minilm_layout(config).named_tensors()}
    for mapping in tensor_mappings(architecture, config):
        if any(name.removesuffix(_WEIGHT) in shapes for name in mapping.minilm_names):
            yield _module(module_path(mapping), mapping, shapes, dora, outputs)
    if HEAD in shapes and layout.ties:
        head = HEAD + _WEIGHT
        yield _module(HEAD, TensorMapping(head, (head,)), shapes, dora)


def _module(
    path: str,
    mapping: TensorMapping,
    shapes: dict[str, tuple[int, int]],
    dora: bool,
    outputs: dict[str, int] | None = None,
) -> AdaptedModule:
    matrices = tuple(name.removesuffix(_WEIGHT) for name in mapping.minilm_names)
    adapted = tuple(name for name in matrices if name in shapes)
    rows = tuple(
        shapes[name][0] if name in shapes else (outputs or {})[name + _WEIGHT] for name in matrices
    )
    return AdaptedModule(
        path, mapping, matrices, adapted, rows, inputs=shapes[adapted[0]][1], dora=dora
    )


def _target(path: str, layout: Layout) -> str:
    """The last words of ``path`` that no other kind of module ends with, as PEFT matches them."""
    words = path.split(".")
    paths = {
        tensor.name.removesuffix(_WEIGHT)
        for tensor in layout.tensors
        if tensor.role is Role.MULTIPLIED
    }
    for number in range(1, len(words)):
        end = ".".join(words[-number:])
        if sum(f".{each}".endswith(f".{end}") for each in paths) <= 1:
            return end
    return path


def _last(path: str) -> str:
    return path.rpartition(".")[2]
