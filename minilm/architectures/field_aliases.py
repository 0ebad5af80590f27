"""The second names that transformers' configuration classes take for fields, by `model_type`.

Those that a declaration reads by itself are not here. Where a config.json has both names, the second one
wins in transformers. Source: `attribute_map` in huggingface/transformers `models/TYPE/configuration_*.py`.
"""

from __future__ import annotations

_DEPTH = {"num_hidden_layers": "depth", "num_attention_heads": "num_heads"}
_ENCODER = {
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "num_hidden_layers": "encoder_layers",
}
_DECODER = {"num_attention_heads": "decoder_attention_heads", "num_hidden_layers": "decoder_layers"}
_WHISPER = {  # Whisper's names, for what is called as in Llama
    "d_model": "hidden_size",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_dim": "intermediate_size",
    "encoder_layers": "num_hidden_layers",
}
_T5 = {"hidden_size": "d_model", "num_attention_heads": "num_heads"}

_GROUPS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "bart bigbird_pegasus blenderbot blenderbot-small detr led m2m_100 marian mbart mvp nllb-moe pegasus "
        "pegasus_x plbart speech_to_text table-transformer whisper",
        _ENCODER,
    ),
    (
        "rt_detr",
        {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"},
    ),
    ("seamless_m4t seamless_m4t_v2", _DECODER),
    ("trocr", {"hidden_size": "d_model", **_DECODER}),
    (
        "speecht5",
        {"num_attention_heads": "encoder_attention_heads", "num_hidden_layers": "encoder_layers"},
    ),
    (
        "xglm",
        {
            "hidden_size": "d_model",
            "num_attention_heads": "attention_heads",
            "num_hidden_layers": "num_layers",
        },
    ),
    ("pop2piano switch_transformers udop", _T5),
    ("longt5 mt5 t5 umt5", {**_T5, "head_dim": "d_kv"}),
    (
        "distilbert",
        {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    ),
    ("deepseek_ocr2_text deepseek_v2 unlimited_ocr_text", {"num_experts": "n_routed_experts"}),
    ("deepseek_v3", {"num_mtp_layers": "num_nextn_predict_layers"}),
    ("glm4_moe_lite", {"head_dim": "qk_rope_head_dim"}),
    ("hunyuan_vl_text", {"org_vocab_size": "vocab_size"}),
    (
        "kosmos_2_5_text_model kosmos_2_text_model",
        {
            "hidden_size": "embed_dim",
            "num_attention_heads": "attention_heads",
            "num_hidden_layers": "layers",
        },
    ),
    ("moonshine", {"num_hidden_layers": "decoder_num_hidden_layers"}),
    ("recurrent_gemma", {"sliding_window": "attention_window_size"}),
    ("segformer", {"num_hidden_layers": "num_encoder_blocks"}),
    # The parts of larger models.
    (
        "pix2struct_text_model",
        {
            "num_hidden_layers": "num_layers",
            "encoder_layers": "num_layers",
            "decoder_layers": "num_layers",
            "num_attention_heads": "num_heads",
            "encoder_attention_heads": "num_heads",
            "decoder_attention_heads": "num_heads",
        },
    ),
    (
        "cohere_compass_vision exaone4_5_vision glm4v_moe_vision glm4v_vision glm_ocr_vision "
        "qwen2_5_omni_vision_encoder qwen2_5_vl_vision qwen2_vl_vision qwen3_5_moe_vision qwen3_5_vision "
        "qwen3_omni_moe_vision_encoder qwen3_vl_moe_vision qwen3_vl_vision",
        _DEPTH,
    ),
    ("audioflamingo3_encoder moss_transcribe_diarize_audio voxtral_encoder", _WHISPER),
    ("voxtral_realtime_encoder", {**_WHISPER, "num_key_value_heads": "num_attention_heads"}),
)
FIELD_ALIASES = {name: aliases for names, aliases in _GROUPS for name in names.split()}
