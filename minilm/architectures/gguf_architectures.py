"""llama.cpp's architectures whose files say less, more or otherwise than the usual keys: one table."""

from __future__ import annotations

from minilm.architectures.gguf_architecture import GgufArchitecture
from minilm.architectures.gguf_decoders import DECODERS
from minilm.architectures.gguf_encoders import ENCODERS
from minilm.architectures.gguf_layered import LAYERED
from minilm.architectures.gguf_recurrent import RECURRENT

# general.architecture -> what is its own; none for one whose files have the usual keys and tensors.
GGUF_ARCHITECTURES: dict[str, GgufArchitecture] = DECODERS | LAYERED | RECURRENT | ENCODERS
