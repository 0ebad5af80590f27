"""The one table of model types: where each is declared, and what must be known without importing that."""

from __future__ import annotations

from typing import NamedTuple


class ModelType(NamedTuple):
    """A `model_type` of a Hugging Face config.json.

    ``module``, in this package, has the `layout` that declares its tensors. ``gguf`` is what
    llama.cpp's files call it in `general.architecture`, empty where such files are counted by name.
    ``runs`` says that minilm runs it too: its module lists an `Architecture` in `ARCHITECTURES`, or an
    `Importable` in `IMPORTABLE` where it is only imported. ``missing`` is a field whose meaning in this
    architecture minilm does not have, and what that is. ``same_as`` is the model_type that it is another
    name of. ``text_of`` is that of the `text_config` inside, where a larger model's language model alone
    is declared; where the whole is too, ``whole`` is its module. ``causal_only``: of its classes the
    language model alone is declared, not those with an encoder, another head or none. ``by_class``: its
    module, that of the ``whole`` where it has one, has a layout for each class of the type. A config.json
    with one of the fields ``foreign`` is of another model under the same name, which is not declared.
    """

    module: str
    gguf: str = ""
    runs: bool = False
    missing: tuple[str, str] | None = None
    same_as: str = ""
    text_of: str = ""
    whole: str = ""
    causal_only: bool = False
    by_class: bool = False
    foreign: tuple[str, ...] = ()


_GEMMA2 = ("model_type", "norms after attention and feed-forward, GeGLU by tanh")

_BART = ModelType("bart_decoder", causal_only=True, whole="bart", by_class=True)
_BERT = ModelType("bert_decoder", causal_only=True, whole="bert_heads", by_class=True)

# The modules of models with classes that differ, and the types of each.
_BY_CLASS = {
    "bart": "led m2m_100 nllb-moe pegasus_x seamless_m4t seamless_m4t_v2 speech_to_text",
    "blip": "blip",
    "blip2": "blip-2 instructblip instructblipvideo",
    "clap": "clap clap_audio_model clap_text_model",
    "clip": (
        "clip clip_text_model clip_vision_model siglip siglip2 siglip2_vision_model siglip_text_model "
        "siglip_vision_model"
    ),
    "conformer": "wav2vec2-bert wav2vec2-conformer",
    "convnext": "convnext convnextv2",
    "cvt": "cvt",
    "detection": "detr table-transformer",
    "dia": "dia",
    "diffusion_gemma": "diffusion_gemma",
    "dinat": "dinat",
    "encoder_decoder": "speech-encoder-decoder vision-encoder-decoder",
    "encoder_variants": "albert convbert fnet mobilebert squeezebert",
    "focalnet": "focalnet",
    "fun_asr": "fun_asr_nano",
    "granite4_vision": "granite4_vision",
    "granite_speech": "granite_speech granite_speech_plus",
    "hiera": "hiera",
    "image_text": (
        "aria aya_vision cohere2_vision cohere_compass deepseek_ocr2 deepseek_vl deepseek_vl_hybrid "
        "exaone4_5 florence2 glm46v glm4v glm4v_moe glm_ocr glmga got_ocr2 granite_docling hunyuan_vl "
        "hyperclovax_vision_v2 idefics2 idefics3 internvl janus kimi_k25 lfm2_vl lfm3_vl lighton_ocr llava "
        "llava_next llava_next_video llava_onevision minicpm_ocr minicpmv4_6 minicpmv4_7 minimax_m3_vl "
        "mistral3 modernvbert nemotron_h_omni ovis2 paddleocr_vl paligemma pp_chart2table "
        "qwen2_5_omni_thinker qwen2_5_vl qwen2_vl qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe smolvlm "
        "ultravbert unlimited_ocr video_llama_3 video_llava vipllava"
    ),
    "imagegpt": "imagegpt",
    "kosmos": "kosmos-2 kosmos-2.5",
    "layoutlmv3": "layoutlmv3",
    "levit": "levit",
    "luke": "luke",
    "mobilenet": "efficientnet mobilenet_v1 mobilenet_v2",
    "mobilevit": "mobilevit mobilevitv2",
    "modern_encoders": "esmc gte ultrabert",
    "muse_glimmer": "muse_glimmer",
    "omni": "qwen2_5_omni qwen2_5_omni_talker qwen2_5_omni_token2wav qwen3_omni_moe",
    "paddle_nets": "hgnet_v2 pp_lcnet textnet",
    "parakeet": (
        "granite_speech5_ctc granite_speech5_encoder lasr_ctc lasr_encoder parakeet_ctc parakeet_encoder "
        "parakeet_rnnt parakeet_tdt"
    ),
    "perceiver": "perceiver",
    "pix2struct": "pix2struct",
    "pyramid_vision": "poolformer pvt pvt_v2 segformer",
    "resnet": "bit regnet resnet",
    "seq2seq_kin": "moonshine t5gemma",
    "retrievers": "colmodernvbert colpali colqwen2",
    "rt_detr": "rt_detr",
    "segment_anything": "sam",
    "sew": "sew sew-d",
    "shieldgemma2": "shieldgemma2",
    "sound_text": (
        "audioflamingo3 glmasr moss_transcribe_diarize musicflamingo qwen2_audio qwen3_asr voxtral "
        "voxtral_realtime"
    ),
    "spectrogram_transformer": "audio-spectrogram-transformer",
    "speecht5": "speecht5 speecht5_hifigan",
    "swiftformer": "swiftformer",
    "swin": "donut-swin swin swinv2",
    "t5": "longt5 pop2piano switch_transformers",
    "t5gemma2": "t5gemma2",
    "text_encoders": (
        "deberta deberta-v2 distilbert esm ibert layoutlm longformer mpnet mra nystromformer tapas yoso"
    ),
    "transcribers": "canary cohere_asr moonshine_streaming",
    "udop": "udop",
    "vibevoice": "vibevoice_asr",
    "vit": "beit data2vec-vision deit dinov2 dinov2_with_registers dinov3_vit ijepa vit vit_msn",
    "wav2vec2": "data2vec-audio hubert unispeech unispeech-sat wav2vec2 wavlm",
    "yolos": "yolos",
}

# Of code beside the weights, without a type in transformers.
REMOTE_TYPES: dict[str, ModelType] = {
    "PanguEmbedded": ModelType("remote_llama", gguf="pangu-embedded"),
    "RefinedWeb": ModelType("falcon"),
    "RefinedWebModel": ModelType("falcon", same_as="falcon"),
    "Yi": ModelType("remote_llama"),
    "aquila": ModelType("remote_llama"),
    "arctic": ModelType("arctic", gguf="arctic"),
    "baichuan": ModelType("baichuan", gguf="baichuan"),
    "bailing_moe": ModelType("bailing_moe", gguf="bailingmoe"),
    "bailing_moe_linear": ModelType("bailing_moe"),
    "bailing_moe_v2": ModelType("bailing_moe", gguf="bailingmoe2"),
    "chatglm": ModelType("chatglm", gguf="chatglm", foreign=("vision_config", "pre_seq_len")),
    "codeshell": ModelType("codeshell", gguf="codeshell"),
    "deci": ModelType("deci", gguf="deci"),
    "deepseek": ModelType("deepseek1", gguf="deepseek"),
    "deepseek_vl_v2": ModelType("deepseek_vl2", by_class=True),
    "exaone": ModelType("exaone3", gguf="exaone"),
    "grok-1": ModelType("grok1", gguf="grok"),
    "hf_olmo": ModelType("hf_olmo"),
    "hunyuan": ModelType("hunyuan"),
    "internlm": ModelType("remote_llama"),
    "internlm2": ModelType("internlm2", gguf="internlm2"),
    "internvl_chat": ModelType("internvl_chat", by_class=True),
    "jais": ModelType("jais", gguf="jais"),
    "kimi_vl": ModelType("image_text", by_class=True),
    "mimo": ModelType("remote_llama"),
    "minicpm": ModelType("remote_llama", gguf="minicpm"),
    "minicpmv": ModelType("minicpmv", by_class=True),
    "minimax_m1": ModelType("minimax", same_as="minimax_text_01"),
    "minimax_text_01": ModelType("minimax"),
    "mixformer-sequential": ModelType("mixformer"),
    "nemotron-nas": ModelType("deci", gguf="deci"),
    "new": ModelType("modern_encoders", by_class=True),
    "openelm": ModelType("openelm", gguf="openelm"),
    "orion": ModelType("remote_llama", gguf="orion"),
    "phi-msft": ModelType("mixformer"),
    "phi3_v": ModelType("phi3_v", by_class=True),
    "phi3small": ModelType("phi3small"),
    "phi4mm": ModelType("phi4mm", by_class=True),
    "plamo": ModelType("plamo", gguf="plamo"),
    "qwen": ModelType("qwen1", gguf="qwen", foreign=("visual", "audio")),
    "sdar": ModelType("qwen", same_as="qwen3"),
    "sdar_moe": ModelType("qwen", same_as="qwen3_moe"),
    "smallthinker": ModelType("smallthinker", gguf="smallthinker"),
    "solar": ModelType("remote_llama"),
    "stablelm_epoch": ModelType("stablelm", same_as="stablelm"),
    "step1": ModelType("remote_llama"),
    "step3_text": ModelType("step3"),
    "step3_vl": ModelType("step3", text_of="step3_text", whole="step3_vl"),
    "step3p5": ModelType("step3p5"),
    "telechat": ModelType("telechat"),
    "xverse": ModelType("remote_llama", gguf="xverse"),
}

# Of those that minilm runs, the first that can represent a configuration is exported to.
MODEL_TYPES: dict[str, ModelType] = {
    "gpt2": ModelType("gpt2", gguf="gpt2", runs=True, foreign=("attention_head_type",)),
    "gpt_neox": ModelType("gpt_neox", gguf="gptneox", runs=True),
    "llama": ModelType("llama", gguf="llama", runs=True),
    "mistral": ModelType("mistral", gguf="llama", runs=True),
    "qwen2": ModelType("qwen", gguf="qwen2", runs=True),
    "qwen3": ModelType("qwen", gguf="qwen3", runs=True),
    "starcoder2": ModelType("starcoder2", gguf="starcoder2", runs=True),
    "afmoe": ModelType("afmoe", gguf="afmoe"),
    "apertus": ModelType("llama_kin", gguf="apertus"),
    "apertus1p5_text": ModelType("llama_kin"),
    "arcee": ModelType("arcee", gguf="arcee"),
    "aria_text": ModelType("aria"),
    "axk1": ModelType("deepseek"),
    "axk2": ModelType("axk2"),
    "bailing_hybrid": ModelType("kimi_linear"),
    "bamba": ModelType("bamba"),
    "bart": _BART,
    "beam": ModelType("sparse_kin"),
    "bert": _BERT._replace(gguf="bert", foreign=("alibi_starting_size", "feed_forward_type")),
    "bert-generation": _BERT,
    "big_bird": _BERT,
    "bigbird_pegasus": _BART,
    "biogpt": ModelType("bart_decoder"),
    "bitnet": ModelType("llama_kin", gguf="bitnet"),
    "blenderbot": _BART,
    "blenderbot-small": _BART,
    "bloom": ModelType("bloom", gguf="bloom"),
    "blt": ModelType("blt", by_class=True),
    "camembert": _BERT,
    "chameleon": ModelType("chameleon", gguf="chameleon", by_class=True),
    "codegen": ModelType("gpt_like"),
    "cohere": ModelType("cohere", gguf="command-r"),
    "cohere2": ModelType("cohere", gguf="cohere2"),
    "cohere2_moe": ModelType("cohere"),
    "cohere_compass_text": ModelType("cohere"),
    "cpmant": ModelType("early_models"),
    "ctrl": ModelType("gpt_like"),
    "cwm": ModelType("llama_like"),
    "data2vec-text": _BERT,
    "dbrx": ModelType("dbrx", gguf="dbrx"),
    "deepseek_v2": ModelType("deepseek", gguf="deepseek2"),
    "deepseek_v3": ModelType("deepseek", gguf="deepseek2"),
    "deepseek_v32": ModelType("deepseek"),
    "deepseek_v4": ModelType("deepseek_v4"),
    "diffllama": ModelType("llama_kin"),
    "doge": ModelType("doge"),
    "dory": ModelType("dory"),
    "dots1": ModelType("dots1", gguf="dots1"),
    "dots3_note": ModelType("dots3_note", text_of="dots3_note_text"),
    "dots3_note_text": ModelType("dots3_note"),
    "electra": _BERT,
    "emu3": ModelType("llama_like", text_of="emu3_text_model"),
    "emu3_text_model": ModelType("llama_like"),
    "ernie": _BERT,
    "ernie4_5": ModelType("llama_like", gguf="ernie4_5"),
    "ernie4_5_moe": ModelType("ernie4_5_moe", gguf="ernie4_5-moe"),
    "eurobert": ModelType("modern_encoders", gguf="eurobert", by_class=True),
    "exaone4": ModelType("exaone", gguf="exaone4"),
    "exaone_moe": ModelType("exaone", gguf="exaone-moe"),
    "falcon": ModelType("falcon", gguf="falcon"),
    "falcon_h1": ModelType("bamba", gguf="falcon-h1"),
    "falcon_mamba": ModelType("mamba", gguf="mamba"),
    "flaubert": ModelType("early_models"),
    "flex_olmo": ModelType("olmo"),
    "flint": ModelType("sparse_kin"),
    "fuyu": ModelType("gpt_like", by_class=True),
    "gemma": ModelType("gemma", gguf="gemma", missing=("hidden_activation", "GeGLU by tanh")),
    "gemma2": ModelType("gemma", gguf="gemma2", missing=_GEMMA2),
    "gemma3": ModelType("gemma3", missing=_GEMMA2),
    "gemma3_text": ModelType("gemma", gguf="gemma3", missing=_GEMMA2),
    "gemma3n": ModelType("gemma3n", text_of="gemma3n_text", whole="gemma3n_multimodal"),
    "gemma3n_text": ModelType("gemma3n", gguf="gemma3n"),
    "gemma4": ModelType("gemma3n", text_of="gemma4_text", whole="gemma4_multimodal"),
    "gemma4_text": ModelType("gemma3n", gguf="gemma4"),
    "gemma4_unified": ModelType(
        "gemma3n", text_of="gemma4_unified_text", whole="gemma4_multimodal"
    ),
    "gemma4_unified_text": ModelType("gemma3n"),
    "git": ModelType("git_captions"),
    "glm": ModelType("glm", gguf="chatglm"),
    "glm4": ModelType("glm", gguf="glm4"),
    "glm4_moe": ModelType("glm", gguf="glm4moe"),
    "glm4_moe_lite": ModelType("deepseek", gguf="deepseek2"),
    "glm_moe_dsa": ModelType("deepseek", gguf="glm-dsa"),
    "gpt-sw3": ModelType("gpt2", same_as="gpt2"),
    "gpt_bigcode": ModelType("gpt_bigcode", gguf="starcoder"),
    "gpt_neo": ModelType("gpt_neo"),
    "gpt_neox_japanese": ModelType("gpt_like"),
    "gpt_oss": ModelType("gpt_oss", gguf="gpt-oss"),
    "gptj": ModelType("gptj"),
    "granite": ModelType("granite", gguf="granite"),
    "granite_swa": ModelType("granite_moe"),
    "granitemoe": ModelType("granite_moe", gguf="granitemoe"),
    "granitemoe_swa": ModelType("granite_moe"),
    "granitemoehybrid": ModelType("bamba", gguf="granitehybrid"),
    "granitemoeshared": ModelType("granite_moe", gguf="granitemoe"),
    "helium": ModelType("llama_like"),
    "hrm_text": ModelType("hrm_text"),
    "hunyuan_v1_dense": ModelType("hunyuan", gguf="hunyuan-dense"),
    "hunyuan_v1_moe": ModelType("hunyuan", gguf="hunyuan-moe"),
    "hy_v3": ModelType("hunyuan"),
    "hy_v4": ModelType("hy_v4"),
    "hyperclovax": ModelType("llama_kin"),
    "inkling2_loop_text": ModelType("inkling2"),
    "inkling2_text": ModelType("inkling2"),
    "inkling_text": ModelType("inkling"),
    "internlm3": ModelType("llama_like", gguf="llama"),
    "iquestcoder": ModelType("llama_like", gguf="llama"),
    "jais2": ModelType("nemotron", gguf="jais2"),
    "jamba": ModelType("jamba", gguf="jamba"),
    "jetmoe": ModelType("jetmoe"),
    "jina_embeddings_v3": ModelType("modern_encoders", gguf="jina-bert-v3", by_class=True),
    "kimi_k2": ModelType("deepseek", same_as="deepseek_v3"),
    "kimi_linear": ModelType("kimi_linear", gguf="kimi-linear"),
    "kolibri1": ModelType("sparse_kin"),
    "laguna": ModelType("laguna"),
    "lara_mini": ModelType("lara_mini"),
    "lfm2": ModelType("lfm", gguf="lfm2"),
    "lfm2_moe": ModelType("lfm", gguf="lfm2moe"),
    "lfm3": ModelType("lfm"),
    "llama4": ModelType("llama4", text_of="llama4_text", whole="llama4_vision"),
    "llama4_text": ModelType("llama4", gguf="llama4"),
    "longcat_flash": ModelType("longcat_flash"),
    "mamba": ModelType("mamba", gguf="mamba"),
    "mamba2": ModelType("mamba", gguf="mamba2"),
    "marian": _BART,
    "mbart": _BART,
    "megatron-bert": _BERT,
    "mellum": ModelType("qwen"),
    "metaclip_2": ModelType("clip", same_as="clip", by_class=True),
    "metaclip_2_text_model": ModelType("clip", same_as="clip_text_model", by_class=True),
    "metaclip_2_vision_model": ModelType("clip", same_as="clip_vision_model", by_class=True),
    "mimo_v2_flash": ModelType("mimo", gguf="mimo2"),
    "minicpm3": ModelType("deepseek", gguf="minicpm3"),
    "minimax": ModelType("minimax"),
    "minimax_m2": ModelType("mixtral", gguf="minimax-m2"),
    "minimax_m3_vl_text": ModelType("sparse_kin"),
    "ministral": ModelType("llama_like"),
    "ministral3": ModelType("llama_like", gguf="mistral3"),
    "mistral4": ModelType("deepseek", gguf="mistral4"),
    "mixtral": ModelType("mixtral", gguf="llama"),
    "mllama": ModelType(
        "multimodal_text", text_of="mllama_text_model", whole="mllama_vision", by_class=True
    ),
    "mllama_text_model": ModelType("multimodal_text"),
    "modernbert": ModelType("modern_encoders", gguf="modern-bert", by_class=True),
    "modernbert-decoder": ModelType("modernbert_decoder"),
    "moshi": ModelType("multimodal_text", causal_only=True),
    "mpt": ModelType("mpt", gguf="mpt"),
    "mt5": ModelType("t5", gguf="t5", by_class=True),
    "mvp": _BART,
    "nanochat": ModelType("llama_kin"),
    "nemotron": ModelType("nemotron", gguf="nemotron"),
    "nemotron_h": ModelType("nemotron_h", gguf="nemotron_h"),
    "nomic_bert": ModelType("modern_encoders", gguf="nomic-bert", by_class=True),
    "olmo": ModelType("olmo", gguf="olmo"),
    "olmo2": ModelType(
        "olmo", gguf="olmo2", missing=("model_type", "norms after attention and feed-forward")
    ),
    "olmo3": ModelType("olmo", gguf="olmo2"),
    "olmo_hybrid": ModelType("olmo_hybrid"),
    "olmoe": ModelType("olmo", gguf="olmoe"),
    "openai-gpt": ModelType("openai_gpt"),
    "opt": ModelType("opt"),
    "pegasus": _BART,
    "persimmon": ModelType("gpt_like"),
    "phi": ModelType("phi", gguf="phi2", missing=("model_type", "an LM head with a bias")),
    "phi3": ModelType("phi3", gguf="phi3"),
    "phi4_multimodal": ModelType("phi4_multimodal"),
    "phimoe": ModelType("mixtral", gguf="phimoe"),
    "plbart": _BART,
    "prophetnet": ModelType("early_models", causal_only=True, whole="seq2seq_kin", by_class=True),
    "qwen2_moe": ModelType("qwen", gguf="qwen2moe"),
    "qwen3_5": ModelType("qwen_next", text_of="qwen3_5_text", whole="image_text", by_class=True),
    "qwen3_5_moe": ModelType(
        "qwen_next", text_of="qwen3_5_moe_text", whole="image_text", by_class=True
    ),
    "qwen3_5_moe_text": ModelType("qwen_next", gguf="qwen35moe"),
    "qwen3_5_text": ModelType("qwen_next", gguf="qwen35"),
    "qwen3_moe": ModelType("qwen", gguf="qwen3moe"),
    "qwen3_next": ModelType("qwen_next", gguf="qwen3next"),
    "recurrent_gemma": ModelType("recurrent_gemma"),
    "reformer": ModelType("reformer", by_class=True),
    "rembert": _BERT,
    "roberta": _BERT,
    "roberta-prelayernorm": _BERT,
    "roc_bert": _BERT,
    "roformer": _BERT,
    "rwkv": ModelType("rwkv"),
    "sarvam_mla": ModelType("deepseek"),
    "sarvam_moe": ModelType("glm"),
    "seed_oss": ModelType("llama_like", gguf="seed_oss"),
    "siglip2_text_model": ModelType("clip", same_as="siglip_text_model", by_class=True),
    "smollm3": ModelType("smollm3", gguf="smollm3"),
    "solar_open": ModelType("glm", gguf="glm4moe"),
    "stablelm": ModelType("stablelm", gguf="stablelm"),
    "step3p7": ModelType("step3p5", text_of="step3p5", whole="step3p7"),
    "t5": ModelType("t5", gguf="t5", by_class=True),
    "trocr": ModelType("bart_decoder", causal_only=True),
    "umt5": ModelType("t5", gguf="t5", by_class=True),
    "vaultgemma": ModelType("gemma"),
    "whisper": _BART,
    "xglm": ModelType("bart_decoder"),
    "xlm": ModelType("early_models"),
    "xlm-roberta": _BERT._replace(foreign=("lora_adaptations",)),
    "xlm-roberta-xl": _BERT,
    "xlnet": ModelType("early_models"),
    "xlstm": ModelType("xlstm"),
    "xmod": _BERT,
    "youtu": ModelType("deepseek", gguf="deepseek2"),
    "zamba": ModelType("zamba"),
    "zamba2": ModelType("zamba2"),
    "zaya": ModelType("zaya"),
    **{
        model_type: ModelType(module, by_class=True)
        for module, types in _BY_CLASS.items()
        for model_type in types.split()
    },
    **REMOTE_TYPES,
}
