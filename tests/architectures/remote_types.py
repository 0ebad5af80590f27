"""Types of remote code: a small config of each, and the tensors that its modelling file makes of it.

The lists are written from the published files, not from the declarations. `*` stands for the number of
every layer, `<0,2>` for those of some; a line begins with `tie`, `buffer` or `mtp` where the name is a tie of
the embedding, a buffer, or of a module for multi-token prediction.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]


class Case(NamedTuple):
    """``cache`` is what a token leaves in the KV cache of all layers; ``source`` a repository and a file."""

    source: str
    config: Config
    tensors: str
    cache: int


SIZES: Config = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 6,
}
GROUPED: Config = SIZES | {"num_key_value_heads": 2}
GPT_SIZES: Config = {"vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 4, "n_positions": 5}
EXPERTS: Config = {"num_experts": 2, "num_experts_per_tok": 1}

OUTSIDE = """
model.embed_tokens.weight 11 8
model.norm.weight 8
lm_head.weight 11 8
"""
TIED = """
model.embed_tokens.weight 11 8
model.norm.weight 8
tie lm_head.weight
"""
NORMS = """
model.layers.*.input_layernorm.weight 8
model.layers.*.post_attention_layernorm.weight 8
"""
MLP = """
model.layers.*.mlp.gate_proj.weight 6 8
model.layers.*.mlp.up_proj.weight 6 8
model.layers.*.mlp.down_proj.weight 8 6
"""
ATTENTION = """
model.layers.*.self_attn.q_proj.weight 8 8
model.layers.*.self_attn.k_proj.weight 8 8
model.layers.*.self_attn.v_proj.weight 8 8
model.layers.*.self_attn.o_proj.weight 8 8
"""
GROUPED_ATTENTION = """
model.layers.*.self_attn.q_proj.weight 8 8
model.layers.*.self_attn.k_proj.weight 4 8
model.layers.*.self_attn.v_proj.weight 4 8
model.layers.*.self_attn.o_proj.weight 8 8
"""
FOUR_BIASES = """
model.layers.*.self_attn.q_proj.bias 8
model.layers.*.self_attn.k_proj.bias 8
model.layers.*.self_attn.v_proj.bias 8
model.layers.*.self_attn.o_proj.bias 8
"""
GROUPED_BIASES = """
model.layers.*.self_attn.q_proj.bias 8
model.layers.*.self_attn.k_proj.bias 4
model.layers.*.self_attn.v_proj.bias 4
"""
HEAD_NORMS = """
model.layers.*.self_attn.q_norm.weight 2
model.layers.*.self_attn.k_norm.weight 2
"""
LING_OUTSIDE = """
model.word_embeddings.weight 11 8
model.norm.weight 8
lm_head.weight 11 8
"""
LING_ATTENTION = """
model.layers.{at}.attention.query_key_value.weight 16 8
model.layers.{at}.attention.dense.weight 8 8
"""
LING_NORMS = """
model.layers.*.attention.query_layernorm.weight 2
model.layers.*.attention.key_layernorm.weight 2
"""
PHI_BLOCK = """
{at}.ln.weight 8
{at}.ln.bias 8
{at}.mixer.Wqkv.weight 16 8
{at}.mixer.Wqkv.bias 16
{at}.mixer.out_proj.weight 8 8
{at}.mixer.out_proj.bias 8
{at}.mlp.fc1.weight 32 8
{at}.mlp.fc1.bias 32
{at}.mlp.fc2.weight 8 32
{at}.mlp.fc2.bias 8
"""
FALCON = """
transformer.word_embeddings.weight 11 8
tie lm_head.weight
transformer.ln_f.weight 8
transformer.ln_f.bias 8
transformer.h.*.self_attention.dense.weight 8 8
transformer.h.*.mlp.dense_h_to_4h.weight 32 8
transformer.h.*.mlp.dense_4h_to_h.weight 8 32
"""


def experts(prefix: str, names: str, numbers: str = "<0,1>", width: int = 6) -> str:
    """Gate, up and down of each expert, (width, 8), (width, 8) and (8, width)."""
    gate, up, down = names.split()
    return f"""
{prefix}.{numbers}.{gate}.weight {width} 8
{prefix}.{numbers}.{up}.weight {width} 8
{prefix}.{numbers}.{down}.weight 8 {width}
"""


def within(prefix: str, tensors: str) -> str:
    """The same under a prefix."""
    return "".join(f"{prefix}.{line}\n" for line in tensors.splitlines() if line)


MIXTRAL_NAMES, LLAMA_NAMES = "w1 w3 w2", "gate_proj up_proj down_proj"
FALCON_FIELDS: Config = {"vocab_size": 11, "hidden_size": 8, "n_layer": 2, "n_head": 4}
LINEAR_AT_1: Config = {"attn_type_list": [1, 0], "head_dim": 2, "num_local_experts": 2}
MINIMAX = (
    OUTSIDE
    + NORMS
    + GROUPED_ATTENTION.replace("*", "0")
    + """
model.layers.1.self_attn.qkv_proj.weight 24 8
model.layers.1.self_attn.output_gate.weight 8 8
model.layers.1.self_attn.norm.weight 8
model.layers.1.self_attn.out_proj.weight 8 8
model.layers.*.block_sparse_moe.gate.weight 2 8
"""
    + experts("model.layers.*.block_sparse_moe.experts", MIXTRAL_NAMES)
)
STEP3 = (
    TIED
    + NORMS
    + """
model.layers.*.self_attn.q_proj.weight 5 8
model.layers.*.self_attn.inter_norm.weight 5
model.layers.*.self_attn.wq.weight 12 5
model.layers.*.self_attn.k_proj.weight 3 8
model.layers.*.self_attn.v_proj.weight 3 8
model.layers.*.self_attn.o_proj.weight 8 12
model.layers.1.moe.gate.weight 2 8
model.layers.1.moe.gate_proj.weight 2 9 8
model.layers.1.moe.up_proj.weight 2 9 8
model.layers.1.moe.down_proj.weight 2 8 9
model.layers.1.share_expert.gate_proj.weight 7 8
model.layers.1.share_expert.up_proj.weight 7 8
model.layers.1.share_expert.down_proj.weight 8 7
"""
    + MLP.replace("*", "0")
)
KIMI_FIELDS: Config = {
    "tie_word_embeddings": False,
    "projection_hidden_size": 7,
    "text_config": SIZES
    | {
        "model_type": "kimi_k2",
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "first_k_dense_replace": 2,
        "q_lora_rank": None,
        "kv_lora_rank": 4,
        "qk_rope_head_dim": 2,
        "qk_nope_head_dim": 3,
        "v_head_dim": 5,
        "num_nextn_predict_layers": 0,
    },
    "vision_config": {
        "hidden_size": 6,
        "intermediate_size": 5,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "patch_size": 2,
        "pos_emb_height": 3,
        "pos_emb_width": 4,
        "merge_kernel_size": [2, 1],
    },
}
KIMI_VISION = """
vision_tower.patch_embed.proj.weight 6 3 2 2
vision_tower.patch_embed.proj.bias 6
vision_tower.patch_embed.pos_emb.weight 3 4 6
vision_tower.encoder.blocks.0.norm0.weight 6
vision_tower.encoder.blocks.0.norm0.bias 6
vision_tower.encoder.blocks.0.norm1.weight 6
vision_tower.encoder.blocks.0.norm1.bias 6
vision_tower.encoder.blocks.0.wqkv.weight 18 6
vision_tower.encoder.blocks.0.wqkv.bias 18
vision_tower.encoder.blocks.0.wo.weight 6 6
vision_tower.encoder.blocks.0.wo.bias 6
vision_tower.encoder.blocks.0.mlp.fc0.weight 5 6
vision_tower.encoder.blocks.0.mlp.fc0.bias 5
vision_tower.encoder.blocks.0.mlp.fc1.weight 6 5
vision_tower.encoder.blocks.0.mlp.fc1.bias 6
vision_tower.encoder.final_layernorm.weight 6
vision_tower.encoder.final_layernorm.bias 6
mm_projector.pre_norm.weight 7
mm_projector.pre_norm.bias 7
mm_projector.proj.0.weight 12 12
mm_projector.proj.0.bias 12
mm_projector.proj.2.weight 8 12
mm_projector.proj.2.bias 8
"""
KIMI_VL_FIELDS: Config = {
    "text_config": KIMI_FIELDS["text_config"] | {"model_type": "deepseek_v3"},
    "vision_config": {
        "hidden_size": 6,
        "intermediate_size": 5,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "patch_size": 2,
        "init_pos_emb_height": 3,
        "init_pos_emb_width": 4,
        "merge_kernel_size": [2, 1],
    },
}
KIMI_VL_VISION = (
    KIMI_VISION.partition("mm_projector")[0]
    + """
multi_modal_projector.pre_norm.weight 6
multi_modal_projector.pre_norm.bias 6
multi_modal_projector.linear_1.weight 12 12
multi_modal_projector.linear_1.bias 12
multi_modal_projector.linear_2.weight 8 12
multi_modal_projector.linear_2.bias 8
"""
)
KIMI_ATTENTION = """
model.layers.*.self_attn.q_proj.weight 10 8
model.layers.*.self_attn.kv_a_proj_with_mqa.weight 6 8
model.layers.*.self_attn.kv_a_layernorm.weight 4
model.layers.*.self_attn.kv_b_proj.weight 16 4
model.layers.*.self_attn.o_proj.weight 8 10
"""
STEP3_VISION = """
vision_model.embeddings.class_embedding 1 6
vision_model.embeddings.patch_embedding.weight 6 3 4 4
vision_model.embeddings.patch_embedding.bias 6
vision_model.embeddings.position_embedding.weight 10 6
vision_model.transformer.layers.0.self_attn.qkv_proj.weight 18 6
vision_model.transformer.layers.0.self_attn.qkv_proj.bias 18
vision_model.transformer.layers.0.self_attn.out_proj.weight 6 6
vision_model.transformer.layers.0.self_attn.out_proj.bias 6
vision_model.transformer.layers.0.layer_norm1.weight 6
vision_model.transformer.layers.0.layer_norm1.bias 6
vision_model.transformer.layers.0.mlp.fc1.weight 5 6
vision_model.transformer.layers.0.mlp.fc1.bias 5
vision_model.transformer.layers.0.mlp.fc2.weight 6 5
vision_model.transformer.layers.0.mlp.fc2.bias 6
vision_model.transformer.layers.0.layer_norm2.weight 6
vision_model.transformer.layers.0.layer_norm2.bias 6
vit_downsampler.weight 7 6 2 2
vit_downsampler.bias 7
vit_downsampler2.weight 14 7 3 3
vit_downsampler2.bias 14
vit_large_projector.weight 8 14
"""
STEP3_FIELDS: Config = SIZES | {
    "head_dim": 3,
    "share_q_dim": 5,
    "moe_layers_enum": "1",
    "moe_num_experts": 2,
    "moe_top_k": 1,
    "moe_intermediate_size": 9,
    "share_expert_dim": 7,
}
STEP3P5_FIELDS: Config = SIZES | {
    "num_attention_groups": 2,
    "num_hidden_layers": 3,
    "head_dim": 3,
    "attention_other_setting": {
        "attention_type": "sliding_attention",
        "num_attention_heads": 6,
        "num_attention_groups": 2,
        "head_dim": 3,
    },
    "layer_types": ["full_attention", *["sliding_attention"] * 4],
    "sliding_window": 4,
    "moe_layers_enum": "1,2",
    "moe_num_experts": 2,
    "moe_top_k": 1,
    "moe_intermediate_size": 9,
    "share_expert_dim": 7,
    "num_nextn_predict_layers": 2,
    "use_head_wise_attn_gate": True,
}
STEP3P5_ATTENTION = """
model.layers.{0}.self_attn.q_proj.weight {1} 8
model.layers.{0}.self_attn.k_proj.weight 6 8
model.layers.{0}.self_attn.v_proj.weight 6 8
model.layers.{0}.self_attn.o_proj.weight 8 {1}
model.layers.{0}.self_attn.g_proj.weight {2} 8
"""
STEP3P5_NORMS = (
    NORMS
    + """
model.layers.*.self_attn.q_norm.weight 3
model.layers.*.self_attn.k_norm.weight 3
"""
)
STEP3P5_MTP = (
    (STEP3P5_NORMS + MLP).replace("*", "<3,4>")
    + STEP3P5_ATTENTION.format("<3,4>", 18, 6)
    + """
model.layers.<3,4>.enorm.weight 8
model.layers.<3,4>.hnorm.weight 8
model.layers.<3,4>.eh_proj.weight 8 16
model.layers.<3,4>.transformer.shared_head.norm.weight 8
model.layers.<3,4>.transformer.shared_head.output.weight 11 8
"""
)
STEP3P5 = (
    OUTSIDE
    + STEP3P5_NORMS
    + STEP3P5_ATTENTION.format(0, 12, 4)
    + STEP3P5_ATTENTION.format("<1,2>", 18, 6)
    + MLP.replace("*", "0")
    + """
model.layers.<1,2>.moe.gate.weight 2 8
buffer model.layers.<1,2>.moe.router_bias 2
model.layers.<1,2>.moe.gate_proj.weight 2 9 8
model.layers.<1,2>.moe.up_proj.weight 2 9 8
model.layers.<1,2>.moe.down_proj.weight 2 8 9
model.layers.<1,2>.share_expert.gate_proj.weight 7 8
model.layers.<1,2>.share_expert.up_proj.weight 7 8
model.layers.<1,2>.share_expert.down_proj.weight 8 7
"""
    + "\n".join(f"mtp {line}" for line in STEP3P5_MTP.split("\n") if line)
)
PHI3 = (
    OUTSIDE
    + NORMS
    + """
model.layers.*.self_attn.qkv_proj.weight 16 8
model.layers.*.self_attn.o_proj.weight 8 8
model.layers.*.mlp.gate_up_proj.weight 12 8
model.layers.*.mlp.down_proj.weight 8 6
"""
)
CLIP_L = "".join(
    f"{layer}.self_attn.{name}.weight 1024 1024\n{layer}.self_attn.{name}.bias 1024\n"
    f"{layer}.layer_norm{number}.weight 1024\n{layer}.layer_norm{number}.bias 1024\n"
    for layer in (f"encoder.layers.{i}" for i in range(24))
    for name, number in (("q_proj", 1), ("k_proj", 1), ("v_proj", 2), ("out_proj", 2))
)
CLIP_L += "".join(
    f"encoder.layers.{i}.mlp.fc1.weight 4096 1024\nencoder.layers.{i}.mlp.fc1.bias 4096\n"
    f"encoder.layers.{i}.mlp.fc2.weight 1024 4096\nencoder.layers.{i}.mlp.fc2.bias 1024\n"
    for i in range(24)
)
CLIP_L += """
embeddings.class_embedding 1024
embeddings.patch_embedding.weight 1024 3 14 14
embeddings.position_embedding.weight 577 1024
pre_layrnorm.weight 1024
pre_layrnorm.bias 1024
post_layernorm.weight 1024
post_layernorm.bias 1024
"""
CLIP_336: Config = {
    "name": "clip_vision_model",
    "model_name": "openai/clip-vit-large-patch14-336",
    "image_dim_out": 1024,
}
PHI3_V_TOWER = within("model.vision_embed_tokens.img_processor.vision_model", CLIP_L)


def linear(names: str, rows: int, columns: int) -> str:
    """The weight (rows, columns) and the bias (rows,) of each of the ``names``."""
    return "".join(f"{n}.weight {rows} {columns}\n{n}.bias {rows}\n" for n in names.split())


def layer_norms(names: str, width: int) -> str:
    """The weight and the bias of each of the ``names``."""
    return "".join(f"{n}.weight {width}\n{n}.bias {width}\n" for n in names.split())


def lora(module: str, rows: int, columns: int) -> str:
    """A matrix of each layer beside the factors of two adapters, of ranks 2 and 3."""
    stem = f"model.layers.*.{module}"
    return f"""
{stem}.base_layer.weight {rows} {columns}
{stem}.lora_A.vision.weight 2 {columns}
{stem}.lora_B.vision.weight {rows} 2
{stem}.lora_A.speech.weight 3 {columns}
{stem}.lora_B.speech.weight {rows} 3
"""


SIGLIP_448 = (
    linear("embeddings.patch_embedding", 1152, 3).replace(" 1152 3\n", " 1152 3 14 14\n")
    + "embeddings.position_embedding.weight 1024 1152\n"
    + "".join(
        within(
            f"encoder.layers.{i}",
            layer_norms("layer_norm1 layer_norm2", 1152)
            + linear("self_attn.q_proj self_attn.k_proj", 1152, 1152)
            + linear("self_attn.v_proj self_attn.out_proj", 1152, 1152)
            + linear("mlp.fc1", 4304, 1152)
            + linear("mlp.fc2", 1152, 4304),
        )
        for i in range(27)
    )
    + layer_norms("post_layernorm head.layernorm", 1152)
    + """
head.probe 1 1 1152
head.attention.in_proj_weight 3456 1152
head.attention.in_proj_bias 3456
"""
    + linear("head.attention.out_proj", 1152, 1152)
    + linear("head.mlp.fc1", 4304, 1152)
    + linear("head.mlp.fc2", 1152, 4304)
)
PHI4MM_SOUND = (
    """
encoder.embed.conv.0.weight 4 1 3 3
encoder.embed.conv.0.bias 4
encoder.embed.conv.2.weight 4 1 3 3
encoder.embed.conv.2.bias 4
encoder.embed.conv.3.weight 4 4 1 1
encoder.embed.conv.3.bias 4
encoder.relative_attention_bias_layer.bias_values.weight 10 3
encoder.encoder_embedding.global_mean 16
encoder.encoder_embedding.global_invstd 16
encoder.encoders.0.conv.glu.b1 1 9 1
encoder.encoders.0.conv.glu.b2 1 9 1
encoder.encoders.0.conv.glu.ext_pw_conv_1d.weight 18 6 1
encoder.encoders.0.conv.glu.ext_pw_conv_1d.bias 18
encoder.encoders.0.conv.dw_sep_conv_1d.dw_conv.weight 12 1 5
encoder.encoders.0.conv.dw_sep_conv_1d.dw_conv.bias 12
encoder.encoders.0.conv.dw_sep_conv_1d.pw_conv.weight 7 12 1
encoder.encoders.0.conv.dw_sep_conv_1d.pw_conv.bias 7
encoder.encoders.0.conv.ext_pw_conv_1d.weight 9 6 1
encoder.encoders.0.conv.ext_pw_conv_1d.bias 9
"""
    + linear("encoder.embed.out", 6, 16)
    + within(
        "encoder.encoders.0",
        layer_norms("feed_forward_in.layer_norm feed_forward_out.layer_norm", 6)
        + layer_norms("conv.layer_norm layer_norm_att layer_norm", 6)
        + linear("feed_forward_in.net.0.linear feed_forward_out.net.0.linear", 10, 6)
        + linear("feed_forward_in.net.2 feed_forward_out.net.2", 6, 5)
        + linear("self_attn.linear_q self_attn.linear_k", 6, 6)
        + linear("self_attn.linear_v self_attn.linear_out", 6, 6),
    )
    + linear("audio_projection.speech.0 audio_projection.vision.0", 8, 12)
    + linear("audio_projection.speech.2 audio_projection.vision.2", 8, 8)
)
MINICPM_V_FIELDS: Config = GROUPED | {
    "version": 2.6,
    "query_num": 3,
    "vision_config": {
        "hidden_size": 6,
        "intermediate_size": 5,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 2,
        "image_size": 4,
    },
}
MINICPM_V_TOWER = within(
    "vpm",
    "embeddings.patch_embedding.weight 6 3 2 2\nembeddings.patch_embedding.bias 6\n"
    "embeddings.position_embedding.weight 4 6\n"
    + layer_norms("encoder.layers.0.layer_norm1 encoder.layers.0.layer_norm2 post_layernorm", 6)
    + linear("encoder.layers.0.self_attn.q_proj encoder.layers.0.self_attn.k_proj", 6, 6)
    + linear("encoder.layers.0.self_attn.v_proj encoder.layers.0.self_attn.out_proj", 6, 6)
    + linear("encoder.layers.0.mlp.fc1", 5, 6)
    + linear("encoder.layers.0.mlp.fc2", 6, 5),
)
MINICPM_V_RESAMPLER = (
    """
resampler.query 3 8
resampler.attn.in_proj_weight 24 8
resampler.attn.in_proj_bias 24
resampler.proj 8 8
"""
    + linear("resampler.attn.out_proj", 8, 8)
    + layer_norms("resampler.ln_q resampler.ln_kv resampler.ln_post", 8)
)
DEEPSEEK_VL2_FIELDS: Config = {
    "tile_tag": "2D",
    "vision_config": {"width": 6, "layers": 1, "patch_size": 2, "image_size": 4, "mlp_ratio": 1.7},
    "projector_config": {"input_dim": 6, "n_embed": 8},
    "language_config": SIZES
    | {"model_type": "deepseek_v2", "num_key_value_heads": 4, "use_mla": False},
}
DEEPSEEK_VL2_VISION = (
    """
image_newline 8
view_seperator 8
vision.patch_embed.proj.weight 6 3 2 2
vision.patch_embed.proj.bias 6
vision.pos_embed 1 4 6
vision.attn_pool.latent 1 1 6
"""
    + layer_norms(
        "vision.blocks.0.norm1 vision.blocks.0.norm2 vision.norm vision.attn_pool.norm", 6
    )
    + linear("vision.blocks.0.attn.qkv", 18, 6)
    + linear("vision.blocks.0.attn.proj vision.attn_pool.q vision.attn_pool.proj", 6, 6)
    + linear("vision.blocks.0.mlp.fc1 vision.attn_pool.mlp.fc1", 10, 6)
    + linear("vision.blocks.0.mlp.fc2 vision.attn_pool.mlp.fc2", 6, 10)
    + linear("vision.attn_pool.kv", 12, 6)
)
_ADAPTED = "((layers.*self_attn\\.(qkv|o)_proj)|(layers.*mlp\\.(gate_up|down)_proj))"
_ADAPTED_BY_VISION = "layers.*((self_attn\\.(qkv_proj|o_proj))|(mlp\\.(gate_up|down)_proj))"
PHI4MM_FIELDS: Config = GROUPED | {
    "tie_word_embeddings": True,
    "vision_lora": {"r": 2, "layer": _ADAPTED_BY_VISION},
    "speech_lora": {"r": 3, "layer": _ADAPTED},
    "embd_layer": {
        "image_embd_layer": {
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "image_token_compression_cls": "avg_pool_2d",
        },
        "audio_embd_layer": {"projection_cls": "mlp", "downsample_rate": 2},
    },
    "audio_processor": {
        "name": "cascades",
        "config": {
            "attention_dim": 6,
            "attention_heads": 3,
            "batch_norm": False,
            "bias_in_glu": True,
            "depthwise_multiplier": 2,
            "depthwise_seperable_out_channel": 7,
            "ext_pw_kernel_size": 1,
            "ext_pw_out_channel": 9,
            "input_size": 16,
            "kernel_size": 5,
            "linear_units": 5,
            "nemo_conv_settings": {"conv_channels": 4},
            "num_blocks": 1,
            "relative_attention_bias_args": {"t5_bias_max_distance": 5},
            "time_reduction": 4,
        },
    },
}

CASES: dict[str, list[Case]] = {
    "PanguEmbedded": [
        Case(
            "openPangu-Embedded-7B modeling_openpangu_dense.py",
            GROUPED,
            OUTSIDE
            + NORMS
            + GROUPED_ATTENTION
            + GROUPED_BIASES
            + "model.layers.*.self_attn.o_proj.bias 8"
            + MLP,
            16,
        )
    ],
    "RefinedWeb": [
        Case(
            "tiiuae/falcon-40b modelling_RW.py",
            FALCON_FIELDS | {"n_head_kv": 2},
            FALCON
            + """
transformer.h.*.self_attention.query_key_value.weight 16 8
transformer.h.*.ln_attn.weight 8
transformer.h.*.ln_attn.bias 8
transformer.h.*.ln_mlp.weight 8
transformer.h.*.ln_mlp.bias 8
""",
            16,
        )
    ],
    "RefinedWebModel": [
        Case(
            "tiiuae/falcon-7b modelling_RW.py",
            FALCON_FIELDS | {"multi_query": True, "parallel_attn": True},
            FALCON
            + """
transformer.h.*.self_attention.query_key_value.weight 12 8
transformer.h.*.input_layernorm.weight 8
transformer.h.*.input_layernorm.bias 8
""",
            8,
        )
    ],
    "Yi": [
        Case(
            "01-ai/Yi-6B modeling_yi.py (November 2023)",
            GROUPED,
            OUTSIDE
            + GROUPED_ATTENTION
            + MLP
            + "model.layers.*.ln1.weight 8\nmodel.layers.*.ln2.weight 8",
            16,
        )
    ],
    "aquila": [
        Case("foldl/chatllm.cpp convert.py", SIZES, OUTSIDE + NORMS + ATTENTION + MLP, 32),
    ],
    "arctic": [
        Case(
            "vllm-project/vllm models/arctic.py",
            GROUPED
            | {"num_local_experts": 2, "moe_layer_frequency": 2, "parallel_attn_mlp_res": True},
            OUTSIDE
            + NORMS
            + GROUPED_ATTENTION
            + experts("model.layers.<0>.block_sparse_moe", MIXTRAL_NAMES, "mlp")
            + experts("model.layers.<1>.block_sparse_moe.experts", MIXTRAL_NAMES)
            + experts("model.layers", MIXTRAL_NAMES, "1.residual_mlp", 8)
            + """
model.layers.1.block_sparse_moe.gate.weight 2 8
model.layers.1.residual_layernorm.weight 8
""",
            16,
        )
    ],
    "baichuan": [
        Case(
            "baichuan-inc/Baichuan2-13B-Chat modeling_baichuan.py",
            SIZES | {"model_max_length": 5},
            OUTSIDE
            + NORMS
            + MLP
            + """
model.layers.*.self_attn.W_pack.weight 24 8
model.layers.*.self_attn.o_proj.weight 8 8
""",
            32,
        )
    ],
    "bailing_moe": [
        Case(
            "inclusionAI/Ling-lite modeling_bailing_moe.py",
            GROUPED | EXPERTS | {"moe_intermediate_size": 5, "num_shared_experts": 2},
            LING_OUTSIDE
            + NORMS
            + LING_ATTENTION.format(at="*")
            + "model.layers.*.mlp.gate.weight 2 8"
            + experts("model.layers.*.mlp.experts", LLAMA_NAMES, width=5)
            + experts("model.layers.*.mlp", LLAMA_NAMES, "shared_experts", 10),
            16,
        ),
        Case(
            "inclusionAI/Ling-mini-2.0 modeling_bailing_moe_v2.py",
            GROUPED
            | EXPERTS
            | {
                "architectures": ["BailingMoeV2ForCausalLM"],
                "first_k_dense_replace": 1,
                "moe_intermediate_size": 5,
                "num_shared_experts": 1,
                "num_nextn_predict_layers": 1,
            },
            LING_OUTSIDE
            + NORMS
            + LING_ATTENTION.format(at="*")
            + LING_NORMS
            + MLP.replace("*", "0")
            + "model.layers.1.mlp.gate.weight 2 8\nbuffer model.layers.1.mlp.gate.expert_bias 2"
            + experts("model.layers.1.mlp.experts", LLAMA_NAMES, width=5)
            + experts("model.layers.1.mlp", LLAMA_NAMES, "shared_experts", 5)
            + """
mtp model.layers.2.eh_proj.weight 8 16
mtp model.layers.2.enorm.weight 8
mtp model.layers.2.hnorm.weight 8
mtp model.layers.2.final_layernorm.weight 8
mtp model.layers.2.input_layernorm.weight 8
mtp model.layers.2.post_attention_layernorm.weight 8
mtp model.layers.2.attention.query_key_value.weight 16 8
mtp model.layers.2.attention.dense.weight 8 8
mtp model.layers.2.attention.query_layernorm.weight 2
mtp model.layers.2.attention.key_layernorm.weight 2
mtp model.layers.2.mlp.gate.weight 2 8
mtp model.layers.2.mlp.gate.expert_bias 2
mtp model.layers.2.mlp.experts.<0,1>.gate_proj.weight 5 8
mtp model.layers.2.mlp.experts.<0,1>.up_proj.weight 5 8
mtp model.layers.2.mlp.experts.<0,1>.down_proj.weight 8 5
mtp model.layers.2.mlp.shared_experts.gate_proj.weight 5 8
mtp model.layers.2.mlp.shared_experts.up_proj.weight 5 8
mtp model.layers.2.mlp.shared_experts.down_proj.weight 8 5
""",
            16,
        ),
    ],
    "bailing_moe_linear": [
        Case(
            "ml-explore/mlx-lm models/bailing_moe_linear.py",
            GROUPED
            | EXPERTS
            | {"moe_intermediate_size": 5, "layer_group_size": 2, "use_qk_norm": True},
            LING_OUTSIDE
            + NORMS
            + LING_NORMS
            + LING_ATTENTION.format(at="1")
            + """
model.layers.0.attention.query_key_value.weight 24 8
model.layers.0.attention.dense.weight 8 8
model.layers.0.attention.g_proj.weight 8 8
model.layers.0.attention.g_norm.weight 8
model.layers.*.mlp.gate.weight 2 8
buffer model.layers.*.mlp.gate.expert_bias 2
"""
            + experts("model.layers.*.mlp.experts", LLAMA_NAMES, width=5),
            8,
        )
    ],
    "bailing_moe_v2": [
        Case(
            "inclusionAI/Ling-mini-2.0 modeling_bailing_moe_v2.py",
            GROUPED | EXPERTS | {"moe_intermediate_size": 5},
            LING_OUTSIDE
            + NORMS
            + LING_NORMS
            + LING_ATTENTION.format(at="*")
            + """
model.layers.*.mlp.gate.weight 2 8
buffer model.layers.*.mlp.gate.expert_bias 2
"""
            + experts("model.layers.*.mlp.experts", LLAMA_NAMES, width=5),
            16,
        )
    ],
    "chatglm": [
        Case(
            "THUDM/chatglm-6b modeling_chatglm.py",
            {
                "vocab_size": 11,
                "hidden_size": 8,
                "num_layers": 2,
                "num_attention_heads": 4,
                "inner_hidden_size": 6,
            },
            """
transformer.word_embeddings.weight 11 8
tie lm_head.weight
transformer.final_layernorm.weight 8
transformer.final_layernorm.bias 8
transformer.layers.*.input_layernorm.weight 8
transformer.layers.*.input_layernorm.bias 8
transformer.layers.*.post_attention_layernorm.weight 8
transformer.layers.*.post_attention_layernorm.bias 8
transformer.layers.*.attention.query_key_value.weight 24 8
transformer.layers.*.attention.query_key_value.bias 24
transformer.layers.*.attention.dense.weight 8 8
transformer.layers.*.attention.dense.bias 8
transformer.layers.*.mlp.dense_h_to_4h.weight 6 8
transformer.layers.*.mlp.dense_h_to_4h.bias 6
transformer.layers.*.mlp.dense_4h_to_h.weight 8 6
transformer.layers.*.mlp.dense_4h_to_h.bias 8
""",
            32,
        ),
        Case(
            "THUDM/chatglm3-6b modeling_chatglm.py",
            {
                "padded_vocab_size": 11,
                "hidden_size": 8,
                "num_layers": 2,
                "num_attention_heads": 4,
                "kv_channels": 3,
                "ffn_hidden_size": 6,
                "multi_query_attention": True,
                "multi_query_group_num": 2,
                "add_qkv_bias": True,
            },
            """
transformer.embedding.word_embeddings.weight 11 8
transformer.output_layer.weight 11 8
transformer.encoder.final_layernorm.weight 8
transformer.encoder.layers.*.input_layernorm.weight 8
transformer.encoder.layers.*.post_attention_layernorm.weight 8
transformer.encoder.layers.*.self_attention.query_key_value.weight 24 8
transformer.encoder.layers.*.self_attention.query_key_value.bias 24
transformer.encoder.layers.*.self_attention.dense.weight 8 12
transformer.encoder.layers.*.mlp.dense_h_to_4h.weight 12 8
transformer.encoder.layers.*.mlp.dense_4h_to_h.weight 8 6
""",
            24,
        ),
    ],
    "codeshell": [
        Case(
            "WisdomShell/CodeShell-7B modeling_codeshell.py",
            GPT_SIZES | {"n_inner": 6, "num_query_groups": 2, "position_embedding_type": "rope"},
            """
transformer.wte.weight 11 8
tie lm_head.weight
transformer.ln_f.weight 8
transformer.ln_f.bias 8
transformer.h.*.ln_1.weight 8
transformer.h.*.ln_1.bias 8
transformer.h.*.ln_2.weight 8
transformer.h.*.ln_2.bias 8
transformer.h.*.attn.c_attn.weight 16 8
transformer.h.*.attn.c_attn.bias 16
transformer.h.*.attn.c_proj.weight 8 8
transformer.h.*.attn.c_proj.bias 8
transformer.h.*.mlp.c_fc.weight 6 8
transformer.h.*.mlp.c_fc.bias 6
transformer.h.*.mlp.c_proj.weight 8 6
transformer.h.*.mlp.c_proj.bias 8
""",
            16,
        )
    ],
    "deci": [
        Case(
            "vllm-project/vllm models/decilm.py",
            SIZES | {"num_key_value_heads_per_layer": [2, 1]},
            OUTSIDE
            + NORMS
            + MLP
            + """
model.layers.*.self_attn.q_proj.weight 8 8
model.layers.0.self_attn.k_proj.weight 4 8
model.layers.0.self_attn.v_proj.weight 4 8
model.layers.1.self_attn.k_proj.weight 2 8
model.layers.1.self_attn.v_proj.weight 2 8
model.layers.*.self_attn.o_proj.weight 8 8
""",
            12,
        )
    ],
    "deepseek": [
        Case(
            "deepseek-ai/deepseek-moe-16b-base modeling_deepseek.py",
            GROUPED
            | {
                "n_routed_experts": 2,
                "num_experts_per_tok": 1,
                "n_shared_experts": 2,
                "moe_intermediate_size": 5,
                "first_k_dense_replace": 1,
            },
            OUTSIDE
            + NORMS
            + GROUPED_ATTENTION
            + MLP.replace("*", "0")
            + "model.layers.1.mlp.gate.weight 2 8"
            + experts("model.layers.1.mlp.experts", LLAMA_NAMES, width=5)
            + experts("model.layers.1.mlp", LLAMA_NAMES, "shared_experts", 10),
            16,
        )
    ],
    "deepseek_vl_v2": [
        Case(
            "deepseek-ai/DeepSeek-VL2 modeling_deepseek_vl_v2.py",
            DEEPSEEK_VL2_FIELDS,
            within("language", OUTSIDE + NORMS + ATTENTION + MLP)
            + DEEPSEEK_VL2_VISION
            + linear("projector.layers.0", 8, 24)
            + linear("projector.layers.2", 8, 8),
            32,
        ),
        Case(
            "deepseek-ai/DeepSeek-VL2 modeling_deepseek.py",
            DEEPSEEK_VL2_FIELDS
            | {
                "projector_config": {
                    "input_dim": 6,
                    "n_embed": 8,
                    "projector_type": "mlp_gelu",
                    "depth": 3,
                    "token_pooling": True,
                },
                "language_config": KIMI_FIELDS["text_config"]
                | {
                    "model_type": "deepseek_v2",
                    "first_k_dense_replace": 1,
                    "topk_method": "noaux_tc",
                    "n_routed_experts": 2,
                    "num_experts_per_tok": 1,
                    "n_shared_experts": 2,
                    "moe_intermediate_size": 3,
                },
            },
            within(
                "language",
                OUTSIDE
                + NORMS
                + KIMI_ATTENTION
                + MLP.replace("*", "0")
                + experts("model.layers.1.mlp.experts", LLAMA_NAMES, width=3)
                + MLP.replace("*.mlp", "1.mlp.shared_experts")
                + "model.layers.1.mlp.gate.weight 2 8\n",
            )
            + "buffer language.model.layers.1.mlp.gate.e_score_correction_bias 2\n"
            + DEEPSEEK_VL2_VISION
            + linear("projector.token_pooling_layer", 6, 24)
            + linear("projector.layers.0", 8, 6)
            + linear("projector.layers.2 projector.layers.4", 8, 8),
            12,
        ),
        Case(
            "deepseek-ai/DeepSeek-VL2 modeling_deepseek_vl_v2.py",
            DEEPSEEK_VL2_FIELDS
            | {
                "projector_config": {"input_dim": 6, "n_embed": 8, "projector_type": "linear"},
                "language_config": KIMI_FIELDS["text_config"] | {"first_k_dense_replace": 0},
            },
            within("language", OUTSIDE + NORMS + KIMI_ATTENTION + MLP)
            + DEEPSEEK_VL2_VISION
            + linear("projector.layers", 8, 6),
            12,
        ),
    ],
    "exaone": [
        Case(
            "LGAI-EXAONE/EXAONE-3.0-7.8B-Instruct modeling_exaone.py",
            {**GROUPED, "num_layers": 2, "num_hidden_layers": None, "tie_word_embeddings": False},
            """
transformer.wte.weight 11 8
lm_head.weight 11 8
transformer.ln_f.weight 8
transformer.h.*.ln_1.weight 8
transformer.h.*.ln_2.weight 8
transformer.h.*.attn.attention.q_proj.weight 8 8
transformer.h.*.attn.attention.k_proj.weight 4 8
transformer.h.*.attn.attention.v_proj.weight 4 8
transformer.h.*.attn.attention.out_proj.weight 8 8
transformer.h.*.mlp.c_fc_0.weight 6 8
transformer.h.*.mlp.c_fc_1.weight 6 8
transformer.h.*.mlp.c_proj.weight 8 6
""",
            16,
        )
    ],
    "grok-1": [
        Case(
            "erfanzar/EasyDeL modeling_grok_1.py",
            GROUPED | EXPERTS,
            TIED
            + """
model.layers.*.pre_attn_norm.weight 8
model.layers.*.post_attn_norm.weight 8
model.layers.*.pre_moe_norm.weight 8
model.layers.*.post_moe_norm.weight 8
model.layers.*.attn.q_proj.weight 8 8
model.layers.*.attn.k_proj.weight 4 8
model.layers.*.attn.v_proj.weight 4 8
model.layers.*.attn.o_proj.weight 8 8
model.layers.*.moe_block.gate.weight 2 8
"""
            + experts("model.layers.*.moe_block.experts", "linear linear_v linear_1"),
            16,
        )
    ],
    "hf_olmo": [
        Case(
            "allenai/OLMo olmo/model.py",
            {
                "vocab_size": 9,
                "embedding_size": 11,
                "d_model": 8,
                "n_layers": 2,
                "n_heads": 4,
                "mlp_hidden_size": 12,
                "rope": True,
                "include_bias": False,
                "layer_norm_with_affine": False,
                "weight_tying": False,
            },
            """
model.transformer.wte.weight 11 8
model.transformer.ff_out.weight 11 8
model.transformer.blocks.*.att_proj.weight 24 8
model.transformer.blocks.*.attn_out.weight 8 8
model.transformer.blocks.*.ff_proj.weight 12 8
model.transformer.blocks.*.ff_out.weight 8 6
""",
            32,
        ),
        Case(
            "allenai/OLMo olmo/model.py",
            {
                "vocab_size": 11,
                "d_model": 8,
                "n_layers": 2,
                "n_heads": 4,
                "n_kv_heads": 2,
                "mlp_ratio": 1,
                "activation_type": "gelu",
                "max_sequence_length": 5,
                "attention_layer_norm": True,
                "attention_layer_norm_with_affine": True,
                "embedding_size": None,
            },
            """
model.transformer.wte.weight 11 8
model.transformer.wpe.weight 5 8
tie model.transformer.ff_out.weight
model.transformer.ln_f.weight 8
model.transformer.ln_f.bias 8
model.transformer.blocks.*.attn_norm.weight 8
model.transformer.blocks.*.attn_norm.bias 8
model.transformer.blocks.*.ff_norm.weight 8
model.transformer.blocks.*.ff_norm.bias 8
model.transformer.blocks.*.q_norm.weight 8
model.transformer.blocks.*.q_norm.bias 8
model.transformer.blocks.*.k_norm.weight 4
model.transformer.blocks.*.k_norm.bias 4
model.transformer.blocks.*.att_proj.weight 16 8
model.transformer.blocks.*.att_proj.bias 16
model.transformer.blocks.*.attn_out.weight 8 8
model.transformer.blocks.*.attn_out.bias 8
model.transformer.blocks.*.ff_proj.weight 8 8
model.transformer.blocks.*.ff_proj.bias 8
model.transformer.blocks.*.ff_out.weight 8 8
model.transformer.blocks.*.ff_out.bias 8
""",
            16,
        ),
    ],
    "hunyuan": [
        Case(
            "MindIE-LLM atb_llm/models/hunyuan/modeling_hunyuan.py",
            GROUPED
            | {
                "num_hidden_layers": 3,
                "tie_word_embeddings": True,
                "use_cla": True,
                "cla_share_factor": 2,
                "use_qk_norm": True,
                "num_experts": 2,
                "num_shared_expert": 1,
                "moe_topk": 1,
            },
            TIED
            + NORMS
            + experts("model.layers.*.mlp.experts", LLAMA_NAMES)
            + """
model.layers.*.self_attn.q_proj.weight 8 8
model.layers.<0,2>.self_attn.k_proj.weight 4 8
model.layers.<0,2>.self_attn.v_proj.weight 4 8
model.layers.*.self_attn.o_proj.weight 8 8
model.layers.*.self_attn.query_layernorm.weight 2
model.layers.*.self_attn.key_layernorm.weight 2
model.layers.*.mlp.gate.wg.weight 2 8
model.layers.*.mlp.shared_mlp.gate_proj.weight 6 8
model.layers.*.mlp.shared_mlp.up_proj.weight 6 8
model.layers.*.mlp.shared_mlp.down_proj.weight 8 6
""",
            16,
        ),
        Case(
            "MindIE-LLM atb_llm/models/hunyuan/modeling_hunyuan.py",
            GROUPED | {"tie_word_embeddings": False},
            OUTSIDE + NORMS + GROUPED_ATTENTION + MLP,
            16,
        ),
    ],
    "internlm": [
        Case(
            "internlm/internlm-7b modeling_internlm.py",
            SIZES,
            OUTSIDE + NORMS + ATTENTION + FOUR_BIASES + MLP,
            32,
        )
    ],
    "internlm2": [
        Case(
            "internlm/internlm2-7b modeling_internlm2.py (a copy: IntMeGroup/HarmonyIQA)",
            GROUPED | {"bias": False},
            """
model.tok_embeddings.weight 11 8
model.norm.weight 8
output.weight 11 8
model.layers.*.attention_norm.weight 8
model.layers.*.ffn_norm.weight 8
model.layers.*.attention.wqkv.weight 16 8
model.layers.*.attention.wo.weight 8 8
"""
            + experts("model.layers.*", MIXTRAL_NAMES, "feed_forward"),
            16,
        )
    ],
    "internvl_chat": [
        Case(
            "OpenGVLab/InternVL modeling_internvl_chat.py",
            {
                "llm_config": GROUPED | {"model_type": "qwen2", "tie_word_embeddings": False},
                "vision_config": {
                    "hidden_size": 6,
                    "num_hidden_layers": 2,
                    "intermediate_size": 5,
                    "image_size": 12,
                    "patch_size": 4,
                    "qkv_bias": qkv_bias,
                    "qk_normalization": norms,
                    "norm_type": norm,
                },
            },
            within("language_model", OUTSIDE + NORMS + GROUPED_ATTENTION + GROUPED_BIASES + MLP)
            + """
mlp1.0.weight 24
mlp1.0.bias 24
mlp1.1.weight 8 24
mlp1.1.bias 8
mlp1.3.weight 8 8
mlp1.3.bias 8
vision_model.embeddings.class_embedding 1 1 6
vision_model.embeddings.patch_embedding.weight 6 3 4 4
vision_model.embeddings.patch_embedding.bias 6
vision_model.embeddings.position_embedding 1 10 6
vision_model.encoder.layers.*.attn.qkv.weight 18 6
vision_model.encoder.layers.*.attn.proj.weight 6 6
vision_model.encoder.layers.*.attn.proj.bias 6
vision_model.encoder.layers.*.mlp.fc1.weight 5 6
vision_model.encoder.layers.*.mlp.fc1.bias 5
vision_model.encoder.layers.*.mlp.fc2.weight 6 5
vision_model.encoder.layers.*.mlp.fc2.bias 6
vision_model.encoder.layers.*.ls1 6
vision_model.encoder.layers.*.ls2 6
vision_model.encoder.layers.*.norm1.weight 6
vision_model.encoder.layers.*.norm2.weight 6
"""
            + more,
            16,
        )
        for qkv_bias, norms, norm, more in (
            (
                True,
                False,
                "layer_norm",
                """
vision_model.encoder.layers.*.attn.qkv.bias 18
vision_model.encoder.layers.*.norm1.bias 6
vision_model.encoder.layers.*.norm2.bias 6
""",
            ),
            (
                False,
                True,
                "rms_norm",
                """
vision_model.encoder.layers.*.attn.q_norm.weight 6
vision_model.encoder.layers.*.attn.k_norm.weight 6
""",
            ),
        )
    ],
    "jais": [
        Case(
            "inceptionai/jais-13b modeling_jais.py",
            GPT_SIZES
            | {"n_inner": 6, "activation_function": "swiglu", "position_embedding_type": "alibi"},
            """
transformer.wte.weight 11 8
tie lm_head.weight
transformer.relative_pe.slopes 4 1
transformer.ln_f.weight 8
transformer.ln_f.bias 8
transformer.h.*.ln_1.weight 8
transformer.h.*.ln_1.bias 8
transformer.h.*.ln_2.weight 8
transformer.h.*.ln_2.bias 8
transformer.h.*.attn.c_attn.weight 8 24
transformer.h.*.attn.c_attn.bias 24
transformer.h.*.attn.c_proj.weight 8 8
transformer.h.*.attn.c_proj.bias 8
transformer.h.*.mlp.c_fc.weight 8 6
transformer.h.*.mlp.c_fc.bias 6
transformer.h.*.mlp.c_fc2.weight 8 6
transformer.h.*.mlp.c_fc2.bias 6
transformer.h.*.mlp.c_proj.weight 6 8
transformer.h.*.mlp.c_proj.bias 8
""",
            32,
        )
    ],
    "kimi_k25": [
        Case(  # the names from which it converts them; those that it saves are not
            "huggingface/transformers conversion_mapping.py",
            KIMI_FIELDS,
            within("language_model", OUTSIDE + NORMS + KIMI_ATTENTION + MLP) + KIMI_VISION,
            12,
        )
    ],
    "kimi_vl": [
        Case(
            "moonshotai/Kimi-VL-A3B-Instruct modeling_kimi_vl.py",
            KIMI_VL_FIELDS,
            within("language_model", OUTSIDE + NORMS + KIMI_ATTENTION + MLP) + KIMI_VL_VISION,
            12,
        )
    ],
    "mimo": [
        Case(
            "xiaomimimo/MiMo-7B-Base modeling_mimo.py",
            GROUPED | {"num_nextn_predict_layers": 1},
            OUTSIDE
            + NORMS
            + GROUPED_ATTENTION
            + GROUPED_BIASES
            + MLP
            + """
mtp model.mtp_layers.0.token_layernorm.weight 8
mtp model.mtp_layers.0.hidden_layernorm.weight 8
mtp model.mtp_layers.0.final_layernorm.weight 8
mtp model.mtp_layers.0.input_proj.weight 8 16
mtp model.mtp_layers.0.input_layernorm.weight 8
mtp model.mtp_layers.0.post_attention_layernorm.weight 8
mtp model.mtp_layers.0.self_attn.q_proj.weight 8 8
mtp model.mtp_layers.0.self_attn.q_proj.bias 8
mtp model.mtp_layers.0.self_attn.k_proj.weight 4 8
mtp model.mtp_layers.0.self_attn.k_proj.bias 4
mtp model.mtp_layers.0.self_attn.v_proj.weight 4 8
mtp model.mtp_layers.0.self_attn.v_proj.bias 4
mtp model.mtp_layers.0.self_attn.o_proj.weight 8 8
mtp model.mtp_layers.0.mlp.gate_proj.weight 6 8
mtp model.mtp_layers.0.mlp.up_proj.weight 6 8
mtp model.mtp_layers.0.mlp.down_proj.weight 8 6
""",
            16,
        )
    ],
    "minicpm": [
        Case("openbmb/MiniCPM-2B modeling_minicpm.py", SIZES, TIED + NORMS + ATTENTION + MLP, 32),
        Case(
            "openbmb/MiniCPM-MoE-8x2B modeling_minicpm.py",
            GROUPED | EXPERTS,
            TIED
            + NORMS
            + GROUPED_ATTENTION
            + "model.layers.*.mlp.gate.weight 2 8"
            + experts("model.layers.*.mlp.experts", MIXTRAL_NAMES),
            16,
        ),
    ],
    "minicpmv": [
        Case(
            "openbmb/MiniCPM-V-2_6 modeling_minicpmv.py",
            MINICPM_V_FIELDS,
            within("llm", OUTSIDE + NORMS + GROUPED_ATTENTION + GROUPED_BIASES + MLP)
            + MINICPM_V_TOWER
            + MINICPM_V_RESAMPLER
            + "resampler.kv_proj.weight 8 6\n",
            16,
        ),
        Case(
            "openbmb/MiniCPM-V-2_6 resampler.py",
            MINICPM_V_FIELDS
            | {
                "version": "2.6",
                "vision_config": {**MINICPM_V_FIELDS["vision_config"], "hidden_size": 8},
            },
            within("llm", OUTSIDE + NORMS + GROUPED_ATTENTION + GROUPED_BIASES + MLP)
            + MINICPM_V_TOWER.replace(" 6", " 8")
            + MINICPM_V_RESAMPLER,
            16,
        ),
    ],
    "minimax_m1": [
        Case("vllm-project/vllm models/minimax_text_01.py", GROUPED | LINEAR_AT_1, MINIMAX, 8)
    ],
    "minimax_text_01": [
        Case("vllm-project/vllm models/minimax_text_01.py", GROUPED | LINEAR_AT_1, MINIMAX, 8)
    ],
    "mixformer-sequential": [
        Case(
            "microsoft/phi-2 modeling_mixformer_sequential.py",
            GPT_SIZES | {"n_head_kv": 2},
            PHI_BLOCK.format(at="layers.<1,2>")
            + """
layers.0.wte.weight 11 8
layers.3.ln.weight 8
layers.3.ln.bias 8
layers.3.linear.weight 11 8
layers.3.linear.bias 11
""",
            16,
        )
    ],
    "nemotron-nas": [
        Case(
            "nvidia/Llama-3_1-Nemotron-51B-Instruct modeling_decilm.py",
            {
                **SIZES,
                "num_hidden_layers": 4,
                "block_configs": [
                    {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
                    {"attention": {"no_op": True}, "ffn": {"ffn_mult": 50.0}},
                    {"attention": {"n_heads_in_group": 4}, "ffn": {"no_op": True}},
                    {
                        "attention": {"replace_with_linear": True},
                        "ffn": {"replace_with_linear": True},
                    },
                ],
            },
            OUTSIDE
            + """
model.layers.<0,2,3>.input_layernorm.weight 8
model.layers.<0,1,3>.post_attention_layernorm.weight 8
model.layers.<0,2>.self_attn.q_proj.weight 8 8
model.layers.<0,2>.self_attn.o_proj.weight 8 8
model.layers.0.self_attn.k_proj.weight 4 8
model.layers.0.self_attn.v_proj.weight 4 8
model.layers.2.self_attn.k_proj.weight 2 8
model.layers.2.self_attn.v_proj.weight 2 8
model.layers.3.self_attn.linear_attn.weight 8 8
model.layers.3.mlp.linear_mlp.weight 8 8
"""
            + experts("model.layers.<0>", LLAMA_NAMES, "mlp", 256)
            + experts("model.layers.<1>", LLAMA_NAMES, "mlp", 512),
            12,
        )
    ],
    "new": [
        Case(
            "Alibaba-NLP/new-impl modeling.py",
            SIZES | {"type_vocab_size": 2},
            """
new.embeddings.word_embeddings.weight 11 8
new.embeddings.token_type_embeddings.weight 2 8
new.embeddings.LayerNorm.weight 8
new.embeddings.LayerNorm.bias 8
new.encoder.layer.*.attention.qkv_proj.weight 24 8
new.encoder.layer.*.attention.qkv_proj.bias 24
new.encoder.layer.*.attention.o_proj.weight 8 8
new.encoder.layer.*.attention.o_proj.bias 8
new.encoder.layer.*.attn_ln.weight 8
new.encoder.layer.*.attn_ln.bias 8
new.encoder.layer.*.mlp.up_gate_proj.weight 12 8
new.encoder.layer.*.mlp.down_proj.weight 8 6
new.encoder.layer.*.mlp.down_proj.bias 8
new.encoder.layer.*.mlp_ln.weight 8
new.encoder.layer.*.mlp_ln.bias 8
lm_head.dense.weight 8 8
lm_head.dense.bias 8
lm_head.norm.weight 8
lm_head.norm.bias 8
lm_head.decoder.bias 11
tie lm_head.decoder.weight
""",
            0,
        )
    ],
    "openelm": [
        Case(
            "apple/OpenELM-270M modeling_openelm.py",
            {
                "vocab_size": 11,
                "model_dim": 8,
                "head_dim": 2,
                "num_transformer_layers": 2,
                "num_query_heads": [4, 6],
                "num_kv_heads": [1, 2],
                "ffn_multipliers": [0.5, 4.0],
                "ffn_dim_divisor": 4,
                "normalize_qk_projections": True,
                "share_input_output_layers": True,
            },
            """
transformer.token_embeddings.weight 11 8
tie lm_head.weight
transformer.norm.weight 8
transformer.layers.*.attn_norm.weight 8
transformer.layers.*.ffn_norm.weight 8
transformer.layers.0.attn.qkv_proj.weight 12 8
transformer.layers.1.attn.qkv_proj.weight 20 8
transformer.layers.0.attn.out_proj.weight 8 8
transformer.layers.1.attn.out_proj.weight 8 12
transformer.layers.*.attn.q_norm.weight 2
transformer.layers.*.attn.k_norm.weight 2
transformer.layers.0.ffn.proj_1.weight 8 8
transformer.layers.0.ffn.proj_2.weight 8 4
transformer.layers.1.ffn.proj_1.weight 64 8
transformer.layers.1.ffn.proj_2.weight 8 32
""",
            12,
        )
    ],
    "orion": [
        Case(
            "foldl/chatllm.cpp convert.py",
            GROUPED,
            OUTSIDE
            + NORMS
            + GROUPED_ATTENTION
            + MLP
            + """
model.layers.*.input_layernorm.bias 8
model.layers.*.post_attention_layernorm.bias 8
model.norm.bias 8
""",
            16,
        )
    ],
    "phi-msft": [
        Case(
            "microsoft/phi-2 modeling_phi.py of 2023 (a copy: awilliamson10/phineas)",
            GPT_SIZES | {"n_head_kv": 2},
            PHI_BLOCK.format(at="transformer.h.*")
            + """
transformer.embd.wte.weight 11 8
lm_head.ln.weight 8
lm_head.ln.bias 8
lm_head.linear.weight 11 8
lm_head.linear.bias 11
""",
            16,
        )
    ],
    "phi3_v": [
        Case(
            "microsoft/Phi-3.5-vision-instruct modeling_phi3_v.py",
            GROUPED
            | {
                "img_processor": CLIP_336,
                "embd_layer": {
                    "embedding_cls": "image",
                    "projection_cls": "mlp",
                    "use_hd_transform": True,
                    "with_learnable_separator": True,
                },
            },
            PHI3
            + PHI3_V_TOWER
            + """
model.vision_embed_tokens.glb_GN 1 1 4096
model.vision_embed_tokens.sub_GN 1 1 1 4096
model.vision_embed_tokens.img_projection.0.weight 8 4096
model.vision_embed_tokens.img_projection.0.bias 8
model.vision_embed_tokens.img_projection.2.weight 8 8
model.vision_embed_tokens.img_projection.2.bias 8
""",
            16,
        ),
        Case(
            "microsoft/Phi-3CookBook phi3imageembedding.py",
            GROUPED | {"img_processor": CLIP_336, "embd_layer": {"embedding_cls": "image"}},
            PHI3
            + PHI3_V_TOWER
            + """
model.vision_embed_tokens.img_projection.weight 8 1024
model.vision_embed_tokens.img_projection.bias 8
""",
            16,
        ),
        Case("microsoft/Phi-3.5-vision-instruct modeling_phi3_v.py", GROUPED, PHI3, 16),
    ],
    "phi3small": [
        Case(
            "ml-explore/mlx-lm models/phi3small.py",
            {**GROUPED, "ff_intermediate_size": 6, "intermediate_size": None},
            """
model.embed_tokens.weight 11 8
tie lm_head.weight
model.final_layernorm.weight 8
model.final_layernorm.bias 8
model.layers.*.input_layernorm.weight 8
model.layers.*.input_layernorm.bias 8
model.layers.*.post_attention_layernorm.weight 8
model.layers.*.post_attention_layernorm.bias 8
model.layers.*.self_attn.query_key_value.weight 16 8
model.layers.*.self_attn.query_key_value.bias 16
model.layers.*.self_attn.dense.weight 8 8
model.layers.*.self_attn.dense.bias 8
model.layers.*.mlp.up_proj.weight 12 8
model.layers.*.mlp.up_proj.bias 12
model.layers.*.mlp.down_proj.weight 8 6
model.layers.*.mlp.down_proj.bias 8
""",
            16,
        )
    ],
    "phi4mm": [
        Case(
            "microsoft/Phi-4-multimodal-instruct modeling_phi4mm.py",
            PHI4MM_FIELDS,
            TIED
            + NORMS
            + lora("self_attn.qkv_proj", 16, 8)
            + lora("self_attn.o_proj", 8, 8)
            + lora("mlp.gate_up_proj", 12, 8)
            + lora("mlp.down_proj", 8, 6)
            + within("model.embed_tokens_extend.image_embed.img_processor", SIGLIP_448)
            + within(
                "model.embed_tokens_extend.image_embed",
                "glb_GN 1 1 1152\nsub_GN 1 1 1 1152\n"
                + linear("img_projection.0", 8, 1152)
                + linear("img_projection.2", 8, 8),
            )
            + within("model.embed_tokens_extend.audio_embed", PHI4MM_SOUND),
            16,
        ),
        Case("microsoft/Phi-4-multimodal-instruct modeling_phi4mm.py", GROUPED, PHI3, 16),
    ],
    "plamo": [
        Case(
            "ml-explore/mlx-lm models/plamo.py",
            SIZES | {"n_shared_head": 2},
            OUTSIDE
            + (GROUPED_ATTENTION + MLP).replace("model.layers", "model.layers.layers")
            + "model.layers.layers.*.norm.weight 8",
            16,
        )
    ],
    "qwen": [
        Case(
            "Qwen/Qwen-7B modeling_qwen.py",
            SIZES | {"intermediate_size": 12, "kv_channels": 3},
            """
transformer.wte.weight 11 8
lm_head.weight 11 8
transformer.ln_f.weight 8
transformer.h.*.ln_1.weight 8
transformer.h.*.ln_2.weight 8
transformer.h.*.attn.c_attn.weight 36 8
transformer.h.*.attn.c_attn.bias 36
transformer.h.*.attn.c_proj.weight 8 12
transformer.h.*.mlp.w1.weight 6 8
transformer.h.*.mlp.w2.weight 6 8
transformer.h.*.mlp.c_proj.weight 8 6
""",
            48,
        )
    ],
    "sdar": [
        Case(
            "InternLM/lmdeploy models/sdar.py",
            GROUPED | {"head_dim": 2, "attention_bias": False, "tie_word_embeddings": False},
            OUTSIDE + NORMS + GROUPED_ATTENTION + HEAD_NORMS + MLP,
            16,
        )
    ],
    "sdar_moe": [
        Case(
            "InternLM/lmdeploy models/sdar_moe.py",
            GROUPED | EXPERTS | {"head_dim": 2, "moe_intermediate_size": 5},
            OUTSIDE
            + NORMS
            + GROUPED_ATTENTION
            + HEAD_NORMS
            + "model.layers.*.mlp.gate.weight 2 8"
            + experts("model.layers.*.mlp.experts", LLAMA_NAMES, width=5),
            16,
        )
    ],
    "smallthinker": [
        Case(
            "PowerInfer/SmallThinker-4BA0.6B-Instruct modeling_smallthinker.py",
            GROUPED
            | {
                "head_dim": 2,
                "moe_num_primary_experts": 2,
                "moe_num_active_primary_experts": 1,
                "moe_ffn_hidden_size": 6,
                "sliding_window_layout": [0, 1],
            },
            TIED
            + NORMS
            + GROUPED_ATTENTION
            + """
model.layers.*.block_sparse_moe.primary_router.weight 2 8
"""
            + "".join(
                f"""
model.layers.*.block_sparse_moe.experts.{expert}.gate.weight 6 8
model.layers.*.block_sparse_moe.experts.{expert}.up.weight 6 8
model.layers.*.block_sparse_moe.experts.{expert}.down.weight 8 6
"""
                for expert in range(2)
            ),
            16,
        )
    ],
    "solar": [
        Case("foldl/chatllm.cpp convert.py", GROUPED, OUTSIDE + NORMS + GROUPED_ATTENTION + MLP, 16)
    ],
    "stablelm_epoch": [
        Case(
            "stabilityai/stable-code-3b modeling_stablelm_epoch.py",
            GROUPED,
            OUTSIDE
            + NORMS
            + GROUPED_ATTENTION
            + MLP
            + """
model.layers.*.input_layernorm.bias 8
model.layers.*.post_attention_layernorm.bias 8
model.norm.bias 8
""",
            16,
        )
    ],
    "step1": [
        Case(
            "stepfun-ai/Step-Audio-Chat modeling_step1.py",
            SIZES | {"num_attention_groups": 2},
            TIED + NORMS + GROUPED_ATTENTION + MLP,
            16,
        )
    ],
    "step3_text": [Case("vllm-project/vllm models/step3_text.py", STEP3_FIELDS, STEP3, 12)],
    "step3_vl": [
        Case("vllm-project/vllm models/step3_text.py", {"text_config": STEP3_FIELDS}, STEP3, 12),
        *(
            Case(
                "vllm-project/vllm models/step3_vl.py",
                {
                    "architectures": ["Step3VLForConditionalGeneration"],
                    "text_config": STEP3_FIELDS,
                    "vision_config": {
                        "hidden_size": 6,
                        "intermediate_size": 5,
                        "output_hidden_size": 7,
                        "num_hidden_layers": 1,
                        "image_size": 12,
                        "patch_size": 4,
                    },
                }
                | ({} if bias else {"projector_bias": False}),
                STEP3 + STEP3_VISION + bias,
                12,
            )
            for bias in ("vit_large_projector.bias 8", "")
        ),
    ],
    "step3p5": [
        Case("vllm-project/vllm models/step3p5.py (and step3p5_mtp.py)", fields, tensors, 36)
        for fields, tensors in (
            (STEP3P5_FIELDS, STEP3P5),
            (
                STEP3P5_FIELDS | {"moe_layers_enum": [0, 1, 2]},
                STEP3P5.replace("<1,2>.moe", "*.moe")
                .replace("<1,2>.share", "*.share")
                .replace(MLP.replace("*", "0"), ""),
            ),
        )
    ],
    "telechat": [
        Case(
            "Tele-AI/telechat-7B modeling_telechat.py",
            {
                "vocab_size": 11,
                "hidden_size": 8,
                "n_layer": 2,
                "n_head": 4,
                "num_key_value_heads": 2,
                "ffn_hidden_size": 6,
                "embed_layernorm": True,
                "tie_word_embeddings": False,
            },
            """
transformer.word_embeddings.weight 11 8
transformer.word_embeddings_layernorm.weight 8
lm_head.weight 11 8
transformer.ln_f.weight 8
transformer.h.*.input_layernorm.weight 8
transformer.h.*.post_attention_layernorm.weight 8
transformer.h.*.self_attention.query.weight 8 8
transformer.h.*.self_attention.key_value.weight 8 8
transformer.h.*.self_attention.dense.weight 8 8
transformer.h.*.self_attention.dense.bias 8
transformer.h.*.mlp.gate_proj.weight 6 8
transformer.h.*.mlp.up_proj.weight 6 8
transformer.h.*.mlp.down_proj.weight 8 6
transformer.h.*.mlp.down_proj.bias 8
""",
            16,
        )
    ],
    "xverse": [
        Case("xverse/XVERSE-13B modeling_xverse.py", SIZES, OUTSIDE + NORMS + ATTENTION + MLP, 32),
        Case(
            "foldl/chatllm.cpp convert.py",
            SIZES | {"num_experts": 2, "moe_top_k": 1, "num_shared_experts": 2},
            OUTSIDE
            + NORMS
            + ATTENTION
            + "model.layers.*.mlp.router.weight 2 8"
            + experts("model.layers.*.mlp.experts", LLAMA_NAMES)
            + experts("model.layers.*.mlp", LLAMA_NAMES, "shared_experts", 12),
            32,
        ),
    ],
}


def listed(case: Case, kind: str = "") -> Shapes:
    """Names and shapes of the lines that begin with ``kind``, each of them once."""
    parts = ("llm_config", "text_config", "language_config")
    fields = next((case.config[part] for part in parts if part in case.config), case.config)
    names = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_transformer_layers")
    every = ",".join(map(str, range(next(fields[name] for name in names if fields.get(name)))))
    shapes: Shapes = {}
    for line in case.tensors.splitlines():
        words = line.split()
        if not words or (words[0] if words[0] in ("tie", "buffer", "mtp") else "") != kind:
            continue
        name, *shape = words[bool(kind) :]
        pieces = [
            piece[1:-1].split(",") if piece.startswith("<") else [piece]
            for piece in name.replace("*", f"<{every}>").split(".")
        ]
        shapes |= {".".join(each): tuple(map(int, shape)) for each in product(*pieces)}
    return shapes
