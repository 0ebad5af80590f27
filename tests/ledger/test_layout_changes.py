"""The closed form of adapters, and which targets and ranks a model has."""

import pytest

from minilm.architectures.minilm import layout as minilm_layout
from minilm.config import ModelConfig
from minilm.config.presets import preset
from minilm.errors import ConfigError
from minilm.ledger.layout_changes import with_adapters
from minilm.ledger.symbols import letter_meaning

DEFAULT = ("query", "key", "value", "output")


def test_a_matrix_gets_rank_times_both_its_sides() -> None:
    config = ModelConfig(d_model=48, num_heads=8, num_kv_heads=2, d_feed_forward=100, num_layers=3)
    layout = minilm_layout(config)
    adapted = with_adapters(layout, (*DEFAULT, "down"), 5)
    # query and output 48 x 48, key and value 12 x 48, down 48 x 100
    expected = 3 * 5 * (2 * (48 + 48) + 2 * (12 + 48) + (48 + 100))
    assert adapted.trainable() == expected
    assert adapted.count() == layout.count() + expected
    assert adapted.trainable_formula().symbolic == "7*L*d*r + L*f*r + 2*L*g*k*r"


def test_the_formula_of_the_default_targets() -> None:
    layout = with_adapters(minilm_layout(preset("nano")), DEFAULT, 8)
    assert layout.trainable_formula().symbolic == "8*L*d*r"
    assert letter_meaning("r", layout.family) == "adapter rank"
    assert layout.trainable() == 8 * 4 * 128 * 8


def test_a_tied_head_has_an_adapter_of_its_own() -> None:
    config = ModelConfig(vocab_size=70, d_model=16, num_heads=2, tied_embeddings=True)
    adapted = with_adapters(minilm_layout(config), ("lm_head",), 4)
    assert adapted.trainable_formula().symbolic == "V*r + d*r"
    assert adapted.trainable() == 4 * (70 + 16)


@pytest.mark.parametrize(
    ("targets", "rank", "message"),
    [
        (("query", "gate"), 4, "targets: 'gate', expected any of query, key, value, output, up"),
        (("query", "qurey"), 4, "targets: 'qurey'"),
        (("query",), 17, "lora_rank: 17, expected from 1 to 16, the narrower side of blocks"),
        (("query",), 0, "lora_rank: 0"),
    ],
)
def test_what_does_not_fit(targets: tuple[str, ...], rank: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_adapters(minilm_layout(ModelConfig(d_model=16, num_heads=2)), targets, rank)
