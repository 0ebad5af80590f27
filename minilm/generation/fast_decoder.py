"""The model's forward pass for generation: the weights of a `Transformer`, and few operations a block.

For one token a module call costs as much as the product in it, so every option of the model is written here a
second time, without modules. What something outside has put into the model (an adapter, a hook) would be
bypassed: `FastDecoder` refuses a model that is not exactly what its config builds. Only quantized layers may
stand in it.

Shapes: b sequences, t tokens, n keys, h query heads, g key/value heads, k head width, d model width,
V vocabulary, m rows and i inputs of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypedDict
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from minilm.config import ModelConfig
from minilm.costs.generation_memory import KERNEL_ROWS
from minilm.generation.token_attention import TokenAttention
from minilm.generation.token_graph import TokenGraph
from minilm.generation.tuned_linear import TunedLinear, choose_ways
from minilm.generation.unmodified import GLOBAL_HOOKS, ModifiedModelError, check_unmodified
from minilm.model.attention import fused_attention, without_plans
from minilm.model.kv_cache import BlockKVCache, KVCache, Positions
from minilm.model.layers import apply_activation
from minilm.model.ngrams import ngram_rows
from minilm.model.rope import rotate
from minilm.model.transformer import Block, Transformer
from minilm.transforms.quantize import QuantizedLinear, has_kernel, joined_layers


class Choices(TypedDict):
    """By measurement: the way of a product, of each shape of a matrix by rows, and the dtype of attention."""

    products: dict[str, dict[int, str]]
    attention: dict[int, str]  # by number of texts


class FastDecoder:
    """Tokens (b, t) after those of a cache, which are added to it -> logits (b, V) of the next token."""

    def __init__(self, model: Transformer, *, compiled: bool = False, tune: bool = False) -> None:
        """The weights of ``model`` are used in place, but for query, key, value and copies by tuning.

        On CUDA the pass of one token is captured as a graph; ``compiled``: it is compiled. With ``tune``, on
        a CPU, products of as many rows as a cache has sequences are computed in the way that is measured to
        be faster when it is made. Layers may be quantized on a CPU, uncompiled. Raises ModifiedModelError. Of
        what is modified later only forward hooks are seen: a call then raises it too.
        """
        is_on_cpu = all(each.device.type == "cpu" for each in model.parameters())
        check_unmodified(model, packed=is_on_cpu and not compiled)
        self._hooks = [
            *GLOBAL_HOOKS,
            *(module._forward_hooks for module in model.modules()),
            *(module._forward_pre_hooks for module in model.modules()),
        ]
        self.model, self.config, self.compiled = model, model.config, compiled
        self.device, self.dtype = model.lm_head.weight.device, model.lm_head.weight.dtype
        self._embedding = model.embedding
        self._attention = TokenAttention(model.config.num_heads, self.dtype, self.device)
        with torch.no_grad():
            blocks = [
                FastBlock(block, model.config, self._attention)  # type: ignore[arg-type]
                for block in model.blocks
            ]
        self._blocks = [blocks[number] for number in model.config.block_order]
        self._final_norm = _norm(model.final_norm)
        self._lm_head = TunedLinear(model.lm_head.weight, None)
        self._tune = tune and self.device.type == "cpu" and not compiled

        self._graphs: WeakKeyDictionary[KVCache, TokenGraph] = WeakKeyDictionary()
        self._compiled_forward = self._forward
        if compiled:
            self._compiled_forward = torch.compile(
                self._forward, mode="reduce-overhead", dynamic=False
            )
            # What stays where it is need not be copied into a graph.
            for tensor in (*model.parameters(), *self._fused()):
                torch._dynamo.mark_static_address(tensor)

    def new_cache(self, sequences: int, max_length: int) -> KVCache:
        """An empty cache for that many sequences of at most ``max_length`` tokens."""
        cache = KVCache(
            self.config,
            sequences,
            max_length=max_length,
            device=self.device,
            dtype=self.dtype,
            fixed_shapes=self.compiled or self.device.type == "cuda",
        )
        if self.compiled:
            for tensor in cache.tensors():
                torch._dynamo.mark_static_address(tensor)
        if self._tune and sequences <= TunedLinear.MAX_ROWS:
            choose_ways(self._products(), sequences, list(self._packed()))
            self._attention.choose(cache)
        return cache

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        self._check_hooks()
        t = tokens.shape[1]
        forward = self._compiled_forward if cache.fixed_shapes and t == 1 else self._forward
        with without_plans(self.device):
            if cache.fixed_shapes and t == 1 and not self.compiled:
                logits = self._graph(cache)(tokens, cache)
            else:
                logits = forward(tokens, cache, cache.next_positions(t))
        cache.advance(t)
        return logits

    @property
    def choices(self) -> Choices:
        """As measured."""
        chosen = [product for product in self._products() if product.chosen]
        products = {" x ".join(map(str, each.weight.shape)): each.chosen for each in chosen}
        return {"products": products, "attention": self._attention.chosen}

    def _products(self) -> Iterator[TunedLinear]:
        for block in dict.fromkeys(self._blocks):
            yield from (each for each in block.products if isinstance(each, TunedLinear))
        yield self._lm_head

    def _packed(self) -> Iterator[Tensor]:
        for block in dict.fromkeys(self._blocks):
            yield from (each.codes for each in block.products if isinstance(each, PackedLinear))

    def all_logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """(b, t, V): the logits after each of the tokens."""
        self._check_hooks()
        b, t = tokens.shape
        with without_plans(self.device):
            x = self._features(tokens, cache, cache.next_positions(t))
            logits = self._lm_head(self._final_norm(x)).view(b, t, -1)
        cache.advance(t)
        return logits

    def _check_hooks(self) -> None:
        if any(self._hooks):
            raise ModifiedModelError(
                "model", "a forward hook added since this decoder was made", "none"
            )

    def _graph(self, cache: KVCache) -> TokenGraph:
        """The graph of that cache, on CUDA."""
        if cache not in self._graphs:
            self._graphs[cache] = TokenGraph(self._forward, len(cache.lengths), self.device)
        return self._graphs[cache]

    def _fused(self) -> Iterator[Tensor]:
        for block in self._blocks:
            for product in block.query_key_value:
                assert isinstance(product, TunedLinear), "quantized layers are not compiled"
                yield product.weight
                if product.bias is not None:
                    yield product.bias

    def _forward(self, tokens: Tensor, cache: KVCache, positions: Positions) -> Tensor:
        b, t = tokens.shape
        x = self._features(tokens, cache, positions)
        last = x if t == 1 else x.view(b, t, -1)[:, -1]
        return self._lm_head(self._final_norm(last))

    def _features(self, tokens: Tensor, cache: KVCache, positions: Positions) -> Tensor:
        """(b, t) -> (b·t, d), what the final norm is given."""
        b, t = tokens.shape
        embedding = self._embedding
        x = F.embedding(tokens.flatten(), embedding.token.weight)
        if embedding.position is not None:
            x = x + F.embedding(positions.index.flatten(), embedding.position.weight)
        if embedding.ngram is not None:
            extended = cache.extend_tokens(tokens)
            rows = ngram_rows(extended, embedding.longest_ngram, embedding.ngram_rows)[:, -t:]
            x = x + F.embedding(rows, embedding.ngram.weight).sum(dim=2).view(b * t, -1)
        for block, block_cache in zip(self._blocks, cache.blocks, strict=True):
            x = block(x, block_cache, positions)
        return x


class FastBlock:
    """(b·t, d) -> (b·t, d). Query, key and value are one product."""

    def __init__(self, block: Block, config: ModelConfig, token_attention: TokenAttention) -> None:
        self.token_attention = token_attention
        attention, feed_forward = block.attention, block.feed_forward
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        self.window, self.parallel = config.sliding_window, config.parallel_residual
        self.activation = config.feed_forward
        self.taps = list(block.convolution.weight) if block.convolution is not None else []
        self.attention_norm = _norm(block.attention_norm)
        self.feed_forward_norm = _norm(block.feed_forward_norm)
        self.query_key_value = _joined(attention.query, attention.key, attention.value)
        self.query_norm = self.key_norm = None
        if attention.query_norm is not None and attention.key_norm is not None:
            self.query_norm, self.key_norm = _norm(attention.query_norm), _norm(attention.key_norm)
        self.output = _split(attention.output)
        self.gate = _split(feed_forward.gate) if feed_forward.gate is not None else None
        self.up, self.down = _split(feed_forward.up), _split(feed_forward.down)
        self.products = (*self.query_key_value, self.output, self.gate, self.up, self.down)

    def __call__(self, x: Tensor, cache: BlockKVCache, positions: Positions) -> Tensor:
        if self.taps:
            x = self._convolve(x, cache)
        after = x + self.output(self._attend(self.attention_norm(x), cache, positions))
        normed = self.feed_forward_norm(x if self.parallel else after)
        gate = self.gate(normed) if self.gate is not None else None
        return after.add_(self.down(apply_activation(self.activation, self.up(normed), gate)))

    def _convolve(self, x: Tensor, cache: BlockKVCache) -> Tensor:
        b, taps, d = cache.convolution_inputs.shape
        inputs = cache.extend_inputs(x.reshape(b, -1, d))  # b (c + t) d
        total = inputs[:, taps:]
        t = total.shape[1]
        for distance, weight in enumerate(self.taps, start=1):
            total = torch.addcmul(total, inputs[:, taps - distance :][:, :t], weight)
        return total.reshape(b * t, d)

    def _attend(self, x: Tensor, cache: BlockKVCache, positions: Positions) -> Tensor:
        """(b·t, d) -> (b·t, h·k), and the cache has the keys and values."""
        h, g, k = self.num_heads, self.num_kv_heads, self.head_dim
        b, t = positions.index.shape
        # Contiguous, or scaled_dot_product_attention takes its slow path.
        projected = _side_by_side(self.query_key_value, x).contiguous()
        heads = projected.view(b, t, h + 2 * g, k).transpose(1, 2)
        queries_and_keys, value = heads.split_with_sizes((h + g, g), dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = queries_and_keys.split_with_sizes((h, g), dim=1)
            queries_and_keys = torch.cat((self.query_norm(query), self.key_norm(key)), dim=1)
        if positions.rotation is not None:
            queries_and_keys = rotate(queries_and_keys, *positions.rotation)
        query, key = queries_and_keys.split_with_sizes((h, g), dim=1)  # b h t k, b g t k
        key, value = cache.update(key, value, positions)  # b g n k
        if t == 1:
            # Queries that share a key stand where tokens would.
            query = query.reshape(b, g, h // g, k)
            return self.token_attention(query, key, value, positions.mask).reshape(b, h * k)
        key, value = (each.repeat_interleave(h // g, dim=1) for each in (key, value))
        if positions.first:
            attended = fused_attention(query, key, value, window=self.window, dropout=0.0)
        else:
            attended = F.scaled_dot_product_attention(query, key, value, positions.mask)
        return rearrange(attended, "b h t k -> (b t) (h k)")


class PackedLinear:
    """(m, i) -> (m, o): a quantized layer, of few rows without what its module does around the product."""

    def __init__(self, layer: QuantizedLinear) -> None:
        self._layer, self._bias, self.codes = layer, layer.bias, layer.codes
        shape = layer.out_features, layer.in_features
        self._most_rows = KERNEL_ROWS if has_kernel(layer.format, shape, layer.codes.device) else 0

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > self._most_rows or not torch.is_inference_mode_enabled():
            by_module: Tensor = self._layer(x)
            return by_module
        product = self._layer.multiply_codes(x.bfloat16())
        return (product if self._bias is None else product + self._bias).to(x.dtype)


Product = TunedLinear | PackedLinear


def _split(layer: nn.Linear | QuantizedLinear) -> Product:
    if isinstance(layer, QuantizedLinear):
        return PackedLinear(layer)
    return TunedLinear(layer.weight, layer.bias)


def _joined(*layers: nn.Linear | QuantizedLinear) -> tuple[Product, ...]:
    """One product for all, unless they are quantized differently: then one for each."""
    floats = [layer for layer in layers if isinstance(layer, nn.Linear)]
    packed = [layer for layer in layers if isinstance(layer, QuantizedLinear)]
    packings = {(layer.format, layer.group_size) for layer in packed}
    if len(packings) + bool(floats) > 1:
        return tuple(map(_split, layers))
    if packed:
        return (PackedLinear(joined_layers(packed)),)
    biases: list[Tensor] = [layer.bias for layer in floats if layer.bias is not None]
    weight = torch.cat([layer.weight for layer in floats])
    return (TunedLinear(weight, torch.cat(biases) if biases else None),)


def _side_by_side(products: tuple[Product, ...], x: Tensor) -> Tensor:
    """(m, i) -> (m, all outputs)."""
    if len(products) == 1:
        return products[0](x)
    return torch.cat([product(x) for product in products], dim=1)


def _norm(module: nn.LayerNorm | nn.RMSNorm) -> Callable[[Tensor], Tensor]:
    shape, weight, epsilon = module.normalized_shape, module.weight, module.eps
    if isinstance(module, nn.RMSNorm):
        return lambda x: torch.rms_norm(x, shape, weight, epsilon)
    bias = module.bias
    assert epsilon is not None
    return lambda x: torch.layer_norm(x, shape, weight, bias, epsilon)
