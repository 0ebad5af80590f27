"""torch's own quantized modules (torch.ao.nn.quantized), dynamic ones too: 8-bit weights.

`X.weight` is a quantized tensor, whose scale the checkpoint holds within it; `X.scale` and
`X.zero_point` are those of the module's output (torch/ao/nn/quantized/modules/linear.py).
"""

from __future__ import annotations

from minilm.formats.header import StoredTensor
from minilm.quantization.checkpoint import Checkpoint, Decoded

DTYPES = ("int8", "uint8")


def decode_torch_quantized(values: StoredTensor, checkpoint: Checkpoint) -> Decoded | None:
    """`X.weight` beside one scale and one zero point of the output."""
    module = values.name.removesuffix("weight")
    if module == values.name or values.dtype not in DTYPES:
        return None
    output = checkpoint.companions(module, "scale", "zero_point")
    if len(output) != 2 or any(tensor.count != 1 for tensor in output):
        return None
    return Decoded(values.name, values.shape, values.dtype, "torch", output)
