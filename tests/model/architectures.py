"""Configs that together have every option of the model, and what each is chosen for."""

from __future__ import annotations

from typing import Any

from tests.interop.shapes import GATED, SHAPES, TINY

ARCHITECTURES: dict[str, dict[str, Any]] = {
    name: fields for name, (_, fields) in SHAPES.items()
} | {
    "ngram": TINY | {"ngram": 3, "ngram_rows": 100},
    "convolution": TINY | {"convolution": 2},
    "fast": TINY | {"ngram": 4, "ngram_rows": 64, "convolution": 3, "sliding_window": 4},
    "learned-window": TINY | {"position": "learned", "sliding_window": 6, "num_kv_heads": 2},
    "qk-norm-layernorm": TINY | {"qk_norm": True, "feed_forward": "relu2"},
    "shared-cycle": TINY
    | {"num_layers": 5, "shared_layers": 2, "sharing": "cycle", "num_kv_heads": 2},
    "shared-group": GATED | {"num_layers": 5, "shared_layers": 2, "convolution": 2},
    "window-of-one": GATED | {"sliding_window": 1},
    "window-longer-than-context": TINY | {"sliding_window": 100},
}
