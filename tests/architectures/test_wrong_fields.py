"""Values of fields that no model has: an error that names the field, whatever the type."""

import pytest

from minilm.architectures import layout_of
from minilm.errors import ConfigError


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"model_type": "gpt2", "n_embd": 0}, "n_embd"),
        ({"model_type": "gpt2", "n_layer": "12"}, "n_layer"),
        ({"model_type": "gpt2", "n_layer": 10**9}, "n_layer"),
        ({"model_type": "gpt2", "tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"model_type": "llama", "hidden_size": 2.5}, "hidden_size"),
        ({"model_type": "llama", "hidden_size": 100, "num_attention_heads": 3}, "hidden_size"),
        ({"model_type": "llama", "num_key_value_heads": 5}, "num_key_value_heads"),
        ({"model_type": "deepseek_v4", "o_groups": 9}, "o_groups"),
        (
            {
                "model_type": "deepseek_ocr2",
                "vision_config": {"sam_config": {"downsample_channels": [1]}},
            },
            "downsample_channels",
        ),
        (
            {"model_type": "detr", "backbone_config": {"model_type": "resnet", "out_indices": []}},
            "out_indices",
        ),
        ({"model_type": "florence2", "vision_config": {"embed_dim": [4] * 5}}, "depths"),
        ({"model_type": "florence2", "vision_config": {"patch_prenorm": 0}}, "patch_prenorm"),
        (
            {"model_type": "granite4_vision", "vision_config": {"model_type": "x"}},
            "vision_config",
        ),
        ({"model_type": "longt5", "encoder_attention_type": []}, "encoder_attention_type"),
        ({"model_type": "granite_speech", "window_size": 3}, "downsample_rate"),
        ({"model_type": "reformer", "hidden_size": 255}, "axial_pos_embds_dim"),
        (
            {"model_type": "blt", "vocab_size": 7, "tie_word_embeddings": True},
            "tie_word_embeddings",
        ),
        ({"model_type": "florence2", "vision_config": {"mlp_ratio": -1}}, "mlp_ratio"),
        ({"model_type": "janus", "vision_config": {"mlp_ratio": 1e308}}, "mlp_ratio"),
        ({"model_type": "swin", "mlp_ratio": -1e308}, "mlp_ratio"),
        ({"model_type": "mobilevit", "mlp_ratio": 0}, "mlp_ratio"),
        ({"model_type": "openelm", "ffn_multipliers": 1e308}, "ffn_multipliers"),
        (
            {
                "model_type": "nemotron-nas",
                "num_hidden_layers": 1,
                "block_configs": [{"ffn": {"ffn_mult": 1e308}}],
            },
            "ffn_mult",
        ),
        ({"model_type": "xlstm", "weight_mode": "both"}, "weight_mode"),
        (
            {
                "model_type": "moonshine_streaming",
                "encoder_config": {"frame_ms": 1e308},
                "num_key_value_heads": 8,
            },
            "sample_rate, frame_ms",
        ),
        ({"model_type": "vit", "image_size": 15}, "patch_size"),
        ({"model_type": "siglip", "vision_config": {"image_size": 3}}, "patch_size"),
        ({"model_type": "internvl", "vision_config": {"image_size": [448, 3]}}, "patch_size"),
        ({"model_type": "got_ocr2", "vision_config": {"hidden_size": 4}}, "num_attention_heads"),
        ({"model_type": "xmod", "adapter_reduction_factor": 769}, "adapter_reduction_factor"),
        ({"model_type": "chameleon", "vq_config": {"num_res_blocks": 10_000}}, "num_res_blocks"),
        ({"model_type": "mobilebert", "embedding_size": 513}, "embedding_size"),
        (
            {"model_type": "ovis2", "vision_config": {"vocab_size": 4}},
            "num_visual_indicator_tokens",
        ),
        (
            {
                "model_type": "minicpmv4_6",
                "merger_times": 2**31,
                "architectures": ["MiniCPMV4_6ForConditionalGeneration"],
            },
            "merger_times",
        ),
        ({"model_type": "florence2", "vision_config": {"depths": [10_000] * 4}}, "depths"),
        ({"model_type": "focalnet", "focal_levels": [2**31] * 4}, "focal_levels"),
        ({"model_type": "hgnet_v2", "stage_numb_of_layers": [999] * 4}, "stage_numb_of_layers"),
        (
            {"model_type": "mobilebert", "num_feedforward_networks": 10_000},
            "num_feedforward_networks",
        ),
        ({"model_type": "albert", "inner_group_num": 10_000}, "inner_group_num"),
        (
            {
                "model_type": "speecht5",
                "architectures": ["SpeechT5ForTextToSpeech"],
                "speech_decoder_prenet_layers": 2**31,
            },
            "speech_decoder_prenet_layers",
        ),
        (
            {
                "model_type": "speecht5",
                "architectures": ["SpeechT5ForTextToSpeech"],
                "speech_decoder_postnet_layers": 2**31,
            },
            "speech_decoder_postnet_layers",
        ),
        (
            {
                "model_type": "roformer",
                "architectures": ["RoFormerForSequenceClassification"],
                "id2label": True,
            },
            "id2label",
        ),
        ({"model_type": "convnext", "id2label": {}}, "id2label"),
        ({"model_type": "convnext", "id2label": {"a": "b"}}, "id2label"),
        (
            {"model_type": "cvt", "qkv_projection_method": ["dw_bn", [], "avg"]},
            "qkv_projection_method",
        ),
        (
            {
                "model_type": "mllama",
                "architectures": ["MllamaForConditionalGeneration"],
                "vision_config": {"supported_aspect_ratios": [[1, 1, 1]]},
            },
            "supported_aspect_ratios",
        ),
        (
            {"model_type": "deberta-v2", "relative_attention": True, "position_buckets": []},
            "position_buckets",
        ),
        ({"model_type": "deberta-v2", "norm_rel_ebd": 1}, "norm_rel_ebd"),
        ({"model_type": "nystromformer", "type_vocab_size": False}, "type_vocab_size"),
        (
            {"model_type": "speecht5_hifigan", "resblock_dilation_sizes": []},
            "resblock_dilation_sizes",
        ),
        (
            {
                "model_type": "convnext",
                "architectures": ["ConvNextBackbone"],
                "out_indices": [0, -5],
            },
            "out_indices",
        ),
        (
            {
                "model_type": "aria",
                "architectures": ["AriaForConditionalGeneration"],
                "projector_patch_to_query_dict": [],
            },
            "projector_patch_to_query_dict",
        ),
        ({"model_type": "helium", "head_dim": 64}, "head_dim"),
        ({"model_type": "recurrent_gemma", "lru_width": 1}, "num_attention_heads"),
        (
            {
                "model_type": "vision-encoder-decoder",
                "encoder": {"model_type": "vit"},
                "decoder": {"model_type": "trocr", "cross_attention_hidden_size": 1024},
            },
            "cross_attention_hidden_size",
        ),
        (
            {
                "model_type": "esm",
                "vocab_size": 9,
                "position_embedding_type": [],
            },
            "position_embedding_type",
        ),
        ({"model_type": "mobilenet_v2", "expand_ratio": -1}, "expand_ratio"),
        (
            {
                "model_type": "nemotron_h_omni",
                "architectures": ["NemotronH_Omni_Reasoning_V3"],
                "vision_config": {"hidden_size": 1281},
            },
            "hidden_size",
        ),
        ({"model_type": "mobilebert", "intra_bottleneck_size": 129}, "intra_bottleneck_size"),
        ({"model_type": "dots3_note_text", "swa_head_dim": 1}, "swa_qk_nope_head_dim"),
        ({"model_type": "hf_olmo", "activation_type": "silu"}, "activation_type"),
        ({"model_type": "internvl", "vision_config": {"norm_type": "x"}}, "norm_type"),
        ({"model_type": "llava", "vision_feature_layer": []}, "vision_feature_layer"),
        ({"model_type": "vipllava", "vision_feature_layer": ["x"]}, "vision_feature_layer"),
        (
            {"model_type": "granite4_vision", "downsample_rate": f"4/{'9' * 5000}"},
            "downsample_rate",
        ),
        ({"model_type": "gemma4_text", "per_layer_config": {"9" * 5000: {}}}, "per_layer_config"),
        (
            {"model_type": "dots3_note", "text_config": {"per_layer_config": {"9" * 5000: {}}}},
            "per_layer_config",
        ),
        (
            {
                "model_type": "gemma4",
                "architectures": ["Gemma4ForConditionalGeneration"],
                "audio_config": {"subsampling_conv_channels": [1, "x"]},
            },
            "subsampling_conv_channels",
        ),
    ],
)
def test_a_wrong_size_names_its_field(config: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=f"config.json: {field}: "):
        layout_of(config)


def test_a_layer_that_is_listed_twice_is_read_twice() -> None:
    twice, different = (
        layout_of(
            {"model_type": "qwen3_vl", "vision_config": {"deepstack_visual_indexes": [2, other]}}
        )
        for other in (2, 3)
    )
    assert twice.count() == different.count()


@pytest.mark.parametrize(
    ("model_type", "field"),
    [
        ("canary", "encoder_config"),
        ("vibevoice_asr", "semantic_tokenizer_encoder_config"),
    ],
)
def test_a_part_without_fields_is_not_one_that_is_left_out(model_type: str, field: str) -> None:
    absent, null, empty = (
        layout_of({"model_type": model_type} | fields).count()
        for fields in ({}, {field: None}, {field: {}})
    )
    assert absent == null > empty


def test_a_decoder_without_fields_has_no_attention_to_pictures() -> None:
    whole, plain = (
        layout_of({"model_type": "vision-encoder-decoder"} | fields).count()
        for fields in ({}, {"decoder": {}})
    )
    assert whole - plain == 12 * (4 * 768**2 + (4 + 2) * 768)


@pytest.mark.parametrize(
    ("model_type", "field"),
    [
        ("bamba", "mamba_conv_bias"),
        ("blt", "patch_in_forward"),
        ("falcon", "multi_query"),
        ("falcon", "parallel_attn"),
        ("mt5", "is_gated_act"),
    ],
)
def test_null_is_false(model_type: str, field: str) -> None:
    default, null, false = (
        layout_of({"model_type": model_type} | fields).count()
        for fields in ({}, {field: None}, {field: False})
    )
    assert default != null == false


@pytest.mark.parametrize(
    ("model_type", "field"),
    [
        ("bert", "type_vocab_size"),
        ("deepseek_v3", "n_shared_experts"),
        ("llama", "hidden_size"),
        ("llama", "num_hidden_layers"),
        ("llama", "vocab_size"),
        ("resnet", "depths"),
        ("vit", "image_size"),
    ],
)
def test_a_size_that_is_null_is_refused(model_type: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: None"):
        layout_of({"model_type": model_type, field: None})


@pytest.mark.parametrize(
    ("model_type", "field"),
    [
        ("blt", "encoder_hash_byte_group_size"),
        ("exaone4", "sliding_window_pattern"),
        ("falcon", "ffn_hidden_size"),
        ("gpt2", "n_inner"),
        ("gpt_neo", "intermediate_size"),
        ("jais", "n_inner"),
        ("llama", "head_dim"),
        ("llama", "num_key_value_heads"),
        ("llava", "text_config"),
        ("olmo_hybrid", "linear_value_head_dim"),
        ("opt", "word_embed_proj_dim"),
        ("roformer", "embedding_size"),
        ("siglip", "text_config"),
        ("vit", "pooler_output_size"),
    ],
)
def test_null_is_the_default_where_that_follows_from_others(model_type: str, field: str) -> None:
    assert layout_of({"model_type": model_type, field: None}) == layout_of(
        {"model_type": model_type}
    )
