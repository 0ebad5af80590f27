"""How each method of quantization stores a tensor, read off names, dtypes and shapes of a header.

A method is one function: a stored tensor in, what it stands for out; None where it is not the
method's. They are asked in this order. Sources are named in each module.
"""

from __future__ import annotations

from minilm.inspection.quantization.bitsandbytes import four_bits, llm_int8
from minilm.inspection.quantization.blocks import gguf, mxfp4
from minilm.inspection.quantization.compressed import packed, scaled
from minilm.inspection.quantization.integers import gptq_or_awq
from minilm.inspection.quantization.torchao import torchao

METHODS = (gguf, gptq_or_awq, packed, mxfp4, torchao, four_bits, llm_int8, scaled)
