"""The packings that minilm writes: of a format that is asked for, and of a quantization_config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.errors import ConfigError
from minilm.quantization.gptq_packing import GptqPacking
from minilm.quantization.integer_packing import IntegerPacking
from minilm.quantization.nf4_packing import Nf4Packing
from minilm.quantization.packing import FORMATS, GROUP_SIZES, Packing
from minilm.quantization.torchao_packing import TorchaoPacking


def make_packing(
    format: str, group_size: int | None = None, *, double_quantization: bool = False
) -> Packing:
    """The packing of a format; int4 in groups of 32 by default.

    Raises ConfigError for another size, and for double quantization of another format than nf4.
    """
    if format not in FORMATS:
        raise ConfigError("format", repr(format), f"one of {', '.join(FORMATS)}")
    if double_quantization and format != "nf4":
        raise ConfigError(
            "double_quantization", f"given for {format}", "nf4, whose scales it rounds"
        )
    if format == "int4":
        if group_size is not None and group_size not in GROUP_SIZES:
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise ConfigError("group_size", str(group_size), f"one of {sizes}")
        return IntegerPacking(4, group_size or GROUP_SIZES[0])
    packing = IntegerPacking(8) if format == "int8" else Nf4Packing(double=double_quantization)
    if group_size is not None and group_size != packing.group_size:
        fixed = "a scale for each row" if format == "int8" else "its blocks of 64"
        raise ConfigError("group_size", str(group_size), f"none for {format}, which has {fixed}")
    return packing


# Where each method names the linear layers that are not quantized.
_IGNORED = ("ignore", "llm_int8_skip_modules", "modules_to_not_convert")


def packing_of(config: Mapping[str, Any]) -> Packing:
    """The packing whose `Packing.config` this is. Raises ConfigError for another."""
    ignored: list[str] = next(
        (config[key] for key in _IGNORED if isinstance(config.get(key), list)), []
    )
    for packing in _packings():
        if config == packing.config(ignored):
            return packing
    raise ConfigError(
        "config.json: quantization_config",
        f"quant_method {config.get('quant_method')!r} as minilm does not write it",
        f"one of {', '.join(FORMATS)}",
        "take the model that it was made of",
    )


def _packings() -> list[Packing]:
    return [
        *(IntegerPacking(8), *(IntegerPacking(4, size) for size in GROUP_SIZES)),
        *(Nf4Packing(), Nf4Packing(double=True)),
        *(GptqPacking(8), *(GptqPacking(4, size) for size in GROUP_SIZES), TorchaoPacking()),
    ]
