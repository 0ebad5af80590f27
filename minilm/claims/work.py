"""Claim 5: work grows with tokens, weights do not.

Floating-point operations are counted by torch as they are dispatched, not timed, for several numbers of
tokens: aT + bT² must give each. The parameters are hashed before and after text is generated. The KV
cache grows with tokens, but it is state. Seconds are given beside, of no consequence for the verdict, and
both by parameters too, of the model with fewer layers.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.protocol import Finding, Interval, Region, Rule
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.costs.flops import flops_per_token
from minilm.model.digest import tensor_sha256
from minilm.model.kv_cache import KVCache
from minilm.model.transformer import Transformer
from minilm.render.line_chart import LineChart, line_chart
from minilm.transforms.structure import keep_layers

GENERATED = 64  # tokens at most
LENGTHS = 6

WORK = Rule(
    name="work/tokens",
    statement="work is aT + bT² of T tokens",
    statistic="largest relative difference of counted FLOPs from aT + bT², infinite where a <= 0",
    unit="of the counted FLOPs",
    supported=Region(0, 0.02),
    contradicted=Region(0.02),
    least=4,
    units="lengths",
)
WEIGHTS = Rule(
    name="work/weights",
    statement="weights stay as they are when text is generated",
    statistic="tensors whose SHA-256 is another after generating",
    unit="tensors",
    supported=Region(0, 0),
    contradicted=Region(0),
)
RULES = (WORK, WEIGHTS)


def measure(subject: Subject) -> list[Finding]:
    """Both findings."""
    return [_work(subject), _weights(subject)]


def _work(subject: Subject) -> Finding:
    model = subject.model
    longest = subject.blocks.tokens.shape[1]
    lengths = sorted({max(1, longest * part // LENGTHS) for part in range(1, LENGTHS + 1)})
    flops = np.array([counted_flops(model, length) for length in lengths], np.float64)
    t = np.array(lengths, np.float64)
    a, b = np.linalg.lstsq(
        np.stack((t, t**2), axis=1) / flops[:, None], np.ones_like(t), rcond=None
    )[0]
    error = float(np.max(np.abs((a * t + b * t**2) / flops - 1))) if a > 0 else math.inf
    ledger = flops_per_token(minilm_layout(model.config), context=longest)["forward_per_token"]
    depths = [keep_layers(model, range(n)) for n in _depths(model)]
    by_depth = [
        (sum(p.numel() for p in each.parameters()), counted_flops(each, longest)) for each in depths
    ]
    by_length = [_seconds(model, length) for length in lengths]
    timed = [*(_seconds(each, longest) for each in depths[:-1]), by_length[-1]]
    sizes = [parameters for parameters, _ in by_depth]
    seconds = {f"{length} tokens": each for length, each in zip(lengths, by_length, strict=True)}
    for parameters, each in zip(sizes[:-1], timed[:-1], strict=True):
        seconds[f"{longest} tokens, {parameters:,} parameters"] = each
    return Finding(
        WORK,
        Interval.exact(error),
        n=len(lengths),
        trials=len(lengths) + len(by_depth),
        text=(
            f"a = {a:,.0f} and b = {b:,.1f}: of {longest} tokens the part that grows with their square is "
            f"{b * longest / (a + b * longest):.1%}. By the ledger a token at the end of {longest} takes "
            f"{ledger:,} FLOPs."
        ),
        details={"tokens": lengths, "flops": flops.tolist(), "a": float(a), "b": float(b)}
        | {"ledger_per_token": ledger, "by_parameters": by_depth},
        seconds=seconds,
        tables=(
            table(
                "Counted FLOPs",
                {"tokens": "number", "parameters": "number", "FLOPs": "number"},
                [
                    *(
                        (f"{length}", f"{by_depth[-1][0]:,}", f"{each:,.0f}")
                        for length, each in zip(lengths, flops, strict=True)
                    ),
                    *((f"{longest}", f"{n:,}", f"{each:,.0f}") for n, each in by_depth[:-1]),
                ],
            ),
        ),
        charts=(
            line_chart(
                "megaFLOPs by tokens",
                "tokens",
                {
                    "counted": list(zip(lengths, (flops / 1e6).tolist(), strict=True)),
                    "aT + bT²": _curve(lengths[-1], a, b),
                    "aT alone": _curve(lengths[-1], a, 0),
                },
            ),
            _by_parameters("megaFLOPs by parameters", sizes, [each / 1e6 for _, each in by_depth]),
            line_chart(
                "milliseconds by tokens",
                "tokens",
                {"least of three": [(t, 1e3 * s) for t, s in zip(lengths, by_length, strict=True)]},
            ),
            _by_parameters("milliseconds by parameters", sizes, [1e3 * each for each in timed]),
        ),
    )


def _by_parameters(title: str, sizes: list[int], values: list[float]) -> LineChart:
    """Of the model with fewer layers and with all."""
    lines = {"by layers": list(zip(map(float, sizes), values, strict=True))}
    return line_chart(title, "parameters", lines)


def _curve(longest: int, a: float, b: float) -> list[tuple[float, float]]:
    """aT + bT² in millions."""
    return [(t, float(a * t + b * t**2) / 1e6) for t in np.linspace(0, longest, 30).tolist()]


def _depths(model: Transformer) -> list[int]:
    """Numbers of layers, all of them last; of layers that share blocks all alone."""
    layers = model.config.num_layers
    if model.config.num_blocks < layers:
        return [layers]
    return sorted({1, max(1, layers // 2), layers})


@torch.inference_mode()
def counted_flops(model: Transformer, length: int) -> int:
    """Those of one sequence, in the products that torch dispatches, attention as products of its own."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel([SDPBackend.MATH]):
        model(torch.zeros(1, length, dtype=torch.int64))
    return int(counter.get_total_flops())


@torch.inference_mode()
def _seconds(model: Transformer, length: int) -> float:
    """The least of three passes."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        model(torch.zeros(1, length, dtype=torch.int64))
        times.append(time.monotonic() - began)
    return min(times)


@torch.inference_mode()
def _weights(subject: Subject) -> Finding:
    model = subject.model
    before = tensor_sha256(model)
    prompt = subject.blocks.tokens[:1, :1]
    steps = min(GENERATED, model.config.context_length - 1)
    cache = KVCache(model.config, 1)
    began = time.monotonic()
    token = prompt
    for _ in range(steps):
        token = model(token, cache)[:, -1].argmax(-1, keepdim=True)
    seconds = time.monotonic() - began
    after = tensor_sha256(model)
    changed = [name for name in before if before[name] != after[name]]
    return Finding(
        WEIGHTS,
        Interval.exact(len(changed)),
        n=len(before),
        trials=1,
        text=f"{len(before)} tensors, {steps} tokens generated; {len(changed)} tensors changed.",
        details={"tensors": len(before), "tokens": steps, "changed": changed[:10]},
        seconds={f"{steps} tokens generated": seconds},
    )
