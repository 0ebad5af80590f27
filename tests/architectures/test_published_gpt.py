"""The GPT-like families against published counts, and what their options change beyond the counts."""

from random import Random
from typing import Any

import pytest

from minilm.architectures import layout_of
from minilm.costs.memory import kv_cache_bytes
from minilm.errors import ConfigError
from minilm.ledger.components import EMBEDDING_PROJECTION, POSITION_EMBEDDING
from minilm.ledger.layout import Layout, Role
from tests.architectures.draws_gpt import DRAWS

# name -> the fields of its config.json that decide the count, where they are not the defaults; the count,
# a tied head once.
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "openai-gpt": ({"model_type": "openai-gpt"}, 116_534_784),
    "gpt2-medium": (
        {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16},
        354_823_168,
    ),
    "cerebras-gpt-256m": (
        {
            "model_type": "gpt2",
            "n_embd": 1088,
            "n_head": 17,
            "n_inner": 4352,
            "n_layer": 14,
            "n_positions": 2048,
        },
        255_977_024,
    ),
    "gpt-neo-125m": (
        {
            "model_type": "gpt_neo",
            "hidden_size": 768,
            "num_heads": 12,
            "num_layers": 12,
            "attention_types": [[["global", "local"], 6]],
            "intermediate_size": None,
        },
        125_198_592,
    ),
    "gpt-neo-1.3b": ({"model_type": "gpt_neo"}, 1_315_575_808),
    "gpt-j-6b": ({"model_type": "gptj"}, 6_050_882_784),
    "gpt-neox-20b": ({"model_type": "gpt_neox"}, 20_554_567_680),
    "pythia-70m": (
        {
            "model_type": "gpt_neox",
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_attention_heads": 8,
            "num_hidden_layers": 6,
            "vocab_size": 50304,
        },
        70_426_624,
    ),
    "pythia-12b": (
        {
            "model_type": "gpt_neox",
            "hidden_size": 5120,
            "intermediate_size": 20480,
            "num_attention_heads": 40,
            "num_hidden_layers": 36,
            "vocab_size": 50688,
        },
        11_846_072_320,
    ),
    "opt-125m": ({"model_type": "opt", "word_embed_proj_dim": 768}, 125_239_296),
    "opt-350m": (
        {
            "model_type": "opt",
            "do_layer_norm_before": False,
            "ffn_dim": 4096,
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "word_embed_proj_dim": 512,
        },
        331_196_416,
    ),
    "opt-66b": (
        {
            "model_type": "opt",
            "_remove_final_layer_norm": False,
            "ffn_dim": 36864,
            "hidden_size": 9216,
            "num_attention_heads": 72,
            "num_hidden_layers": 64,
        },
        65_719_701_504,
    ),
    "bloom-560m": (
        {"model_type": "bloom", "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16},
        559_214_592,
    ),
    "bloom-176b": (
        {"model_type": "bloom", "n_embed": 14336, "n_layer": 70, "num_attention_heads": 112},
        176_247_271_424,
    ),
    "falcon-7b": (
        {"model_type": "falcon", "multi_query": True, "parallel_attn": True, "bias": False},
        6_921_720_704,
    ),
    "falcon-40b": (
        {
            "model_type": "falcon",
            "hidden_size": 8192,
            "multi_query": True,
            "new_decoder_architecture": True,
            "num_attention_heads": 128,
            "num_hidden_layers": 60,
            "num_kv_heads": 8,
        },
        41_303_293_952,
    ),
    "falcon-rw-1b": (
        {
            "model_type": "falcon",
            "alibi": True,
            "bias": True,
            "hidden_size": 2048,
            "multi_query": False,
            "num_attention_heads": 32,
            "num_hidden_layers": 24,
            "parallel_attn": False,
            "vocab_size": 50304,
        },
        1_311_625_216,
    ),
    "mpt-7b": (
        {"model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32, "vocab_size": 50432},
        6_649_286_656,
    ),
    "phi-1": ({"model_type": "phi", "num_key_value_heads": None}, 1_418_270_720),
    "phi-2": (
        {
            "model_type": "phi",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32,
        },
        2_779_683_840,
    ),
    "stablelm-3b-4e1t": ({"model_type": "stablelm"}, 2_795_443_200),
    "stablelm-2-1.6b": (
        {
            "model_type": "stablelm",
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "use_qkv_bias": True,
            "vocab_size": 100352,
        },
        1_644_515_328,
    ),
    "starcoder2-3b": ({"model_type": "starcoder2", "sliding_window": 4096}, 3_030_371_328),
    "starcoder2-15b": (
        {
            "model_type": "starcoder2",
            "hidden_size": 6144,
            "intermediate_size": 24576,
            "num_attention_heads": 48,
            "num_hidden_layers": 40,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
        },
        15_957_889_024,
    ),
}


def published(name: str) -> Layout:
    return layout_of(PUBLISHED[name][0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_come_out_to_the_digit(name: str) -> None:
    config, count = PUBLISHED[name]
    assert layout_of(config).count() == count


def drawn() -> list[Layout]:
    return [
        layout_of({"model_type": model_type, **draw(Random(seed))})
        for model_type, draw in DRAWS.items()
        for seed in range(10)
    ]


@pytest.mark.parametrize("each", drawn(), ids=lambda each: each.family)
def test_every_drawn_layout_is_consistent(each: Layout) -> None:
    tensors = list(each.named_tensors())
    names = {tensor.name for tensor in tensors}
    assert len(names) == len(tensors)
    assert sum(tensor.count for tensor in tensors) == each.count()
    biases = sum(t.count for t in tensors if t.name.endswith((".bias", "_bias")))
    assert each.count(role=Role.ADDED) == biases
    for name, shared in each.ties:
        assert name not in names
        assert shared in names
    # What a loader may drop must never be a parameter.
    assert not names & {pattern.replace("{i}", "0") for pattern in each.ignored}
    assert sum(kind.layers.value(each.symbols) for kind in each.attention) == each.symbols["L"]


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("falcon-7b", 32 * 2 * 64),  # one key and one value for 71 heads
        ("falcon-40b", 60 * 2 * 8 * 64),
        ("falcon-rw-1b", 24 * 2 * 2048),
        ("starcoder2-3b", 30 * 2 * 2 * 128),
        ("pythia-70m", 6 * 2 * 512),
    ],
)
def test_a_token_in_the_cache(name: str, elements: int) -> None:
    assert kv_cache_bytes(published(name), context=1, batch=1)["bfloat16"] == 2 * elements


def test_half_of_gpt_neo_looks_back_256_tokens() -> None:
    layout = published("gpt-neo-1.3b")
    assert [(kind.layers.value(layout.symbols), kind.window) for kind in layout.attention] == [
        (12, 0),
        (12, 256),
    ]
    cache = kv_cache_bytes(layout, context=2048, batch=1)["bfloat16"]
    assert cache == 2 * 2 * 2048 * (12 * 2048 + 12 * 256)


def test_starcoder2_forgets_what_leaves_its_window() -> None:
    layout = published("starcoder2-3b")
    caches = [kv_cache_bytes(layout, context=n, batch=1)["bfloat16"] for n in (4095, 4096, 16384)]
    assert caches == [4095 * 2 * 30 * 512, 4096 * 2 * 30 * 512, 4096 * 2 * 30 * 512]


def test_context_lengths() -> None:
    bloom = {**PUBLISHED["bloom-560m"][0], "seq_length": 2048}
    assert layout_of(bloom).context_length == 2048
    assert published("bloom-560m").context_length == 0
    assert layout_of({"model_type": "mpt", "max_seq_len": 8192}).context_length == 8192
    assert layout_of({"model_type": "gptj", "n_positions": 512}).context_length == 512


def test_closed_forms_read_as_in_the_textbooks() -> None:
    assert published("gpt-j-6b").formula().symbolic == "12*L*d^2 + 7*L*d + 2*V*d + V + 2*d"
    assert published("pythia-70m").formula().symbolic == "12*L*d^2 + 13*L*d + (2*V + 2)*d"
    assert published("falcon-7b").formula().symbolic == ("10*L*d^2 + 2*L*d*g*k + 2*L*d + (V + 2)*d")


def test_opt_350m_projects_a_narrow_embedding() -> None:
    shapes = {tensor.name: tensor.shape for tensor in published("opt-350m").named_tensors()}
    assert shapes["model.decoder.embed_tokens.weight"] == (50272, 512)
    assert shapes["model.decoder.project_in.weight"] == (1024, 512)
    assert shapes["model.decoder.project_out.weight"] == (512, 1024)
    assert published("opt-350m").count(components=(EMBEDDING_PROJECTION,)) == 2 * 512 * 1024
    # Two more rows than positions, and no norm at the end.
    assert published("opt-125m").count(components=(POSITION_EMBEDDING,)) == 2050 * 768
    assert "model.decoder.final_layer_norm.weight" not in shapes


def test_every_head_of_stablelm_may_have_its_own_norm() -> None:
    layout = layout_of({"model_type": "stablelm", "num_key_value_heads": 8, "qk_layernorm": True})
    norms = [t for t in layout.named_tensors() if ".layers.31.self_attn.k_layernorm" in t.name]
    assert [norm.name.split("k_layernorm.")[1] for norm in norms] == [
        f"norms.{head}.weight" for head in range(8)
    ]
    assert {norm.shape for norm in norms} == {(80,)}


def test_the_head_of_gpt_neox_is_embed_out_as_in_its_files() -> None:
    names = {tensor.name for tensor in published("pythia-70m").named_tensors()}
    assert "embed_out.weight" in names
    assert "lm_head.weight" not in names


def test_the_second_name_of_a_field_wins() -> None:
    both = {"model_type": "gpt2", "n_layer": 2, "num_hidden_layers": 3, "hidden_size": 24}
    assert layout_of(both).symbols["L"] == 3
    assert layout_of(both).symbols["d"] == 24
    assert (
        layout_of({"model_type": "gpt2", "n_layer": 2, "num_hidden_layers": None}).symbols["L"] == 2
    )


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"model_type": "gpt2", "n_head": 7}, "n_embd"),
        ({"model_type": "gpt2", "hidden_size": -768}, "hidden_size"),
        ({"model_type": "gpt2", "add_cross_attention": True}, "add_cross_attention"),
        ({"model_type": "gpt_neo", "num_layers": 12}, "attention_types"),
        ({"model_type": "gpt_neo", "attention_types": "global"}, "attention_types"),
        ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**12]]}, "attention_types"),
        ({"model_type": "gpt_neo", "attention_types": [[["x"], 24]]}, "attention_types"),
        ({"model_type": "gpt_neo", "attention_types": [[[["local"]], 24]]}, "attention_types"),
        ({"model_type": "gpt_neo", "attention_types": [["local", 24]]}, "attention_types"),
        (
            {"model_type": "gpt_neo", "attention_types": [[["global"] * 999, 10]] * 10**5},
            "attention_types",
        ),
        ({"model_type": "gpt_neo", "attention_types": [[[], 10**4]] * 10**6}, "attention_types"),
        ({"model_type": "gpt_neo", "window_size": 0}, "window_size"),
        ({"model_type": "falcon", "multi_query": 1}, "multi_query"),
        (
            {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2},
            "num_kv_heads",
        ),
        ({"model_type": "opt", "word_embed_proj_dim": 0}, "word_embed_proj_dim"),
        ({"model_type": "stablelm", "num_attention_heads": 16}, "num_key_value_heads"),
        ({"model_type": "starcoder2", "sliding_window": "4096"}, "sliding_window"),
        ({"model_type": "bloom", "seq_length": 0}, "seq_length"),
    ],
)
def test_a_wrong_field_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"config.json: {field}: "):
        layout_of(config)


HOSTILE: tuple[Any, ...] = (
    0,
    -1,
    2**40,
    1.5,
    float("nan"),
    "",
    "8",
    True,
    [],
    [[]],
    [[[], 1]],
    {"a": 1},
    [None],
)


@pytest.mark.parametrize("model_type", DRAWS)
def test_hostile_values_give_a_layout_or_one_line(model_type: str) -> None:
    random = Random(model_type)
    lines = []
    for _ in range(100):
        config = {"model_type": model_type, **DRAWS[model_type](random)}
        field = random.choice([name for name in config if name != "model_type"])
        config[field] = random.choice(HOSTILE)
        try:
            layout_of(config)
        except ConfigError as error:
            lines.append(str(error))
    assert len(lines) > 30
    for line in lines:
        assert line.startswith("config.json: ")
        assert line.isprintable()
        assert len(line) < 300
