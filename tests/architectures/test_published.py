"""The Llama-like families and those with experts against published counts, totals and active ones."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest

from minilm.architectures import layout_of
from minilm.architectures.model_types import MODEL_TYPES
from minilm.errors import ConfigError
from minilm.ledger.components import EMBEDDINGS
from minilm.ledger.layout import Layout, NamedTensor, Role
from tests.architectures.required import REQUIRED

Config = dict[str, Any]


def config(
    model_type: str,
    vocabulary: int,
    layers: int,
    width: int,
    heads: tuple[int, int],
    feed_forward: int,
    **more: Any,
) -> Config:
    """A config.json with the fields that all of these have; ``heads`` are query and key/value heads."""
    return {
        "model_type": model_type,
        "vocab_size": vocabulary,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "intermediate_size": feed_forward,
        **more,
    }


TIED = {"tie_word_embeddings": True}
MIXTRAL_8X7B = config("mixtral", 32000, 32, 4096, (32, 8), 14336, num_experts_per_tok=2)
QWEN3_30B = config(
    "qwen3_moe",
    151936,
    48,
    2048,
    (32, 4),
    6144,
    head_dim=128,
    moe_intermediate_size=768,
    num_experts=128,
    num_experts_per_tok=8,
)
GPT_OSS_20B = config(
    "gpt_oss", 201088, 24, 2880, (64, 8), 2880, num_local_experts=32, num_experts_per_tok=4
)
DEEPSEEK_V2_LITE = config(
    "deepseek_v2",
    102400,
    27,
    2048,
    (16, 16),
    10944,
    q_lora_rank=None,
    n_routed_experts=64,
    num_experts_per_tok=6,
    moe_intermediate_size=1408,
    first_k_dense_replace=1,
)
DEEPSEEK_V3: Config = {"model_type": "deepseek_v3"}  # the defaults are V3's

# Exact counts of the files, a tied head once, buffers not at all.
PUBLISHED: dict[str, tuple[Config, int]] = {
    "mistral-7b": (config("mistral", 32000, 32, 4096, (32, 8), 14336), 7_241_732_096),
    "mixtral-8x7b": (MIXTRAL_8X7B, 46_702_792_704),
    "mixtral-8x22b": (config("mixtral", 32768, 56, 6144, (48, 8), 16384), 140_630_071_296),
    "qwen1.5-1.8b": (config("qwen2", 151936, 24, 2048, (16, 16), 5504), 1_836_828_672),
    "qwen1.5-7b": (config("qwen2", 151936, 32, 4096, (32, 32), 11008), 7_721_324_544),
    "qwen2.5-0.5b": (config("qwen2", 151936, 24, 896, (14, 2), 4864, **TIED), 494_032_768),
    "qwen2.5-1.5b": (config("qwen2", 151936, 28, 1536, (12, 2), 8960, **TIED), 1_543_714_304),
    "qwen2.5-7b": (config("qwen2", 152064, 28, 3584, (28, 4), 18944), 7_615_616_512),
    "qwen2.5-14b": (config("qwen2", 152064, 48, 5120, (40, 8), 13824), 14_770_033_664),
    "qwen2.5-72b": (config("qwen2", 152064, 80, 8192, (64, 8), 29568), 72_706_203_648),
    "qwen3-0.6b": (config("qwen3", 151936, 28, 1024, (16, 8), 3072, **TIED), 596_049_920),
    "qwen3-8b": (config("qwen3", 151936, 36, 4096, (32, 8), 12288), 8_190_735_360),
    "qwen3-14b": (config("qwen3", 151936, 40, 5120, (40, 8), 17408), 14_768_307_200),
    "qwen3-32b": (config("qwen3", 151936, 64, 5120, (64, 8), 25600), 32_762_123_264),
    "qwen1.5-moe-a2.7b": ({"model_type": "qwen2_moe"}, 14_315_784_192),
    "qwen3-30b-a3b": (QWEN3_30B, 30_532_122_624),
    "qwen3-235b-a22b": (
        QWEN3_30B
        | config("qwen3_moe", 151936, 94, 4096, (64, 4), 12288, moe_intermediate_size=1536),
        235_093_634_560,
    ),
    "gemma-2b": (config("gemma", 256000, 18, 2048, (8, 1), 16384), 2_506_172_416),
    "gemma-7b": (config("gemma", 256000, 28, 3072, (16, 16), 24576), 8_537_680_896),
    "gemma-2-2b": (config("gemma2", 256000, 26, 2304, (8, 4), 9216), 2_614_341_888),
    "gemma-2-27b": (
        config("gemma2", 256000, 46, 4608, (32, 16), 36864, head_dim=128),
        27_227_128_320,
    ),
    "gemma-3-270m": (config("gemma3_text", 262144, 18, 640, (4, 1), 2048), 268_098_176),
    "gemma-3-1b": (config("gemma3_text", 262144, 26, 1152, (4, 1), 6912), 999_885_952),
    "gemma-3-4b-text": (config("gemma3_text", 262208, 34, 2560, (8, 4), 10240), 3_880_263_168),
    "gemma-3-12b-text": (
        config("gemma3_text", 262144, 48, 3840, (16, 8), 15360),
        11_765_788_416,
    ),
    "gemma-3-27b-text": (
        config("gemma3_text", 262208, 62, 5376, (32, 16), 21504, head_dim=128),
        27_009_346_304,
    ),
    "phi-3-mini-4k": (config("phi3", 32064, 32, 3072, (32, 32), 8192), 3_821_079_552),
    "phi-4": (config("phi3", 100352, 40, 5120, (40, 10), 17920), 14_659_507_200),
    "olmo-1b": (config("olmo", 50304, 16, 2048, (16, 16), 8192, **TIED), 1_176_764_416),
    "olmo-2-7b": (config("olmo2", 100352, 32, 4096, (32, 32), 11008), 7_298_617_344),
    "smollm3-3b": (config("smollm3", 128256, 36, 2048, (16, 4), 11008), 3_075_098_624),
    "command-r-plus": (
        config("cohere", 256000, 64, 12288, (96, 8), 33792, use_qk_norm=True),
        103_810_674_688,
    ),
    "deepseek-v2": (
        config(
            "deepseek_v2",
            102400,
            60,
            5120,
            (128, 128),
            12288,
            n_routed_experts=160,
            num_experts_per_tok=6,
            moe_intermediate_size=1536,
            first_k_dense_replace=1,
        ),
        235_741_434_880,
    ),
    "deepseek-v2-lite": (DEEPSEEK_V2_LITE, 15_706_484_224),
    # 671,026,419,200 with the 256 correction biases of each of 58 routers, which are buffers.
    "deepseek-v3": (DEEPSEEK_V3, 671_026_419_200 - 58 * 256),
    "gpt-oss-20b": (GPT_OSS_20B, 20_914_757_184),
    "gpt-oss-120b": ({"model_type": "gpt_oss"}, 116_829_156_672),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    fields, count = PUBLISHED[name]
    assert layout_of(fields).count() == count


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_components_add_up_to_the_total(name: str) -> None:
    layout = layout_of(PUBLISHED[name][0])
    total = layout.count()
    names = [tensor.name for tensor in layout.named_tensors()]
    assert len(set(names)) == len(names)
    assert sum(tensor.count for tensor in layout.named_tensors()) == total
    assert sum(layout.count(components=(part,)) for part in layout.components()) == total
    biases = sum(t.count for t in layout.named_tensors() if t.name.endswith("bias"))
    assert layout.count(role=Role.ADDED) == biases


# What one token uses, summed by hand: embedding and head, then a layer's attention, norms, router and
# chosen experts. The last column is what the makers say, in billions (gpt-oss: with the embedding).
ACTIVE: dict[str, tuple[Config, int, float]] = {
    "mixtral-8x7b": (
        MIXTRAL_8X7B,
        2 * 32000 * 4096
        + 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 2 * 4096 + 8 * 4096 + 2 * 3 * 4096 * 14336)
        + 4096,
        12.9,
    ),
    "qwen3-30b-a3b": (
        QWEN3_30B,
        2 * 151936 * 2048
        + 48 * (2 * 2048 * 4096 + 2 * 2048 * 512 + 2 * 128 + 2 * 2048)
        + 48 * (128 * 2048 + 8 * 3 * 2048 * 768)
        + 2048,
        3.3,
    ),
    "gpt-oss-20b": (GPT_OSS_20B, 4_187_440_704, 4.2),
    "deepseek-v3": (
        DEEPSEEK_V3,
        2 * 129280 * 7168
        + 61 * (7168 * 1536 + 1536 + 1536 * 128 * 192)
        + 61 * (7168 * 576 + 512 + 512 * 128 * 256 + 128 * 128 * 7168 + 2 * 7168)
        + 3 * (3 * 7168 * 18432)
        + 58 * (256 * 7168 + (8 + 1) * 3 * 7168 * 2048)
        + 7168,
        37,
    ),
}


@pytest.mark.parametrize("name", ACTIVE)
def test_active_counts(name: str) -> None:
    fields, active, billions = ACTIVE[name]
    layout = layout_of(fields)
    assert layout.count(active=True) == active
    assert active / 1e9 == pytest.approx(billions, rel=0.02)


def test_makers_leave_the_input_embedding_out_of_active_counts() -> None:
    def billions(fields: Config) -> float:
        layout = layout_of(fields)
        return (layout.count(active=True) - layout.count(components=EMBEDDINGS)) / 1e9

    assert round(billions(GPT_OSS_20B), 1) == 3.6
    assert round(billions({"model_type": "gpt_oss"}), 1) == 5.1
    assert round(billions(DEEPSEEK_V3)) == 37


def test_every_element_of_the_published_deepseek_v3_files_is_accounted_for() -> None:
    """The Hub's counts by dtype: FP8 matrices, one FP32 scale for each 128 x 128 block, the rest."""
    layout = layout_of(DEEPSEEK_V3)
    parameters = [*layout.named_tensors(), *layout.named_tensors(layout.mtp)]
    unquantized = ("embed_tokens", "head.weight", "mlp.gate.", "eh_proj")

    def is_quantized(tensor: NamedTensor) -> bool:
        return len(tensor.shape) == 2 and not any(part in tensor.name for part in unquantized)

    matrices = [tensor for tensor in parameters if is_quantized(tensor)]
    blocks = sum(ceil(t.shape[0] / 128) * ceil(t.shape[1] / 128) for t in matrices)
    fp8 = sum(tensor.count for tensor in matrices)
    corrections = [t for t in parameters if t.name.endswith("e_score_correction_bias")]
    corrections += layout.named_tensors(layout.buffers)
    fp32 = blocks + sum(tensor.count for tensor in corrections)
    assert fp8 == 680_571_043_840
    assert fp32 == 41_555_600
    every = sum(tensor.count for tensor in (*parameters, *layout.named_tensors(layout.buffers)))
    assert every + blocks - fp8 - fp32 == 3_918_786_560
    assert (
        len(parameters) + len(list(layout.named_tensors(layout.buffers))) + len(matrices) == 91_991
    )


def layer_of(layout: Layout, part: str) -> set[int]:
    """The layers that have a tensor with this in its name."""
    return {int(t.name.split(".")[2]) for t in layout.named_tensors() if part in t.name}


def test_dense_layers_are_where_the_config_says() -> None:
    v3 = layout_of(DEEPSEEK_V3)
    assert layer_of(v3, "mlp.up_proj") == {0, 1, 2}
    assert layer_of(v3, ".experts.255.") == set(range(3, 61))
    assert {t.name.split(".")[2] for t in v3.named_tensors(v3.mtp)} == {"61"}
    spread = layout_of(DEEPSEEK_V2_LITE | {"num_hidden_layers": 7, "moe_layer_freq": 2})
    assert layer_of(spread, "mlp.gate") - layer_of(spread, "mlp.gate_proj") == {2, 4, 6}
    qwen = QWEN3_30B | {"num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    assert layer_of(layout_of(qwen), "mlp.experts.") == {1, 5}


def test_the_latent_cache_is_small() -> None:
    # c + r = 576 elements a layer and token, whatever the number of heads (DeepSeek-V2 paper).
    layout = layout_of(DEEPSEEK_V3)
    (kind,) = layout.attention
    assert kind.cache.value(layout.symbols) == 576
    assert kind.scores.value(layout.symbols) == 128 * 192
    assert kind.values.value(layout.symbols) == 128 * 128


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"model_type": "mistral"}, [(32, 4096)]),
        ({"model_type": "mistral", "sliding_window": None}, [(32, 0)]),
        ({"model_type": "gemma2"}, [(13, 4096), (13, 0)]),
        ({"model_type": "gemma3_text", "sliding_window": 512}, [(22, 512), (4, 0)]),
        ({"model_type": "gpt_oss"}, [(18, 128), (18, 0)]),
        ({"model_type": "qwen2", "sliding_window": 4096}, [(32, 0)]),
        ({"model_type": "qwen2", "use_sliding_window": True}, [(4, 4096), (28, 0)]),
        (
            {"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 9},
            [(9, 9), (27, 0)],
        ),
        (
            {
                "model_type": "gpt_oss",
                "num_hidden_layers": 2,
                "layer_types": ["full_attention"] * 2,
            },
            [(2, 0)],
        ),
    ],
    ids=str,
)
def test_layers_slide_where_the_config_says(fields: Config, kinds: list[tuple[int, int]]) -> None:
    layout = layout_of(fields)
    assert [(a.layers.value(layout.symbols), a.window) for a in layout.attention] == kinds


def wrong(model_type: str, **fields: Any) -> Config:
    return {"model_type": model_type, **fields}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        (wrong("mixtral", num_local_experts=10**6), "num_local_experts"),
        (wrong("mixtral", num_experts_per_tok=9), "num_experts_per_tok"),
        (wrong("qwen3_moe", num_experts=2**31), "num_experts"),
        (wrong("qwen3_moe", mlp_only_layers=3), "mlp_only_layers"),
        (wrong("qwen3_moe", mlp_only_layers=["0"]), "mlp_only_layers"),
        (wrong("qwen2_moe", decoder_sparse_step=0), "decoder_sparse_step"),
        (wrong("qwen2", use_sliding_window=True, max_window_layers=-1), "max_window_layers"),
        (wrong("gemma2", layer_types=["full_attention"]), "layer_types"),
        (wrong("gemma2", layer_types=["x"] * 26), "layer_types"),
        (wrong("gemma2", layer_types=[{}] * 26), "layer_types"),
        (wrong("gemma2", layer_types="x" * 10**6), "layer_types"),
        (wrong("gemma3_text", sliding_window_pattern=0), "sliding_window_pattern"),
        (wrong("gemma3_text", sliding_window=1.5), "sliding_window"),
        (wrong("smollm3", use_sliding_window=True, no_rope_layers=[1]), "no_rope_layers"),
        (wrong("deepseek_v3", num_nextn_predict_layers=10**9), "num_nextn_predict_layers"),
        (wrong("deepseek_v3", num_nextn_predict_layers=9_000), "n_routed_experts"),
        (wrong("deepseek_v3", first_k_dense_replace=True), "first_k_dense_replace"),
        (wrong("deepseek_v3", q_lora_rank=0), "q_lora_rank"),
        (wrong("gpt_oss", num_hidden_layers=10_000), "num_local_experts"),
        (wrong("longcat_flash", qk_head_dim=64), "qk_head_dim"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["model_type"],
)
def test_a_wrong_field_is_named_in_one_short_line(fields: Config, field: str) -> None:
    with pytest.raises(ConfigError, match=f"^config.json: {field}: ") as caught:
        layout_of(fields)
    assert len(str(caught.value)) < 250


JUNK = [None, True, 0, -1, 1.5, 2**70, float("nan"), "7", [], [None], {}, [[]], "x" * 1000]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_junk_in_any_field_is_read_or_refused(model_type: str) -> None:
    """Every field that a declaration reads gets every kind of JSON value: nothing but ConfigError."""
    read: set[str] = set()

    class Watched(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            read.add(name)
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            read.add(name)
            return super().get(name, default)

    base = {"model_type": model_type, "num_experts_per_tok": 1, "use_sliding_window": True}
    base |= REQUIRED.get(model_type, {})
    layout_of(Watched(base))
    for name in sorted(read - {"model_type"}):
        for value in JUNK:
            try:
                layout = layout_of(base | {name: value})
            except ConfigError:
                continue
            assert layout.count() > 0
