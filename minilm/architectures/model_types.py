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
    language model alone is declared, not those with an encoder, another head or none.
    """

    module: str
    gguf: str = ""
    runs: bool = False
    missing: tuple[str, str] | None = None
    same_as: str = ""
    text_of: str = ""
    whole: str = ""
    causal_only: bool = False


_GEMMA2 = ("model_type", "norms after attention and feed-forward, GeGLU by tanh")

# Of those that minilm runs, the first that can represent a configuration is exported to.
MODEL_TYPES: dict[str, ModelType] = {
    "gpt2": ModelType("gpt2", gguf="gpt2", runs=True),
    "gpt_neox": ModelType("gpt_neox", gguf="gptneox", runs=True),
    "llama": ModelType("llama", gguf="llama", runs=True),
    "mistral": ModelType("mistral", gguf="llama", runs=True),
    "qwen2": ModelType("qwen", gguf="qwen2", runs=True),
    "qwen3": ModelType("qwen", gguf="qwen3", runs=True),
    "starcoder2": ModelType("starcoder2", gguf="starcoder2", runs=True),
    "afmoe": ModelType("afmoe"),
    "apertus": ModelType("llama_kin"),
    "arcee": ModelType("arcee"),
    "aria_text": ModelType("aria"),
    "axk1": ModelType("deepseek"),
    "axk2": ModelType("axk2"),
    "bart": ModelType("bart_decoder", causal_only=True),
    "beam": ModelType("sparse_kin"),
    "bert": ModelType("bert_decoder", causal_only=True),
    "bert-generation": ModelType("bert_decoder", causal_only=True),
    "big_bird": ModelType("bert_decoder", causal_only=True),
    "bigbird_pegasus": ModelType("bart_decoder", causal_only=True),
    "biogpt": ModelType("bart_decoder"),
    "bitnet": ModelType("llama_kin"),
    "blenderbot": ModelType("bart_decoder", causal_only=True),
    "blenderbot-small": ModelType("bart_decoder", causal_only=True),
    "bloom": ModelType("bloom"),
    "camembert": ModelType("bert_decoder", causal_only=True),
    "codegen": ModelType("gpt_like"),
    "cohere": ModelType("cohere"),
    "cohere2": ModelType("cohere"),
    "cohere2_moe": ModelType("cohere"),
    "cohere_compass_text": ModelType("cohere"),
    "cpmant": ModelType("early_models"),
    "ctrl": ModelType("gpt_like"),
    "cwm": ModelType("llama_like"),
    "data2vec-text": ModelType("bert_decoder", causal_only=True),
    "dbrx": ModelType("dbrx"),
    "deepseek_v2": ModelType("deepseek"),
    "deepseek_v3": ModelType("deepseek"),
    "deepseek_v32": ModelType("deepseek"),
    "deepseek_v4": ModelType("deepseek_v4"),
    "diffllama": ModelType("llama_kin"),
    "doge": ModelType("doge"),
    "dots1": ModelType("dots1"),
    "dots3_note": ModelType("dots3_note", text_of="dots3_note_text"),
    "dots3_note_text": ModelType("dots3_note"),
    "electra": ModelType("bert_decoder", causal_only=True),
    "emu3": ModelType("llama_like", text_of="emu3_text_model"),
    "emu3_text_model": ModelType("llama_like"),
    "ernie": ModelType("bert_decoder", causal_only=True),
    "ernie4_5": ModelType("llama_like"),
    "ernie4_5_moe": ModelType("ernie4_5_moe"),
    "exaone4": ModelType("exaone"),
    "exaone_moe": ModelType("exaone"),
    "falcon": ModelType("falcon"),
    "flex_olmo": ModelType("olmo"),
    "flint": ModelType("sparse_kin"),
    "fuyu": ModelType("gpt_like"),
    "gemma": ModelType("gemma", gguf="gemma", missing=("hidden_activation", "GeGLU by tanh")),
    "gemma2": ModelType("gemma", gguf="gemma2", missing=_GEMMA2),
    "gemma3": ModelType("gemma3", missing=_GEMMA2),
    "gemma3_text": ModelType("gemma", gguf="gemma3", missing=_GEMMA2),
    "gemma3n_text": ModelType("gemma3n"),
    "gemma4": ModelType("gemma3n", text_of="gemma4_text", whole="gemma4_multimodal"),
    "gemma4_text": ModelType("gemma3n"),
    "gemma4_unified": ModelType("gemma3n", text_of="gemma4_unified_text"),
    "gemma4_unified_text": ModelType("gemma3n"),
    "git": ModelType("git_captions"),
    "glm": ModelType("glm"),
    "glm4": ModelType("glm"),
    "glm4_moe": ModelType("glm"),
    "glm4_moe_lite": ModelType("deepseek"),
    "glm_moe_dsa": ModelType("deepseek"),
    "gpt-sw3": ModelType("gpt2", same_as="gpt2"),
    "gpt_bigcode": ModelType("gpt_bigcode"),
    "gpt_neo": ModelType("gpt_neo"),
    "gpt_neox_japanese": ModelType("gpt_like"),
    "gpt_oss": ModelType("gpt_oss"),
    "gptj": ModelType("gptj"),
    "granite": ModelType("granite"),
    "granite_swa": ModelType("granite_moe"),
    "granitemoe": ModelType("granite_moe"),
    "granitemoe_swa": ModelType("granite_moe"),
    "granitemoeshared": ModelType("granite_moe"),
    "helium": ModelType("llama_like"),
    "hunyuan_v1_dense": ModelType("hunyuan"),
    "hunyuan_v1_moe": ModelType("hunyuan"),
    "hy_v3": ModelType("hunyuan"),
    "hy_v4": ModelType("hy_v4"),
    "hyperclovax": ModelType("llama_kin"),
    "internlm3": ModelType("llama_like"),
    "iquestcoder": ModelType("llama_like"),
    "jais2": ModelType("nemotron"),
    "jetmoe": ModelType("jetmoe"),
    "kimi_k2": ModelType("deepseek", same_as="deepseek_v3"),
    "kolibri1": ModelType("sparse_kin"),
    "laguna": ModelType("laguna"),
    "llama4": ModelType("llama4", text_of="llama4_text", whole="llama4_vision"),
    "llama4_text": ModelType("llama4"),
    "longcat_flash": ModelType("longcat_flash"),
    "marian": ModelType("bart_decoder", causal_only=True),
    "mbart": ModelType("bart_decoder", causal_only=True),
    "megatron-bert": ModelType("bert_decoder", causal_only=True),
    "mellum": ModelType("qwen"),
    "mimo_v2_flash": ModelType("mimo"),
    "minicpm3": ModelType("deepseek"),
    "minimax_m2": ModelType("mixtral"),
    "minimax_m3_vl_text": ModelType("sparse_kin"),
    "ministral": ModelType("llama_like"),
    "ministral3": ModelType("llama_like"),
    "mixtral": ModelType("mixtral", gguf="llama"),
    "mllama": ModelType("multimodal_text", text_of="mllama_text_model"),
    "mllama_text_model": ModelType("multimodal_text"),
    "modernbert-decoder": ModelType("modernbert_decoder"),
    "moshi": ModelType("multimodal_text", causal_only=True),
    "mpt": ModelType("mpt"),
    "mvp": ModelType("bart_decoder", causal_only=True),
    "nanochat": ModelType("llama_kin"),
    "nemotron": ModelType("nemotron"),
    "olmo": ModelType("olmo"),
    "olmo2": ModelType(
        "olmo", gguf="olmo2", missing=("model_type", "norms after attention and feed-forward")
    ),
    "olmo3": ModelType("olmo"),
    "olmoe": ModelType("olmo"),
    "openai-gpt": ModelType("openai_gpt"),
    "opt": ModelType("opt"),
    "pegasus": ModelType("bart_decoder", causal_only=True),
    "persimmon": ModelType("gpt_like"),
    "phi": ModelType("phi", missing=("model_type", "an LM head with a bias")),
    "phi3": ModelType("phi3", gguf="phi3"),
    "phi4_multimodal": ModelType("phi4_multimodal"),
    "phimoe": ModelType("mixtral"),
    "plbart": ModelType("bart_decoder", causal_only=True),
    "prophetnet": ModelType("early_models", causal_only=True),
    "qwen2_moe": ModelType("qwen"),
    "qwen3_moe": ModelType("qwen", gguf="qwen3moe"),
    "rembert": ModelType("bert_decoder", causal_only=True),
    "roberta": ModelType("bert_decoder", causal_only=True),
    "roberta-prelayernorm": ModelType("bert_decoder", causal_only=True),
    "roc_bert": ModelType("bert_decoder", causal_only=True),
    "roformer": ModelType("bert_decoder", causal_only=True),
    "seed_oss": ModelType("llama_like"),
    "smollm3": ModelType("smollm3", gguf="smollm3"),
    "solar_open": ModelType("glm"),
    "stablelm": ModelType("stablelm"),
    "trocr": ModelType("bart_decoder", causal_only=True),
    "vaultgemma": ModelType("gemma"),
    "whisper": ModelType("bart_decoder", causal_only=True),
    "xglm": ModelType("bart_decoder"),
    "xlm": ModelType("early_models", causal_only=True),
    "xlm-roberta": ModelType("bert_decoder", causal_only=True),
    "xlm-roberta-xl": ModelType("bert_decoder", causal_only=True),
    "xlnet": ModelType("early_models", causal_only=True),
    "xmod": ModelType("bert_decoder", causal_only=True),
    "youtu": ModelType("deepseek"),
}
