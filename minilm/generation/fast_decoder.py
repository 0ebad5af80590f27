"""The model as generation runs it: the weights of a `Transformer`, few operations a block, and a cache.

For one token a module call costs as much as the product in it. Every option of the model is written here a
second time; tests/generation/test_fast_decoder.py holds the two against each other.

Shapes: b sequences, t tokens, h query heads, g key/value heads, k head width, d model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.model.attention import fused_attention
from minilm.model.kv_cache import BlockCache, Cache, Step
from minilm.model.layers import activated
from minilm.model.ngrams import ngram_rows
from minilm.model.rope import rotate
from minilm.model.transformer import Block, Transformer


class Product:
    """(m, i) -> (m, o): times a matrix (o, i), plus a bias.

    On a CPU, torch gives a product of few rows to one thread, which reads the matrix at half of what memory
    can; cut into parts it goes to all (docs/performance.md).
    """

    FEW_ROWS = 32

    def __init__(self, weight: Tensor, bias: Tensor | None, *, cut: bool = True) -> None:
        self.weight, self.bias = weight, bias
        self.width = weight.shape[1]
        # At least two parts a thread; the rows that do not divide are a product of their own.
        self.parts = 2 * max(2, torch.get_num_threads())
        rows = weight.shape[0] // self.parts * self.parts
        self.cut = (
            cut and rows > 0 and weight.device.type == "cpu" and weight.dtype == torch.float32
        )
        if self.cut:
            self.matrices = weight[:rows].view(self.parts, -1, self.width)
            self.biases = None if bias is None else bias[:rows].view(self.parts, -1, 1)
            self.rest = None
            if rows < weight.shape[0]:
                rest = None if bias is None else bias[rows:]
                self.rest = Product(weight[rows:], rest, cut=False)

    def __call__(self, x: Tensor) -> Tensor:
        m = x.shape[0]
        if not self.cut or m > self.FEW_ROWS:
            return F.linear(x, self.weight, self.bias)
        columns = x.t().expand(self.parts, self.width, m)
        if self.biases is None:
            made = torch.bmm(self.matrices, columns)
        else:
            made = torch.baddbmm(self.biases, self.matrices, columns)
        made = made.view(1, -1) if m == 1 else made.view(-1, m).t()
        return made if self.rest is None else torch.cat((made, self.rest(x)), dim=1)


class DecoderBlock:
    """(b·t, d) -> (b·t, d). Query, key and value come of one product."""

    def __init__(self, block: Block, config: ModelConfig) -> None:
        attention, feed_forward = block.attention, block.feed_forward
        self.heads, self.kv_heads, self.head_dim = (
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
        )
        self.window, self.parallel = config.sliding_window, config.parallel_residual
        self.activation = config.feed_forward
        self.taps = list(block.convolution.weight) if block.convolution is not None else []
        self.attention_norm, self.feed_forward_norm = (
            _norm(block.attention_norm),
            _norm(block.feed_forward_norm),
        )
        inputs = (attention.query, attention.key, attention.value)
        biases: list[Tensor] = [each.bias for each in inputs if each.bias is not None]
        self.query_key_value = Product(
            torch.cat([each.weight for each in inputs]), torch.cat(biases) if biases else None
        )
        self.query_norm = self.key_norm = None
        if attention.query_norm is not None and attention.key_norm is not None:
            self.query_norm, self.key_norm = _norm(attention.query_norm), _norm(attention.key_norm)
        self.output = _product(attention.output)
        self.gate = _product(feed_forward.gate) if feed_forward.gate is not None else None
        self.up, self.down = _product(feed_forward.up), _product(feed_forward.down)

    def __call__(self, x: Tensor, kept: BlockCache, step: Step) -> Tensor:
        if self.taps:
            x = self._convolved(x, kept.recent)
        after = x + self.output(self._attended(self.attention_norm(x), kept, step))
        normed = self.feed_forward_norm(x if self.parallel else after)
        gate = self.gate(normed) if self.gate is not None else None
        return after.add_(self.down(activated(self.activation, self.up(normed), gate)))

    def _convolved(self, x: Tensor, recent: Tensor) -> Tensor:
        """``recent``, (b, c, d), stands before the inputs, and is moved on to the last of them."""
        b, taps, d = recent.shape
        inputs = torch.cat((recent, x.reshape(b, -1, d)), dim=1)
        t = inputs.shape[1] - taps
        recent.copy_(inputs[:, t:])
        mixed = inputs[:, taps:]
        for distance, weight in enumerate(self.taps, start=1):
            mixed = torch.addcmul(mixed, inputs[:, taps - distance :][:, :t], weight)
        return mixed.reshape(b * t, d)

    def _attended(self, x: Tensor, kept: BlockCache, step: Step) -> Tensor:
        """(b·t, d) -> (b·t, h·k), and the cache has the keys and values."""
        h, g, k, b = self.heads, self.kv_heads, self.head_dim, kept.key.shape[0]
        # Contiguous, or scaled_dot_product_attention takes its slow path.
        made = self.query_key_value(x).contiguous()
        parts = made.view(b, -1, h + 2 * g, k).transpose(1, 2)
        query, key, value = torch.split(parts, [h, g, g], dim=1)  # b h t k, b g t k
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if step.rotation is not None:
            query, key = rotate(query, *step.rotation), rotate(key, *step.rotation)
        kept.keep(key, value, step)
        if step.first:
            key, value = (each.repeat_interleave(h // g, dim=1) for each in (key, value))
            mixed = fused_attention(query, key, value, window=self.window, dropout=0.0)
            return rearrange(mixed, "b h t k -> (b t) (h k)")
        # Queries that share a key stand where tokens would.
        mixed = F.scaled_dot_product_attention(
            query.reshape(b, g, h // g, k), *kept.seen(step), attn_mask=step.visible
        )
        return mixed.reshape(b, h * k)


class Decoder:
    """Tokens (b, t) after those of a cache, which keeps them too -> logits (b, V) of what follows."""

    def __init__(self, model: Transformer, *, compiled: bool = False) -> None:
        """``model`` is in eval mode; its weights are used in place, but for query, key and value.

        ``compiled``: the step of one token is, on CUDA into a graph.
        """
        self.model, self.config, self.compiled = model, model.config, compiled
        self.device, self._dtype = model.lm_head.weight.device, model.lm_head.weight.dtype
        self._embedding = model.embedding
        with torch.no_grad():
            self._blocks = [DecoderBlock(block, model.config) for block in model.blocks]  # type: ignore[arg-type]
        self._final_norm = _norm(model.final_norm)
        self._head = Product(model.lm_head.weight, None)

        self._compiled = self._run
        if compiled:
            self._compiled = torch.compile(self._run, mode="reduce-overhead", dynamic=False)
            # What stays where it is need not be copied into a graph.
            for tensor in (*model.parameters(), *self._fused()):
                torch._dynamo.mark_static_address(tensor)

    def cache(self, sequences: int, size: int) -> Cache:
        """Room for that many sequences of at most ``size`` tokens."""
        cache = Cache(
            self.config,
            sequences,
            size=size,
            device=self.device,
            dtype=self._dtype,
            fixed_shapes=self.compiled,
        )
        if self.compiled:
            for tensor in cache.tensors():
                torch._dynamo.mark_static_address(tensor)
        return cache

    def __call__(self, tokens: Tensor, cache: Cache) -> Tensor:
        """The first tokens of each sequence, or the next one of each."""
        t, first = tokens.shape[1], not any(cache.lengths)
        step = cache.first_step(t) if first else cache.next_step()
        run = self._compiled if cache.fixed_shapes and not first else self._run
        logits = run(tokens, cache, step)
        cache.advance(t)
        return logits

    def _fused(self) -> Iterator[Tensor]:
        for block in self._blocks:
            product = block.query_key_value
            yield product.weight
            if product.bias is not None:
                yield product.bias

    def _run(self, tokens: Tensor, cache: Cache, step: Step) -> Tensor:
        b, t = tokens.shape
        embedding = self._embedding
        x = F.embedding(tokens.flatten(), embedding.token.weight)
        if embedding.position is not None:
            position = F.embedding(step.positions, embedding.position.weight)
            x = x + (position.repeat(b, 1) if step.first and b > 1 else position)
        if embedding.ngram is not None:
            known = torch.cat((cache.tokens, tokens), dim=1)
            cache.tokens.copy_(known[:, t:])
            rows = ngram_rows(known, embedding.longest_ngram, embedding.ngram_rows)[:, -t:]
            x = x + F.embedding(rows, embedding.ngram.weight).sum(dim=2).view(b * t, -1)
        for block, kept in zip(self._blocks, cache.blocks, strict=True):
            x = block(x, kept, step)
        last = x if t == 1 else x.view(b, t, -1)[:, -1]
        return self._head(self._final_norm(last))


def _product(linear: nn.Linear) -> Product:
    return Product(linear.weight, linear.bias)


def _norm(module: nn.LayerNorm | nn.RMSNorm) -> Callable[[Tensor], Tensor]:
    shape, weight, epsilon = module.normalized_shape, module.weight, module.eps
    if isinstance(module, nn.RMSNorm):
        return lambda x: torch.rms_norm(x, shape, weight, epsilon)
    bias = module.bias
    return lambda x: torch.layer_norm(x, shape, weight, bias, module.eps)
