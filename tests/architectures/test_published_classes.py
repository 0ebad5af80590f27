"""Published encoders, encoder-decoders, vision and image-text models, counted from their config.json alone.

The counts are quoted in public tables of models, as the Hub counts their safetensors files; where
such a file holds more than its class, as BERT's and RoBERTa's do, that of the class.
"""

from __future__ import annotations

from typing import Any

import pytest

from minilm.architectures import layout_of_class

_QWEN2_5_VL_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
}
_QWEN2_VL_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16}
_CLIP_L = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_INTERN_VIT = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 4096,
    "image_size": 448,
    "norm_type": "layer_norm",
    "qkv_bias": True,
    "qk_normalization": False,
}


def _internvl(text: dict[str, Any]) -> dict[str, Any]:
    sizes = {"vocab_size": 151674, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return {
        "model_type": "internvl_chat",
        "llm_config": {"model_type": "qwen2", **sizes, **text},
        "vision_config": _INTERN_VIT,
    }


# name: class, config.json, parameters
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    "google-bert/bert-base-uncased": ("BertModel", {"model_type": "bert"}, 109_482_240),
    "FacebookAI/roberta-base": (
        "RobertaModel",
        {
            "model_type": "roberta",
            "vocab_size": 50265,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
        124_645_632,
    ),
    "distilbert/distilbert-base-uncased": (
        "DistilBertModel",
        {"model_type": "distilbert"},
        66_362_880,
    ),
    "albert/albert-base-v2": (
        "AlbertModel",
        {
            "model_type": "albert",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
        },
        11_683_584,
    ),
    "sentence-transformers/all-MiniLM-L6-v2": (
        "BertModel",
        {
            "model_type": "bert",
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
        },
        22_713_216,
    ),
    "google-t5/t5-small": ("T5ForConditionalGeneration", {"model_type": "t5"}, 60_506_624),
    "google-t5/t5-base": (
        "T5ForConditionalGeneration",
        {
            "model_type": "t5",
            "d_model": 768,
            "d_ff": 3072,
            "num_heads": 12,
            "num_layers": 12,
        },
        222_903_552,
    ),
    "google/flan-t5-base": (
        "T5ForConditionalGeneration",
        {
            "model_type": "t5",
            "d_model": 768,
            "d_ff": 2048,
            "num_heads": 12,
            "num_layers": 12,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
        247_577_856,
    ),
    "openai/whisper-tiny": (
        "WhisperForConditionalGeneration",
        {"model_type": "whisper"},
        37_760_640,
    ),
    "openai/whisper-large-v3": (
        "WhisperForConditionalGeneration",
        {
            "model_type": "whisper",
            "vocab_size": 51866,
            "d_model": 1280,
            "num_mel_bins": 128,
            "encoder_layers": 32,
            "decoder_layers": 32,
            "encoder_attention_heads": 20,
            "decoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "decoder_ffn_dim": 5120,
        },
        1_543_490_560,
    ),
    "google/vit-base-patch16-224": (
        "ViTForImageClassification",
        {"model_type": "vit", "id2label": {str(i): f"{i}" for i in range(1000)}},
        86_567_656,
    ),
    "facebook/dinov2-base": (
        "Dinov2Model",
        {"model_type": "dinov2", "image_size": 518},
        86_580_480,
    ),
    "deepmind/language-perceiver": (
        "PerceiverForMaskedLM",
        {"model_type": "perceiver", "qk_channels": 256, "v_channels": 1280},
        201_108_230,
    ),
    "microsoft/swin-tiny-patch4-window7-224": (
        "SwinForImageClassification",
        {"model_type": "swin", "num_labels": 1000},
        28_288_354,  # these three as torchvision's documentation has them
    ),
    "microsoft/swin-small-patch4-window7-224": (
        "SwinForImageClassification",
        {"model_type": "swin", "depths": [2, 2, 18, 2], "num_labels": 1000},
        49_606_258,
    ),
    "microsoft/swin-base-patch4-window7-224": (
        "SwinForImageClassification",
        {
            "model_type": "swin",
            "embed_dim": 128,
            "depths": [2, 2, 18, 2],
            "num_heads": [4, 8, 16, 32],
            "num_labels": 1000,
        },
        87_768_224,
    ),
    "nvidia/segformer-b0-finetuned-ade-512-512": (
        "SegformerForSemanticSegmentation",
        {"model_type": "segformer", "num_labels": 150},
        3_752_694,
    ),
    "openai/clip-vit-base-patch32": ("CLIPModel", {"model_type": "clip"}, 151_277_313),
    "openai/clip-vit-large-patch14": (
        "CLIPModel",
        {
            "model_type": "clip",
            "projection_dim": 768,
            "text_config": {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_attention_heads": 12,
            },
            "vision_config": {**_CLIP_L, "image_size": 224},
        },
        427_616_513,
    ),
    "google/siglip-base-patch16-224": ("SiglipModel", {"model_type": "siglip"}, 203_155_970),
    "llava-hf/llava-1.5-7b-hf": (
        "LlavaForConditionalGeneration",
        {
            "model_type": "llava",
            "text_config": {"model_type": "llama", "vocab_size": 32064},
            "vision_config": _CLIP_L,
            "transformers_version": "4.36.0",
        },
        7_063_427_072,
    ),
    "Qwen/Qwen2-VL-2B-Instruct": (
        "Qwen2VLForConditionalGeneration",
        {
            "model_type": "qwen2_vl",
            "vocab_size": 151936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "vision_config": {**_QWEN2_VL_VISION, "hidden_size": 1536},
        },
        2_208_985_600,
    ),
    "Qwen/Qwen2-VL-7B-Instruct": (
        "Qwen2VLForConditionalGeneration",
        {
            "model_type": "qwen2_vl",
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            "vision_config": {**_QWEN2_VL_VISION, "hidden_size": 3584},
        },
        8_291_375_616,
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "model_type": "qwen2_5_vl",
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "vision_config": {**_QWEN2_5_VL_VISION, "out_hidden_size": 2048},
        },
        3_754_622_976,
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "model_type": "qwen2_5_vl",
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            "vision_config": {**_QWEN2_5_VL_VISION, "out_hidden_size": 3584},
        },
        8_292_166_656,
    ),
    "facebook/wav2vec2-base-960h": ("Wav2Vec2ForCTC", {"model_type": "wav2vec2"}, 94_396_320),
    "facebook/wav2vec2-large-960h": (
        "Wav2Vec2ForCTC",
        {
            "model_type": "wav2vec2",
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
        315_461_792,
    ),
    "OpenGVLab/InternVL2_5-1B": (
        "InternVLChatModel",
        _internvl(
            {
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
            }
        ),
        938_193_024,
    ),
    "OpenGVLab/InternVL2_5-2B": (
        "InternVLChatModel",
        _internvl(
            {
                "model_type": "internlm2",
                "vocab_size": 92553,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "bias": False,
            }
        ),
        2_205_754_368,
    ),
    "OpenGVLab/InternVL2_5-4B": (
        "InternVLChatModel",
        _internvl(
            {
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
            }
        ),
        3_712_637_952,
    ),
    # No field says whether its head is tied, as transformers 4 wrote it.
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": (
        "Mistral3ForConditionalGeneration",
        {
            "model_type": "mistral3",
            "transformers_version": "4.50.0.dev0",
            "multimodal_projector_bias": False,
            "vision_feature_layer": -1,
            "text_config": {
                "model_type": "mistral",
                "head_dim": 128,
                "hidden_size": 5120,
                "intermediate_size": 32768,
                "num_attention_heads": 32,
                "num_hidden_layers": 40,
                "num_key_value_heads": 8,
                "vocab_size": 131072,
            },
            "vision_config": {
                "model_type": "pixtral",
                "head_dim": 64,
                "hidden_size": 1024,
                "image_size": 1540,
                "intermediate_size": 4096,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": 14,
            },
        },
        24_011_361_280,
    ),
    "microsoft/trocr-base-printed": (
        "VisionEncoderDecoderModel",
        {
            "model_type": "vision-encoder-decoder",
            "encoder": {"model_type": "vit", "image_size": 384, "qkv_bias": False},
            "decoder": {
                "model_type": "trocr",
                "cross_attention_hidden_size": 768,
                "vocab_size": 50265,
            },
        },
        333_921_792,
    ),
    "answerdotai/ModernBERT-base": (
        "ModernBertForMaskedLM",
        {"model_type": "modernbert"},
        149_655_232,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_count(name: str) -> None:
    class_name, config, count = PUBLISHED[name]
    layout = layout_of_class(config | {"architectures": [class_name]})
    assert layout is not None
    assert layout.count() == count
