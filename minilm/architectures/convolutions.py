"""What convolutional networks have beside vision_parts.py: convolutions with batch norms, stages of blocks.

Each stage has widths of its own, which stand as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from reprlib import repr as shortened

from minilm.architectures.vision_parts import batch_norm, convolution, joined, repeated
from minilm.architectures.vision_tower import Part, Width
from minilm.config.validation import LARGEST_DIMENSION
from minilm.errors import ConfigError
from minilm.ledger import components


def normed_convolution(
    name: str,
    outputs: Width,
    inputs: Width,
    kernel: int = 1,
    component: str = components.CONVOLUTIONS,
) -> Part:
    """``name.convolution`` and ``name.normalization``, a batch norm."""
    return joined(
        convolution(f"{name}.convolution", outputs, inputs, kernel, component=component),
        batch_norm(f"{name}.normalization", outputs),
    )


def depthwise(name: str, width: Width, kernel: int = 3) -> Part:
    """As `normed_convolution`, each channel by itself."""
    component = components.DEPTHWISE_CONVOLUTIONS
    return normed_convolution(name, width, 1, kernel, component)


def squeeze_excitation(names: tuple[str, str], width: int, inner: int) -> Part:
    """What weighs the channels: one map to ``inner`` of them and one back, with biases."""
    part = components.SQUEEZE_EXCITATION
    return joined(
        convolution(names[0], inner, width, bias=True, component=part),
        convolution(names[1], width, inner, bias=True, component=part),
    )


def frozen(part: Part) -> Part:
    """With its batch norms as detectors have them: nothing of them is trained, nor are batches counted."""
    norms = tuple(t for t in part.tensors if t.component == components.CONVOLUTION_NORM)
    kept = tuple(t for t in part.buffers if not t.name.endswith("num_batches_tracked"))
    others = tuple(t for t in part.tensors if t.component != components.CONVOLUTION_NORM)
    return Part(others, part.symbols, (*norms, *kept))


Block = Callable[[str, int, int], Part]  # of a name, inputs and outputs


def stage(
    name: str, number: int, depth: int, sides: tuple[int, int], block: Block, *, start: int = 0
) -> Part:
    """Stage ``number``: blocks ``name.{start}`` and on, of which the first has other inputs than outputs."""
    inputs, outputs = sides
    further = block(f"{name}.{{i}}", outputs, outputs)
    return joined(
        block(f"{name}.{start}", inputs, outputs),
        repeated(further, number, depth, start=start, first=1),
    )


def in_range(value: float, name: str) -> float:
    """``value``, a width or depth that follows from a factor in the field ``name``."""
    if not 0 <= value <= LARGEST_DIMENSION:
        raise ConfigError(f"config.json: {name}", shortened(value), "a smaller factor, 0 or more")
    return value


def divisible(value: float, name: str, divisor: int = 8, least: int | None = None) -> int:
    """The multiple of ``divisor`` that is nearest, but not a tenth smaller; ``least`` at least."""
    nearest = int(in_range(value, name) + divisor / 2) // divisor * divisor
    width = max(divisor if least is None else least, nearest)
    return width + divisor if width < 0.9 * value else width
