"""What --fits answers of layers of every kind: sums by hand, and the byte at which the answer changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minilm.architectures import layout_of
from minilm.cli.inspect import main
from minilm.costs.memory import stored_bytes

CONTEXT, BATCH = 3000, 2


class Kind(NamedTuple):
    """``cached``: elements of a sequence's keys and values; ``state``: those that do not grow with it."""

    config: dict[str, Any]
    cached: int
    state: int = 0


KINDS = {
    # 512 latent elements and 64 of the rotated key, whatever the number of heads.
    "latent": Kind({"model_type": "deepseek_v3", "num_hidden_layers": 5}, 5 * CONTEXT * (512 + 64)),
    # And the indexer's keys, of 128.
    "sparse": Kind(
        {"model_type": "deepseek_v32", "num_hidden_layers": 4}, 4 * CONTEXT * (512 + 64 + 128)
    ),
    # Half of 26 layers see 1024 tokens; 4 key/value heads of 256.
    "windows": Kind(
        {"model_type": "gemma2", "num_hidden_layers": 26, "sliding_window": 1024},
        13 * (CONTEXT + 1024) * 2 * 4 * 256,
    ),
    # 1536 channels, each with 16 states and 4 inputs of the convolution.
    "recurrent": Kind({"model_type": "mamba"}, 0, 32 * 1536 * (16 + 4)),
    # The last inputs of both mixers, and three numbers a channel.
    "RWKV": Kind({"model_type": "rwkv", "num_hidden_layers": 12}, 0, 12 * (2 * 4096 + 3 * 4096)),
    # One layer in eight has 8 key/value heads of 128, the others Mamba with 8192 channels.
    "hybrid": Kind({"model_type": "jamba"}, 4 * CONTEXT * 2 * 8 * 128, 28 * 8192 * (16 + 4)),
    # 3 inputs of 2048 channels in the layers without attention.
    "convolutions": Kind(
        {
            "model_type": "lfm2",
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        },
        6 * CONTEXT * 2 * 8 * 64,
        10 * 2048 * 3,
    ),
    "experts": Kind({"model_type": "mixtral"}, 32 * CONTEXT * 2 * 8 * 128),
    # 35 layers with 2 key/value heads of 256; the last 15 have no keys of their own, and of the first 20
    # four see all tokens.
    "per-layer embeddings": Kind(
        {"model_type": "gemma3n_text"}, (4 * CONTEXT + 16 * 512) * 2 * 2 * 256
    ),
}
BITS = {"float32": 32, "bfloat16": 16}


@pytest.mark.parametrize("name", KINDS)
def test_the_answer_is_the_sum_and_changes_at_its_last_byte(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kind = tmp_path / "config.json", KINDS[name]
    path.write_text(json.dumps(kind.config))

    def asked(budget: int) -> dict[str, dict[str, Any]]:
        sizes = ("--context", str(CONTEXT), "--batch", str(BATCH))
        assert main([str(path), "--fits", f"{budget}B", *sizes, "--json", "-"]) == 0
        rows = json.loads(capsys.readouterr().out)["fits"]
        return {row["precision"]: row for row in rows if row["use"] == "inference"}

    layout = layout_of(kind.config)
    rows = asked(10**15)
    assert {"float32", "bfloat16", "fp8", "int8", "int4", "q4_k_m"} <= rows.keys()
    for precision, row in rows.items():
        if precision in BITS:
            assert row["weights"] == layout.count() * BITS[precision] // 8
        elif precision in ("fp8", "int8", "int4"):
            assert row["weights"] == stored_bytes(layout, precision)
        width = BITS["float32" if precision == "float32" else "bfloat16"] // 8
        assert row["kv_cache"] == BATCH * (width * kind.cached + 4 * kind.state)
        parts = ("weights", "states", "kv_cache", "activations", "overhead")
        assert row["required"] == sum(row[part] for part in parts)
        assert row["states"] == 0
        assert row["overhead"] == 2**29 + -(-sum(row[part] for part in parts[:-1]) // 20)
    for precision in ("bfloat16", "int4"):
        required = rows[precision]["required"]
        enough, short = (asked(budget)[precision] for budget in (required, required - 1))
        assert (enough["fits"], short["fits"]) == (True, False)
        assert enough["max_batch"] == BATCH
        assert short["max_batch"] == BATCH - 1
        assert short["max_context"] < CONTEXT <= enough["max_context"]
