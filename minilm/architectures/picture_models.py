"""The models over pictures of `image_text.py`: LLaVA and its kin, PaliGemma, InternVL, Mistral 3, Idefics.

Names, shapes and defaults: huggingface/transformers `models/TYPE`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minilm.architectures import image_projectors as projectors
from minilm.architectures import vqgan
from minilm.architectures.building_blocks import lm_head
from minilm.architectures.config_fields import Config, flag, layers, size, sizes, sub_config
from minilm.architectures.joint_text import Model, under_names
from minilm.architectures.sam import sam_tower, with_ratio
from minilm.architectures.vision_tower import Part, matrix, once, without_bias
from minilm.ledger import components
from minilm.ledger.layout import Layout, Tensor

_VIT_L = {  # of LLaVA where config.json has no vision_config
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 4096,
    "image_size": 336,
    "patch_size": 14,
}
_SO400M = {
    "hidden_size": 1152,
    "num_hidden_layers": 26,
    "intermediate_size": 4304,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}


def _high_resolution(config: Config) -> Part:
    fields = sub_config(config, "high_res_vision_config")
    return sam_tower(with_ratio(fields), "model.high_res_vision_model.vision_encoder")


def _drawing(config: Config) -> Part:
    """What Janus draws with: a VQGAN, tables of its words, and a head over them."""
    fields = sub_config(config, "vq_config")
    last = len(vqgan.levels(fields)) - 1
    width, words = size(fields, "embed_dim", 8), size(fields, "num_embeddings", 16384)
    depth, outputs = layers(fields, "num_hidden_layers", 2), size(fields, "projection_dim", 2048)
    head, inputs = "model.generation_head", size(fields, "image_token_embed_dim", 2048)
    tensors = (
        *vqgan.encoder(fields, "model.vqmodel.encoder", lambda level: level == last),
        *vqgan.codebook(fields, "model.vqmodel", words=16384, width=8),
        *vqgan.decoder(fields, "model.vqmodel.decoder"),
        without_bias("model.generation_embeddings", words, width),
        *projectors.perceptron(fields, "model.generation_aligner", width, depth),
        *matrix(f"{head}.proj_out", (outputs, inputs)),
        *matrix(f"{head}.vision_head", (words, outputs)),
    )
    return Part(tensors)


def _own_head(text: Layout, config: Config) -> Layout:
    """A head that the whole config ties; the text's ties its other tables."""
    head = lm_head("lm_head", tied=flag(config, "tie_word_embeddings", True))
    body = tuple(t for t in text.tensors if t.component != components.LM_HEAD)
    shared = () if head else (("lm_head.weight", "model.shared.weight"),)
    others = tuple(pair for pair in text.ties if pair[0] != "lm_head.weight")
    return replace(text, tensors=(*body, *head), ties=(*shared, *others), buffers=())


def _times(config: Config, vision: Config, name: str) -> tuple[Tensor, ...]:
    """Florence-2's computed embeddings of a video's frames."""
    del config
    width = sizes(vision, "embed_dim", (128, 256, 512, 1024))[-1]
    frames = size(vision, "max_temporal_embeddings", 100)
    return (once(f"{name}.visual_temporal_embed.pos_idx_to_embed", (frames, width)),)


_BELOW = "model.language_model."
_FIRST_NAMES: dict[str, Any] = {  # as LLaVA's first files have them
    "inside": "language_model.",
    "tower": "vision_tower",
    "between": "multi_modal_projector",
}
_LLAVA = Model(
    "llama",
    "clip_vision_model",
    projectors.two_maps,
    tied=False,
    bare_vision=_VIT_L,
    **_FIRST_NAMES,
)
_IDEFICS3 = Model(
    "llama",
    "idefics3_vision",
    projectors.idefics3,
    below="model.text_model.",
    tower="model.vision_model",
    between="model.connector",
    tied=False,
)
_GOT_OCR2 = Model(
    "qwen2",
    "got_ocr2_vision",
    projectors.got_ocr2,
    bare_text={
        "vocab_size": 151860,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
    **_FIRST_NAMES,
)
_MINICPM = Model(
    "qwen3_5_text",
    "minicpmv4_6_vision",
    projectors.minicpm,
    below=_BELOW,
    between="model.merger",
    tied=False,
)
_DEEPSEEK_OCR2 = Model(
    "deepseek_ocr2_text",
    "deepseek_ocr2_vision",
    projectors.deepseek_ocr2,
    tower="model",
    between="model",
    tied=False,
    texts={"deepseek_ocr2_text": "deepseek"},
    text_defaults={
        "num_hidden_layers": 32,
        "num_key_value_heads": None,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
    },
)
PICTURES = {
    "aria": replace(
        _LLAVA,
        text="aria_text",
        vision="idefics3_vision",
        projector=projectors.aria,
        bare_vision={},
    ),
    "aya_vision": Model(
        "cohere2",
        "siglip_vision_model",
        projectors.aya_vision,
        bare_vision=_SO400M,
        **_FIRST_NAMES,
    ),
    "cohere2_vision": Model(
        "cohere2",
        "siglip_vision_model",
        projectors.cohere2_vision,
        below=_BELOW,
        bare_vision={"hidden_size": 1152, "image_size": 512, "num_hidden_layers": 27},
    ),
    "deepseek_vl": Model(
        "llama",
        "siglip_vision_model",
        projectors.deepseek_vl,
        below=_BELOW,
        tower="model.vision_model",
        between="model.aligner",
    ),
    "deepseek_vl_hybrid": Model(
        "llama",
        "siglip_vision_model",
        projectors.deepseek_vl_hybrid,
        below=_BELOW,
        tower="model.vision_model",
        between="model.aligner",
        beside=_high_resolution,
    ),
    "deepseek_ocr2": _DEEPSEEK_OCR2,
    "florence2": Model(
        "bart",
        "florence_vision",
        projectors.florence2,
        below=_BELOW,
        text_class="BartForConditionalGeneration",
        own_ties=True,
        changes=_own_head,
        buffers=_times,
    ),
    "got_ocr2": _GOT_OCR2,
    "granite_docling": Model(
        "granite_docling_text",
        "granite_docling_vision",
        projectors.granite_docling,
        below="model.text_model.",
        tower="model.vision_model",
        between="model.density_router",
        texts={"granite_docling_text": "granite"},
        text_defaults={
            "vocab_size": 133800,
            "hidden_size": 1024,
            "intermediate_size": 2048,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
        },
    ),
    "hunyuan_vl": Model(
        "hunyuan_vl_text",
        "hunyuan_vl_vision",
        projectors.no_projector,
        tower="vit",
        has_text_beside=True,
        texts={"hunyuan_vl_text": "hunyuan_v1_dense"},
        text_tied=True,
    ),
    "idefics2": replace(
        _IDEFICS3, text="mistral", vision="idefics2_vision", projector=projectors.idefics2
    ),
    "idefics3": _IDEFICS3,
    "internvl": Model("qwen2", "internvl_vision", projectors.internvl, **_FIRST_NAMES),
    "janus": Model(
        "llama",
        "janus_vision_model",
        projectors.janus,
        below=_BELOW,
        tower="model.vision_model",
        between="model.aligner",
        beside=_drawing,
    ),
    "lfm2_vl": Model("lfm2", "siglip2_vision_model", projectors.lfm2_vl, below=_BELOW),
    "lfm3_vl": Model("lfm3", "lfm3_vl_vision", projectors.lfm3_vl, below=_BELOW),
    "lighton_ocr": Model(
        "qwen3",
        "pixtral",
        projectors.mistral3,
        below=_BELOW,
        tower="model.vision_encoder",
        between="model.vision_projection",
        bare_text={
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "max_position_embeddings": 40960,
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "num_key_value_heads": 8,
        },
        bare_vision={"patch_size": 14},
    ),
    "llava": replace(_LLAVA, text_tied=False),
    "llava_next": replace(_LLAVA, projector=projectors.with_newline),
    "llava_next_video": replace(_LLAVA, projector=projectors.with_newline, text_tied=False),
    "llava_onevision": replace(
        _LLAVA,
        text_tied=False,
        text="qwen2",
        vision="siglip_vision_model",
        projector=projectors.with_newline,
        bare_vision=_SO400M,
    ),
    "minicpm_ocr": replace(_MINICPM, vision="minicpm_ocr_vision", tied=True),
    "minicpmv4_6": _MINICPM,
    "minicpmv4_7": replace(_MINICPM, vision="minicpmv4_7_vision"),
    "mistral3": Model(
        "mistral",
        "pixtral",
        projectors.mistral3,
        bare_text={
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 32768,
            "max_position_embeddings": 131072,
            "num_hidden_layers": 40,
            "sliding_window": None,
            "vocab_size": 131072,
        },
        bare_vision={"patch_size": 14},
        **_FIRST_NAMES,
    ),
    "modernvbert": Model(
        "modernbert",
        "siglip_vision_model",
        projectors.pixel_shuffled,
        below="model.text_model.",
        tower="model.vision_model",
        between="model.connector",
        tied=False,
        with_encoder=("modernbert",),
        changes=under_names({"head.": "projection_head.", "decoder.": "lm_head."}),
        ending="ForMaskedLM",
    ),
    "ovis2": Model(
        "qwen2",
        "ovis2_vision",
        projectors.ovis2,
        below=_BELOW,
        between="model.visual_embeddings_table",
    ),
    "paddleocr_vl": Model(
        "paddleocr_vl_text",
        "paddleocr_vl_vision",
        projectors.paddleocr,
        tower="visual.vision_model",
        between="mlp_AR",
        has_text_beside=True,
        text_tied=True,
        texts={"paddleocr_vl_text": "ernie4_5", "paddleocr_vl": "ernie4_5"},
        text_defaults={
            "vocab_size": 103424,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 18,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
        },
    ),
    "paligemma": Model(
        "gemma",
        "siglip_vision_model",
        projectors.paligemma,
        bare_text={
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_attention_heads": 8,
            "num_hidden_layers": 18,
            "num_key_value_heads": 1,
            "vocab_size": 257152,
        },
        bare_vision={
            "hidden_size": 1152,
            "intermediate_size": 4096,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "projection_dim": 2048,
            "vision_use_head": False,
        },
        **_FIRST_NAMES,
    ),
    "pp_chart2table": replace(_GOT_OCR2, vision="pp_chart2table_vision"),
    "smolvlm": replace(_IDEFICS3, vision="smolvlm_vision"),
    "ultravbert": Model(
        "ultrabert",
        "siglip_vision_model",
        projectors.ultravbert,
        below="model.text_model.",
        tower="model.vision_model",
        between="model.connector",
        tied=False,
        bare_vision={"vision_use_head": False},
        with_encoder=("ultrabert",),
        changes=under_names({"ultrabert.": "model.", "cls.": "head.decoder."}),
        ending="ForMaskedLM",
    ),
    "unlimited_ocr": replace(
        _DEEPSEEK_OCR2,
        text="unlimited_ocr_text",
        earlier_text="language_config",
        vision="unlimited_ocr_vision",
        projector=projectors.unlimited_ocr,
        texts={"unlimited_ocr_text": "deepseek"},
        text_defaults={
            "vocab_size": 129280,
            "hidden_size": 1280,
            "intermediate_size": 6848,
            "num_hidden_layers": 12,
            "num_attention_heads": 10,
            "num_key_value_heads": 10,
            "max_position_embeddings": 32768,
            "moe_intermediate_size": 896,
            "num_experts_per_tok": 6,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
        },
    ),
    "video_llama_3": Model(
        "qwen2",
        "video_llama_3_vision",
        projectors.video_llama_3,
        below=_BELOW,
        tower="model.vision_model",
        between="model.projector",
        tied=False,
        text_tied=False,
    ),
    "video_llava": replace(
        _LLAVA,
        tower="image_tower",
        second_tower="video_tower",
        bare_vision={**_VIT_L, "image_size": 224},
    ),
    "vipllava": replace(_LLAVA, projector=projectors.vipllava),
}
