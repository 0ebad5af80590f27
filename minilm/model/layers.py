"""Linear maps, embedding tables, normalisation, causal convolution and feed-forward.

Shapes: b sequences, t tokens, d model width, f feed-forward width, c taps of a convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.model.kv_cache import BlockKVCache, Positions


class Linear(nn.Linear):
    """nn.Linear without initial values: `initialize` fills every parameter once."""

    def reset_parameters(self) -> None:
        """Nothing: torch's own values would be thrown away, and on the meta device cost a second."""


class LMHead(Linear):
    """(b, t, d) -> (b, t, V), without a bias.

    On CUDA the product is as wide as the next multiple of 64, where it is fastest; the weight is not.
    """

    WIDTH = 64

    def __init__(self, d_model: int, vocab_size: int) -> None:
        super().__init__(d_model, vocab_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.padded(x) if x.is_cuda else super().forward(x)

    def padded(self, x: Tensor) -> Tensor:
        """The same logits, from a weight with rows of zeros appended."""
        return F.linear(x, F.pad(self.weight, (0, 0, 0, self.padding)))[..., : self.out_features]

    @property
    def padding(self) -> int:
        """How many rows of zeros that is."""
        return -self.out_features % self.WIDTH


def is_watched(layer: nn.Module) -> bool:
    """Whether it has a hook, or a forward pass of its own, which are passed over where its matrix is used."""
    forward = layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
    return bool(forward or layer._backward_hooks or layer._backward_pre_hooks)


class EmbeddingTable(nn.Embedding):
    """nn.Embedding without initial values: `initialize` fills them."""

    def reset_parameters(self) -> None:
        """Nothing, as in Linear."""


def make_norm(width: int, config: ModelConfig) -> nn.LayerNorm | nn.RMSNorm:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the last dimension."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(width, eps=config.norm_epsilon)
    return nn.LayerNorm(width, eps=config.norm_epsilon, bias=config.norm_bias)


class CausalConvolution(nn.Module):
    """(b, t, d) -> (b, t, d): x[t] + the sum over j < c of weight[j] * x[t - 1 - j], elementwise.

    Before the first token there are zeros; with a cache, the inputs that it holds. As in the Canon layers
    of Allen-Zhu 2025 (arXiv:2512.17351) and the token shift of RWKV (Peng et al. 2023, arXiv:2305.13048).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.convolution, config.d_model))

    def forward(
        self,
        x: Tensor,
        cache: BlockKVCache | None = None,
        positions: Positions | None = None,
    ) -> Tensor:
        if cache is None:
            return self._convolve(x, None if positions is None else positions.index)
        inputs = cache.extend_inputs(x)  # b (c + t) d
        return self._convolve(inputs)[:, -x.shape[1] :]

    def _convolve(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        t, total = x.shape[1], x
        for distance, weight in enumerate(self.weight, start=1):
            distance = min(distance, t)
            earlier = F.pad(x[:, : t - distance], (0, 0, distance, 0))  # b t d
            if index is not None:  # what is before a document's first token is of another one
                earlier = earlier.masked_fill((index < distance)[:, :, None], 0.0)
            total = torch.addcmul(total, earlier, weight)
        return total


class FeedForward(nn.Module):
    """(b, t, d) -> (b, t, d): up, activation, down; with a gate, activation(gate) * up instead.

    SwiGLU and GeGLU: Shazeer 2020 (arXiv:2002.05202). ReLU²: So et al. 2021 (arXiv:2109.08668).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, f, bias = config.d_model, config.d_feed_forward, config.feed_forward_bias
        self.activation = config.feed_forward
        self.gate = Linear(d, f, bias=bias) if config.gated else None
        self.up = Linear(d, f, bias=bias)
        self.down = Linear(f, d, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)  # b t f
        gate = self.gate(x) if self.gate is not None else None
        down: Tensor = self.down(apply_activation(self.activation, up, gate))
        return down


def apply_activation(activation: str, up: Tensor, gate: Tensor | None) -> Tensor:
    """The hidden layer of a feed-forward: up and, with a gated one, gate, (..., f) each -> (..., f)."""
    if gate is not None:
        return (F.silu(gate) if activation == "swiglu" else F.gelu(gate)) * up
    if activation == "relu2":
        return F.relu(up).square()
    return F.gelu(up, approximate="tanh" if activation == "gelu_tanh" else "none")
