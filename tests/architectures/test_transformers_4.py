"""What transformers 4 builds otherwise than version 5, by the `transformers_version` of a config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minilm
from minilm.architectures import layout_of_class

# Counts of transformers 4.57.1, which ties what version 5 does not.
_ROWS = {"vocab_size": 50, "d_model": 8}
_LAYERS = {"num_layers": 1, "num_heads": 2, "d_ff": 12, "d_kv": 4}
VERSION_4: dict[str, tuple[str, dict[str, Any], int]] = {
    "BigBirdPegasusForCausalLM": (
        "bigbird_pegasus",
        {**_ROWS, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 12},
        33_956,
    ),
    "CpmAntForCausalLM": (
        "cpmant",
        {"vocab_size": 50, "hidden_size": 8, "num_attention_heads": 2, "dim_head": 4, "dim_ff": 12},
        38_808,
    ),
    "SamModel": ("sam", {}, 93_735_472),  # the positions are a buffer, of 2 x 128 numbers
    "LukeForMaskedLM": (
        "luke",
        {
            "vocab_size": 50,
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 12,
            "entity_vocab_size": 20,
            "entity_emb_size": 6,
        },
        9_868,
    ),
    "Pop2PianoForConditionalGeneration": ("pop2piano", {**_ROWS, **_LAYERS}, 2_096),
    "UdopForConditionalGeneration": ("udop", {**_ROWS, **_LAYERS}, 24_528),
}


@pytest.mark.parametrize("class_name", VERSION_4)
def test_what_transformers_4_ties(class_name: str) -> None:
    model_type, fields, count = VERSION_4[class_name]
    config = {"model_type": model_type, "architectures": [class_name], **fields}
    layout, other = (
        layout_of_class(config | {"transformers_version": version}) for version in ("4.57.1", "5.0")
    )
    assert layout is not None
    assert other is not None
    assert layout.count() == count != other.count()


@pytest.mark.parametrize("version", [None, "4.57.1", "5.0"])
def test_a_version_that_is_not_said_is_noted_where_it_matters(
    version: str | None, tmp_path: Path
) -> None:
    """Mistral 3, whose version 5 ties what version 4 did not."""
    config = {"model_type": "mistral3", "architectures": ["Mistral3ForConditionalGeneration"]}
    config |= {"transformers_version": version} if version else {}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    report = minilm.inspect(tmp_path / "config.json")
    older = layout_of_class(config | {"transformers_version": "4.57.1"})
    assert older is not None
    note = f"one that version 4 wrote has {older.count():,} parameters"
    assert any(note in each for each in report.notes) == (version is None)
    assert (report.parameters.total == older.count()) == (version == "4.57.1")
