"""Which packing a quantization_config states, of those that minilm writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minilm.errors import ConfigError
from minilm.quantization.gptq_packing import GptqPacking
from minilm.quantization.packing import FORMATS, GROUP_SIZES, IntegerPacking, Nf4Packing, Packing
from minilm.quantization.torchao_packing import TorchaoPacking

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
