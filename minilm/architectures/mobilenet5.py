"""MobileNetV5, timm's encoder of pictures in Gemma 3n: convolutions, then attention and maps by turns.

Every norm is a gain alone. Names and shapes: huggingface/pytorch-image-models `timm/models/mobilenetv5.py`
(mobilenetv5_300m_enc).
"""

from __future__ import annotations

from minilm.architectures.vision_parts import NOTHING, convolution, in_layers, joined, under
from minilm.architectures.vision_tower import Part, changed, gain, once
from minilm.ledger import components

_WIDTHS = (64, 128, 256, 640, 1280)  # of the stem and of each stage
OUTPUTS = 2048


def mobilenet5(name: str) -> Part:
    """All of it below ``name``; nothing in it is a config's."""
    whole = under(f"{name}.", _stem_and_stages())
    return changed(whole, lambda _: {"component": components.VISION})


def _stem_and_stages() -> Part:
    stem, first, second, third, last = _WIDTHS
    smaller, larger = (_attention(third, 12, 64, fewer=True), _attention(last, 16, 96, fewer=False))
    return joined(
        _normed("conv_stem", stem, 3, 3, bias=True),
        under("blocks.0.0.", _edge(stem, first)),
        in_layers(under("blocks.0.{i}.", _edge(first, first)), 2, range(1, 3)),
        under("blocks.1.0.", _inverted(first, second, 3, 5, 6)),
        in_layers(under("blocks.1.{i}.", _inverted(second, second, 5, 0, 4)), 2, range(1, 5, 2)),
        in_layers(under("blocks.1.{i}.", _inverted(second, second, 3, 0, 4)), 2, range(2, 5, 2)),
        under("blocks.2.0.", _inverted(second, third, 5, 5, 6)),
        in_layers(under("blocks.2.{i}.", _inverted(third, third, 5, 0, 4)), 7, range(1, 8)),
        under("blocks.2.8.", _inverted(third, third, 0, 0, 1)),
        in_layers(under("blocks.2.{i}.", smaller), 14, range(9, 37, 2)),
        in_layers(under("blocks.2.{i}.", _inverted(third, third, 0, 0, 2)), 14, range(10, 37, 2)),
        under("blocks.3.0.", _inverted(third, last, 5, 5, 6)),
        in_layers(under("blocks.3.{i}.", larger), 19, range(1, 39, 2)),
        in_layers(under("blocks.3.{i}.", _inverted(last, last, 0, 0, 2)), 19, range(2, 39, 2)),
        _expanded("msfa.ffn.", third + last, OUTPUTS, 2),
        Part((gain("msfa.norm", OUTPUTS),)),
    )


def _normed(name: str, outputs: int, inputs: int, kernel: int, *, bias: bool = False) -> Part:
    """A convolution, and the norm of what it puts out."""
    own = convolution(f"{name}.conv", outputs, inputs, kernel, bias=bias)
    return joined(own, Part((gain(f"{name}.bn", outputs),)))


def _scale(width: int) -> Part:
    return Part((once("layer_scale.gamma", (width,)),))


def _edge(inputs: int, outputs: int) -> Part:
    """A convolution to four times as many channels, and a map back."""
    return joined(
        convolution("conv_exp", 4 * inputs, inputs, 3),
        Part((gain("bn1", 4 * inputs),)),
        convolution("conv_pwl", outputs, 4 * inputs),
        Part((gain("bn2", outputs),)),
    )


def _expanded(prefix: str, inputs: int, outputs: int, times: int) -> Part:
    """A map to so many times the channels, and one back."""
    return joined(
        _normed(f"{prefix}pw_exp", times * inputs, inputs, 1),
        _normed(f"{prefix}pw_proj", outputs, times * inputs, 1),
    )


def _inverted(inputs: int, outputs: int, before: int, between: int, times: int) -> Part:
    """The maps with filters of each channel before and between them, of such sides, 0 for none."""
    return joined(
        _normed("dw_start", inputs, 1, before) if before else NOTHING,
        _expanded("", inputs, outputs, times),
        _normed("dw_mid", times * inputs, 1, between) if between else NOTHING,
        _scale(outputs),
    )


def _attention(width: int, heads: int, head: int, *, fewer: bool) -> Part:
    """One key and one value for all heads, of ``fewer`` places by a filter."""

    def shared(name: str) -> Part:
        filtered = joined(
            convolution(f"attn.{name}.down_conv", width, 1, 3),
            Part((gain(f"attn.{name}.norm", width),)),
        )
        own = convolution(f"attn.{name}.proj", head, width)
        return joined(filtered, own) if fewer else own

    return joined(
        Part((gain("norm", width),)),
        convolution("attn.query.proj", heads * head, width),
        shared("key"),
        shared("value"),
        convolution("attn.output.proj", width, heads * head),
        _scale(width),
    )
