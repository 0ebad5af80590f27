"""Gemma 3 with images against transformers' own model, and Kimi K2, which is DeepSeek-V3 by another name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import minilm
from minilm.architectures import layout_of
from minilm.costs.flops import flops_per_token
from minilm.costs.gguf_types import gguf_bytes
from minilm.errors import ConfigError
from tests.architectures.remote_types import KIMI_FIELDS

TINY: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 64,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "image_size": 28,
        "intermediate_size": 40,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "patch_size": 14,
    },
    "mm_tokens_per_image": 4,
}


@pytest.mark.parametrize("has_pooling_head", [True, False])
def test_what_transformers_saves_is_verified(
    transformers: Any, tmp_path: Path, has_pooling_head: bool
) -> None:
    fields = {
        **TINY,
        "vision_config": TINY["vision_config"] | {"vision_use_head": has_pooling_head},
    }
    model = transformers.AutoModelForImageTextToText.from_config(
        transformers.AutoConfig.for_model(**fields)
    )
    model.save_pretrained(tmp_path)
    report = minilm.inspect(tmp_path)
    assert report.verified
    total = sum(parameter.numel() for parameter in model.parameters())
    assert report.witnesses.formula == report.witnesses.file == total
    assert report.tied == (("lm_head.weight", "language_model.model.embed_tokens.weight"),)


def test_llama4_with_images_is_verified(transformers: Any, tmp_path: Path) -> None:
    text = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "head_dim": 16}
    text |= {"num_key_value_heads": 1, "num_local_experts": 3, "intermediate_size": 12}
    vision = TINY["vision_config"] | {"model_type": "llama4_vision_model"}
    vision |= {"projector_input_dim": 9, "projector_output_dim": 8, "vision_output_dim": 8}
    fields = {
        "text_config": text | {"vocab_size": 64, "pad_token_id": 0},
        "vision_config": vision,
    }
    model = transformers.AutoModelForImageTextToText.from_config(
        transformers.AutoConfig.for_model("llama4", **fields)
    )
    model.save_pretrained(tmp_path)
    report = minilm.inspect(tmp_path)
    assert report.verified
    assert report.parameters.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("towers", [(), ("vision",), ("vision", "audio")])
def test_gemma4_with_towers_is_verified(
    transformers: Any, tmp_path: Path, towers: tuple[str, ...]
) -> None:
    text = TINY["text_config"] | {"model_type": "gemma4_text", "global_head_dim": 8}
    text |= {"hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 64}
    text |= {"layer_types": ["sliding_attention", "full_attention"], "pad_token_id": 0}
    configs: dict[str, Any] = {
        "vision": {
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 6,
            "patch_size": 4,
            "position_embedding_size": 9,
            "use_clipped_linears": True,
            "standardize": True,
        },
        "audio": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "subsampling_conv_channels": [8, 4],
            "output_proj_dims": 12,
        },
    }
    fields = {f"{name}_config": configs[name] for name in towers}
    model = transformers.AutoModelForImageTextToText.from_config(
        transformers.AutoConfig.for_model("gemma4", text_config=text, **fields)
    )
    model.save_pretrained(tmp_path)
    report = minilm.inspect(tmp_path)
    assert report.verified
    assert report.parameters.total == sum(parameter.numel() for parameter in model.parameters())
    assert report.tied == (("lm_head.weight", "model.language_model.embed_tokens.weight"),)


def test_published_sizes_by_transformers(transformers: Any) -> None:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    vision = {
        "hidden_size": 1152,
        "image_size": 896,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    }
    model = layout_of({"model_type": "gemma3", "text_config": text, "vision_config": vision})
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model("gemma3", text_config=text, vision_config=vision)
        module = transformers.AutoModelForImageTextToText.from_config(config)
    assert model.count() == sum(p.numel() for p in module.parameters()) == 4_315_317_824
    names = {tensor.name for tensor in model.named_tensors()}
    assert "vision_tower.vision_model.encoder.layers.26.mlp.fc2.bias" in names  # as published


@pytest.mark.parametrize("vision", [{}, {"hidden_size": 96}])
@pytest.mark.parametrize("tied", [True, False])
def test_what_a_config_leaves_out_is_as_transformers_has_it(
    transformers: Any, vision: dict[str, Any], tied: bool
) -> None:
    fields = {"vision_config": vision, "tie_word_embeddings": tied}
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model("gemma3", **fields)
        module = transformers.AutoModelForImageTextToText.from_config(config)
    layout = layout_of({"model_type": "gemma3", **fields})
    assert layout.count() == sum(p.numel() for p in module.parameters())


def test_an_image_costs_no_token_anything() -> None:
    model = layout_of(TINY)
    text = layout_of(TINY["text_config"])
    assert flops_per_token(model, context=8) == flops_per_token(text, context=8)
    vision = model.count() - text.count()
    assert gguf_bytes(model, "q4_0") >= gguf_bytes(text, "q4_0") + 2 * vision


def test_fields_that_are_no_objects() -> None:
    with pytest.raises(ConfigError, match="vision_config: list, expected an object"):
        layout_of({"model_type": "gemma3", "vision_config": []})


def test_kimi_k2_is_deepseek_v3() -> None:
    fields = {
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 64,
        "n_shared_experts": 1,
        "n_routed_experts": 384,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 1,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "vocab_size": 163840,
        "num_nextn_predict_layers": 0,
    }
    kimi = layout_of({"model_type": "kimi_k2", **fields})
    assert (kimi.count(), kimi.count(active=True)) == (1_026_408_209_408, 32_861_477_888)
    assert kimi.count() == layout_of({"model_type": "deepseek_v3", **fields}).count()


def test_kimi_with_images_is_as_large(transformers: Any) -> None:
    """Its names are those of its files; what transformers saves has others, which nothing reads."""
    config = transformers.Kimi_K25Config(**copy.deepcopy(KIMI_FIELDS))
    with torch.device("meta"):
        model = transformers.Kimi_K25ForConditionalGeneration._from_config(config)
    assert layout_of({"model_type": "kimi_k25", **KIMI_FIELDS}).count() == model.num_parameters()
