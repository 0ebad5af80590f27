"""The declarations against published counts, and the sums that must hold in each."""

import pytest
import sympy

from minilm.architectures import layout_of
from minilm.architectures.minilm import layout
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.task_heads import with_task_head
from minilm.config.presets import PRESETS
from minilm.costs.flops import causal_training_flops, flops_per_token
from minilm.costs.memory import kv_cache_elements
from minilm.errors import ConfigError
from minilm.ledger.approximation import textbook
from minilm.ledger.components import EMBEDDINGS
from minilm.ledger.layout import Layout, Role

# Exact counts: GPT-2 and Llama as Hugging Face stores them (model.safetensors totals, tied head once).
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
}

HUGGING_FACE_CONFIGS = [
    ({"model_type": "gpt2"}, 124_439_808),
    ({"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_557_611_200),
    ({"model_type": "gpt2", "tie_word_embeddings": False}, 163_037_184),
    ({"model_type": "llama"}, 6_738_415_616),
    (
        {
            "model_type": "llama",
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_attention_heads": 40,
            "num_hidden_layers": 40,
            "num_key_value_heads": None,
        },
        13_015_864_320,
    ),
    (  # Llama 3.2 1B: tied, 8 key/value heads
        {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_attention_heads": 32,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "tie_word_embeddings": True,
        },
        1_235_814_400,
    ),
]


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_presets_have_the_published_counts(name: str, count: int) -> None:
    assert layout(PRESETS[name].model_config()).count() == count


@pytest.mark.parametrize(("config", "count"), HUGGING_FACE_CONFIGS)
def test_hugging_face_configs_have_the_published_counts(config: dict, count: int) -> None:
    assert layout_of(config).count() == count


def all_layouts() -> list[Layout]:
    presets = [layout(preset.model_config()) for preset in PRESETS.values()]
    return presets + [layout_of(c) for c, _ in HUGGING_FACE_CONFIGS]


@pytest.mark.parametrize("each", all_layouts(), ids=lambda each: f"{each.family}-{each.count()}")
def test_every_sum_is_the_whole(each: Layout) -> None:
    total = each.count()
    assert sum(tensor.count for tensor in each.named_tensors()) == total
    assert sum(each.count(components=(name,)) for name in each.components()) == total
    assert sum(each.count(role=role) for role in Role) == total
    biases = sum(t.count for t in each.named_tensors() if t.name.endswith(".bias"))
    assert each.count(role=Role.ADDED) == biases
    formula = each.formula()
    for text in (formula.symbolic, formula.substituted):
        assert sympy.sympify(text.replace("^", "**"), locals=_letters(each)) == total
    names = [tensor.name for tensor in each.named_tensors()]
    assert len(set(names)) == len(names)


def _letters(each: Layout) -> dict[str, sympy.Integer]:
    return {letter: sympy.Integer(value) for letter, value in each.symbols.items()}


def test_gpt2_formula_reads_as_in_the_textbooks() -> None:
    gpt2 = layout(PRESETS["gpt2"].model_config())
    assert gpt2.formula().pretty == "12Ld² + 13Ld + (V + T + 2)d"
    assert gpt2.formula().symbolic == "12*L*d^2 + 13*L*d + (V + T + 2)*d"
    assert gpt2.formula().substituted == "12*12*768^2 + 13*12*768 + (50257 + 1024 + 2)*768"
    assert gpt2.component_formula("attention query").pretty == "Ld² + Ld"
    assert gpt2.count(components=EMBEDDINGS) == (50257 + 1024) * 768


def test_textbook_approximation_counts_the_tied_head_twice() -> None:
    rule = textbook(layout(PRESETS["gpt2"].model_config()))
    assert rule is not None
    assert rule.value == 2 * 50257 * 768 + 12 * 12 * 768**2 == 162_129_408
    assert rule.relative_error == pytest.approx(162_129_408 / 124_439_808 - 1)
    assert rule.text == "2*V*d + 12*L*d^2"


@pytest.mark.parametrize(
    ("model_type", "text"),
    [("llama4", "llama4_text"), ("gemma4", "gemma4_text"), ("gemma3n", "gemma3n_text")],
)
def test_of_a_larger_model_the_language_model_alone_is_declared(model_type: str, text: str) -> None:
    sizes = {"num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 8}
    whole = {"model_type": model_type, "text_config": sizes}
    layout = layout_of(whole)
    assert layout.tensors == layout_of({"model_type": text, **sizes}).tensors
    assert with_task_head(layout, whole, causal_only=True) == layout
    other = whole | {"architectures": ["XForConditionalGeneration"]}
    assert with_task_head(layout, other, causal_only=True) is None
    assert (layout_of(other).tensors != layout.tensors) == bool(MODEL_TYPES[model_type].whole)


def test_of_an_encoder_the_language_model_alone_is_declared() -> None:
    bert = {"model_type": "bert"}
    for name in (
        "BertLMHeadModel",
        "BertForMaskedLM",
        "BertModel",
        "BertForSequenceClassification",
    ):
        layout = with_task_head(layout_of(bert), bert | {"architectures": [name]}, causal_only=True)
        assert (layout is not None) == (name == "BertLMHeadModel")


def test_sparse_attention_caches_all_and_sees_what_it_selects() -> None:
    sizes = {
        "num_hidden_layers": 3,
        "indexer_types": ["full", "shared", "full"],
        "index_topk": 16,
        "index_n_heads": 4,
        "index_head_dim": 64,
        "num_attention_heads": 2,
        "kv_lora_rank": 10,
        "qk_rope_head_dim": 6,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
    }
    layout = layout_of({"model_type": "glm_moe_dsa", **sizes})
    assert kv_cache_elements(layout, context=100, batch=1) == 100 * (3 * (10 + 6) + 2 * 64)
    for context, seen in ((8, 8), (100, 16)):
        attended = 3 * 2 * (8 + 6 + 12) * seen  # layers, heads, widths of keys and values
        indexed = 2 * 4 * (64 + 1) * context  # products with keys, and a weight a head
        flops = flops_per_token(layout, context=context)
        assert flops["attention_per_token"] == 2 * (attended + indexed)
    assert causal_training_flops(layout, context=100) < flops["training_per_token"]


def test_deepseek_v4_has_two_spellings() -> None:
    fields = {"model_type": "deepseek_v4", "num_hidden_layers": 3, "n_routed_experts": 8}
    written = {tensor.name for tensor in layout_of(fields).named_tensors()}
    published = layout_of(fields | {"compress_ratios": [128, 4, 0]})
    names = {tensor.name for tensor in published.named_tensors()}
    assert {"model.embed_tokens.weight", "model.hc_head.hc_fn"} <= written
    assert {"model.embed.weight", "model.hc_head_fn"} <= names
    assert published.optional_prefix == "model."
    assert "model.layers.1.attn.indexer.wq_b.weight" in names
    assert "model.layers.2.attn.compressor.wkv.weight" not in names
    with pytest.raises(ConfigError, match="compress_ratios"):
        layout_of(fields | {"compress_ratios": [128, 5, 0]})


GLM_4_5 = {
    "model_type": "glm4_moe",
    "hidden_size": 5120,
    "num_hidden_layers": 92,
    "head_dim": 128,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "first_k_dense_replace": 3,
    "use_qk_norm": True,
    "attention_bias": True,
}
HUNYUAN_A13B = {
    "model_type": "hunyuan_v1_moe",
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "num_experts": 64,
    "moe_topk": [8] * 32,
    "vocab_size": 128167,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [  # in billions, as their names or model cards round them
        (GLM_4_5, 352.8, 33.6),  # named 355B-A32B; with its MTP module it is 358.3
        (HUNYUAN_A13B, 80.4, 12.7),
        ({"model_type": "ernie4_5_moe"}, 21.8, 3.4),
        ({"model_type": "llama4_text"}, 107.8, 17.2),
        ({"model_type": "minimax_m2"}, 228.7, 11.0),
        ({"model_type": "deepseek_v4"}, 284.3, 13.8),
        # 18.6 to 31.3 without the embedding, by how many experts of a token are idle
        ({"model_type": "longcat_flash", "transformers_version": "4.56.0"}, 560.7, 32.2),
        ({"model_type": "longcat_flash"}, 741.1, 32.2),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else None,
)
def test_active_parameters(config: dict, total: float, active: float) -> None:
    layout = layout_of(config)
    assert round(layout.count() / 1e9, 1) == total
    assert round(layout.count(active=True) / 1e9, 1) == active
