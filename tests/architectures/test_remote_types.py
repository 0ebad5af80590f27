"""The types of remote code against the lists of their published files, and published files' sizes.

No transformers has them: names and shapes are those that `remote_types.py` lists by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

import minilm
from minilm.architectures import layout_of, layout_of_class
from minilm.architectures.model_types import MODEL_TYPES
from minilm.costs.memory import kv_cache_elements
from minilm.errors import ConfigError
from minilm.ledger.layout import Tensor
from tests.architectures.remote_types import (
    CASES,
    CLIP_336,
    PHI4MM_FIELDS,
    Case,
    Config,
    listed,
)

EVERY = [
    pytest.param({"model_type": name, **case.config}, case, id=f"{name}-{number}")
    for name, cases in CASES.items()
    for number, case in enumerate(cases)
]


def test_every_type_is_declared_and_cited() -> None:
    assert MODEL_TYPES.keys() >= CASES.keys()
    assert len(CASES) >= 25
    assert all(case.source.endswith((".py", ")")) for cases in CASES.values() for case in cases)


@pytest.mark.parametrize(("config", "case"), EVERY)
def test_the_tensors_are_those_of_the_published_file(config: Config, case: Case) -> None:
    layout = layout_of(config)

    def shapes(tensors: tuple[Tensor, ...]) -> dict[str, tuple[int, ...]]:
        return {tensor.name: tensor.shape for tensor in layout.named_tensors(tensors)}

    assert shapes(layout.tensors) == listed(case)
    assert shapes(layout.buffers) == listed(case, "buffer")
    assert shapes(layout.mtp) == listed(case, "mtp")
    assert [name for name, _ in layout.ties] == list(listed(case, "tie"))
    named = shapes(layout.tensors)
    assert all(shared in named for _, shared in layout.ties)
    assert kv_cache_elements(layout, context=1, batch=1) == case.cache
    assert layout.context_length > 0


QWEN: Config = {"model_type": "qwen"}
CHATGLM: Config = {
    "model_type": "chatglm",
    "add_qkv_bias": True,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
}


class Index(NamedTuple):
    """Of a published index: `metadata.total_size`, the length of `weight_map`, and the bytes of an element.

    The length is None where only a part of the list was at hand.

    ``others`` are bytes of what is not a parameter, or of a second copy or a wider type of some.
    """

    config: Config
    total_size: int
    tensors: int | None
    others: int = 0
    element: int = 2


INDEXES = {
    # zhangningboo/Qwen-7B model.safetensors.index.json: 15442649088 bytes
    "Qwen/Qwen-7B": Index(QWEN, 15_442_649_088, 259),
    # mapengAdam/qianwen-72B model.safetensors.index.json: 144575840256 bytes
    "Qwen/Qwen-72B": Index(
        QWEN
        | {
            "vocab_size": 152064,
            "hidden_size": 8192,
            "intermediate_size": 49152,
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
        },
        144_575_840_256,
        643,
    ),
    # OpenGVLab/InternVL2-8B model.safetensors.index.json: 16150730752 bytes
    "OpenGVLab/InternVL2-8B": Index(
        {
            "model_type": "internvl_chat",
            "llm_config": {
                "model_type": "internlm2",
                "vocab_size": 92553,
                "num_key_value_heads": 8,
                "intermediate_size": 14336,
                "bias": False,
                "tie_word_embeddings": False,
            },
            "vision_config": {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "intermediate_size": 4096,
                "image_size": 448,
                "norm_type": "layer_norm",
                "qkv_bias": True,
                "qk_normalization": False,
            },
        },
        16_150_730_752,
        None,
    ),
    # jrd77/Baichuan2-13B-Chat pytorch_model.bin.index.json: 27793336320 bytes
    "baichuan-inc/Baichuan2-13B-Chat": Index(
        {"model_type": "baichuan", "vocab_size": 125696},
        27_793_336_320,
        283,
    ),
    # czk1997/chatglm3-copy pytorch_model.bin.index.json: 12487168064 bytes, with 32 of inv_freq
    "THUDM/chatglm3-6b": Index(CHATGLM, 12_487_168_064, 200, 32 * 2),
    # samson-wang/chatglm-6b-huggingface pytorch_model.bin.index.json: 13744473856 bytes, with inv_freq, the
    # head beside the embedding, and norms in float32
    "THUDM/chatglm-6b": Index(
        {"model_type": "chatglm", "inner_hidden_size": 16384},
        13_744_473_856,
        368,
        (150528 * 4096 + 28 * 32 + 57 * 2 * 4096) * 2,
    ),
    # Zumwaltboi68/stable-code-3b model.safetensors.index.json: 5590886400 bytes
    "stabilityai/stable-code-3b": Index({"model_type": "stablelm_epoch"}, 5_590_886_400, 356),
    # IDLEOAK/openpangu-lightweight-methods model.safetensors.index.json: 16061784576 bytes, with inv_freq in
    # float32
    "openPangu-Embedded-7B": Index(
        {"model_type": "PanguEmbedded"},
        16_061_784_576,
        479,
        34 * 64 * 4,
    ),
    # jj8127/mimo_kor model.safetensors.index.json: 15666819072 bytes
    "XiaomiMiMo/MiMo-7B": Index(
        {
            "model_type": "mimo",
            "vocab_size": 151680,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "num_nextn_predict_layers": 1,
        },
        15_666_819_072,
        451,
    ),
    # Decentralised-AI/falcon-40b pytorch_model.bin.index.json: 83671941120 bytes, the head too
    "tiiuae/falcon-40b": Index(
        {
            "model_type": "RefinedWeb",
            "hidden_size": 8192,
            "n_head": 128,
            "n_head_kv": 8,
            "n_layer": 60,
        },
        83_671_941_120,
        484,
        65024 * 8192 * 2,
    ),
    # moonshotai/Kimi-VL-A3B-Instruct: 32815315552 bytes as public audits quote them, with the routers' biases
    # and inv_freq in float32
    "moonshotai/Kimi-VL-A3B-Instruct": Index(
        {
            "model_type": "kimi_vl",
            "text_config": {
                "model_type": "deepseek_v3",
                "vocab_size": 163840,
                "hidden_size": 2048,
                "intermediate_size": 11264,
                "moe_intermediate_size": 1408,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "n_routed_experts": 64,
                "n_shared_experts": 2,
                "num_experts_per_tok": 6,
                "first_k_dense_replace": 1,
                "q_lora_rank": None,
                "num_nextn_predict_layers": 0,
            },
        },
        32_815_315_552,
        None,
        26 * 64 * 2 + 27 * 32 * 4,
    ),
    # bacoco/Phi-2 pytorch_model.bin.index.json: 11118735360 bytes of float32
    "microsoft/phi-2": Index(
        {
            "model_type": "mixformer-sequential",
            "vocab_size": 51200,
            "n_embd": 2560,
            "n_head": 32,
            "n_layer": 32,
        },
        11_118_735_360,
        325,
        element=4,
    ),
}


INTERNLM2: Config = {
    "model_type": "internlm2",
    "vocab_size": 92544,
    "num_key_value_heads": 8,
    "bias": False,
}
# What the Hub reads from the headers of the files, as public evaluations and notes quote it.
COUNTS: dict[str, tuple[Config, int]] = {
    "internlm/internlm2_5-1_8b": (
        INTERNLM2
        | {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        1_889_110_016,
    ),
    "internlm/internlm2_5-7b": (INTERNLM2 | {"intermediate_size": 14336}, 7_737_708_544),
    "internlm/internlm2_5-20b": (
        INTERNLM2
        | {
            "hidden_size": 6144,
            "intermediate_size": 16384,
            "num_hidden_layers": 48,
            "num_attention_heads": 48,
        },
        19_861_149_696,
    ),
    "01-ai/Yi-6B": ({"model_type": "Yi"}, 6_061_035_520),
    "THUDM/glm-4-9b-chat": (
        CHATGLM | {"padded_vocab_size": 151552, "num_layers": 40},
        9_399_951_360,
    ),
    "LGAI-EXAONE/EXAONE-3.5-7.8B": (
        {
            "model_type": "exaone",
            "hidden_size": 4096,
            "num_layers": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "tie_word_embeddings": False,
        },
        7_818_448_896,
    ),
    "deepseek-ai/deepseek-vl2-tiny": (
        {
            "model_type": "deepseek_vl_v2",
            "projector_config": {"n_embed": 1280},
            "vision_config": {"layers": 27, "mlp_ratio": 3.7362, "patch_size": 14, "width": 1152},
            "language_config": {
                "vocab_size": 129280,
                "hidden_size": 1280,
                "intermediate_size": 6848,
                "moe_intermediate_size": 896,
                "num_hidden_layers": 12,
                "num_attention_heads": 10,
                "num_key_value_heads": 10,
                "first_k_dense_replace": 1,
                "n_routed_experts": 64,
                "n_shared_experts": 2,
                "num_experts_per_tok": 6,
                "use_mla": False,
            },
        },
        3_370_501_440,
    ),
    "microsoft/Phi-3.5-vision-instruct": (
        {
            "model_type": "phi3_v",
            "img_processor": CLIP_336,
            "embd_layer": {
                "embedding_cls": "image",
                "projection_cls": "mlp",
                "use_hd_transform": True,
            },
        },
        4_146_621_440,
    ),
    "microsoft/Phi-4-multimodal-instruct": (
        PHI4MM_FIELDS
        | {
            "model_type": "phi4mm",
            "vocab_size": 200064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "vision_lora": PHI4MM_FIELDS["vision_lora"] | {"r": 256},
            "speech_lora": PHI4MM_FIELDS["speech_lora"] | {"r": 320},
            "embd_layer": PHI4MM_FIELDS["embd_layer"]
            | {"audio_embd_layer": {"projection_cls": "mlp", "downsample_rate": 1}},
            "audio_processor": {
                "config": {
                    "attention_dim": 1024,
                    "attention_heads": 16,
                    "batch_norm": False,
                    "bias_in_glu": True,
                    "depthwise_multiplier": 1,
                    "depthwise_seperable_out_channel": 1024,
                    "ext_pw_kernel_size": 1,
                    "ext_pw_out_channel": 1024,
                    "input_size": 80,
                    "kernel_size": 3,
                    "linear_units": 1536,
                    "nemo_conv_settings": {"conv_channels": 1024},
                    "num_blocks": 24,
                    "relative_attention_bias_args": {"t5_bias_max_distance": 500},
                    "time_reduction": 8,
                }
            },
        },
        5_574_460_384,
    ),
    "MiniMaxAI/MiniMax-M1-80k": (
        {
            "model_type": "minimax_m1",
            "vocab_size": 200064,
            "hidden_size": 6144,
            "intermediate_size": 9216,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "head_dim": 128,
            "num_local_experts": 32,
            "attn_type_list": [int(i % 8 == 7) for i in range(80)],
        },
        456_089_655_296,
    ),
}


OTHERS: list[tuple[str, Config]] = [
    ("phi3_v", {"architectures": ["Phi3VForSequenceClassification"]}),
    ("phi3_v", {"embd_layer": {}, "img_processor": CLIP_336 | {"model_name": "another"}}),
    ("phi3_v", {"embd_layer": {}, "img_processor": None}),
    ("phi4mm", {"architectures": ["Phi4MMForSequenceClassification"]}),
    ("phi4mm", PHI4MM_FIELDS | {"embd_layer": {"image_embd_layer": {"projection_cls": "linear"}}}),
    ("phi4mm", PHI4MM_FIELDS | {"speech_lora": {"r": 3, "layer": "qkv_proj"}}),
    ("deepseek_vl_v2", {"architectures": ["DeepseekOCRForCausalLM"]}),
    ("deepseek_vl_v2", {"tile_tag": "1D"}),
    ("deepseek_vl_v2", {"vision_config": {"width": {"sam_vit_b": {"width": 768}}}}),
    ("deepseek_vl_v2", {"vision_config": {"class_token": True}}),
    ("minicpmv", {}),
    ("minicpmv", {"version": 4.5}),
    ("minicpmv", {"version": 2.6, "architectures": ["MiniCPMO"]}),
]


@pytest.mark.parametrize(("model_type", "fields"), OTHERS)
def test_another_model_of_a_type_is_not_guessed(model_type: str, fields: Config) -> None:
    assert layout_of_class({"model_type": model_type, **fields}) is None


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name: str) -> None:
    config, count = COUNTS[name]
    assert layout_of(config).count() == count


@pytest.mark.parametrize(("config", "case"), EVERY)
def test_a_folder_is_counted_without_its_buffers(
    config: Config, case: Case, tmp_path: Path
) -> None:
    """With the listed tensors, the frequencies that some files hold, and the copy of a tied head."""
    layout = layout_of(config)
    shapes = listed(case) | listed(case, "buffer") | listed(case, "mtp")
    shapes |= {name.replace("{i}", "0"): (1,) for name in layout.ignored}
    shapes |= {tie: shapes[shared] for tie, shared in layout.ties}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    report = minilm.inspect(tmp_path)
    assert report.parameters.total == layout.count()
    assert report.mismatches == ()


@pytest.mark.parametrize("name", INDEXES)
def test_every_byte_and_name_of_a_published_index(name: str) -> None:
    index = INDEXES[name]
    layout = layout_of(index.config)
    every = (*layout.tensors, *layout.mtp)
    elements = sum(layout.value(tensor) for tensor in every)
    assert elements * index.element + index.others == index.total_size
    # Beside the parameters a file may have the copy of a tied head, and buffers of every layer or one.
    beside = len(layout.ties) if index.others else 0
    holds_buffers = index.others and name != "tiiuae/falcon-40b"
    if holds_buffers:
        beside += layout.symbols["L"] if "{i}" in layout.ignored[0] else 1
    names = {each.name for each in layout.named_tensors(every)}
    assert index.tensors in (None, len(names) + beside)


@pytest.mark.parametrize(
    ("name", "field"), [("qwen", "visual"), ("qwen", "audio"), ("chatglm", "vision_config")]
)
def test_a_larger_model_under_the_same_name_is_counted_from_its_file(
    name: str, field: str, tmp_path: Path
) -> None:
    save_file({"a.weight": np.zeros((3, 5), np.float32)}, tmp_path / "model.safetensors")
    config = {"model_type": name, field: {"hidden_size": 8}, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    report = minilm.inspect(tmp_path)
    assert report.parameters.total == 15
    assert any(f"config.json has {field}" in note for note in report.notes)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"model_type": "chatglm", "pre_seq_len": 128}, "pre_seq_len"),
        ({"model_type": "chatglm", "vision_config": {"hidden_size": 8}}, "vision_config"),
        ({"model_type": "qwen", "visual": {"heads": 16}}, "visual"),
        ({"model_type": "minimax_text_01", "attn_type_list": [2] * 32}, "attn_type_list"),
        (
            {"model_type": "minimax_text_01", "shared_intermediate_size": 8},
            "shared_intermediate_size",
        ),
        ({"model_type": "nemotron-nas", "block_configs": [{}]}, "block_configs"),
        ({"model_type": "nemotron-nas", "block_configs": [3] * 80}, "block_configs"),
        ({"model_type": "deci", "num_key_value_heads_per_layer": [3] * 32}, "num_key_value_heads"),
        ({"model_type": "openelm", "ffn_multipliers": [1.0]}, "ffn_multipliers"),
        ({"model_type": "openelm", "num_kv_heads": [{}] * 12}, "num_kv_heads"),
        ({"model_type": "step3_text", "moe_layers_enum": "a,b"}, "moe_layers_enum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_named_in_one_short_line(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^config.json: {field}") as caught:
        layout_of(config)
    assert len(str(caught.value)) < 250
