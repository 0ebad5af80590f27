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
    is declared.
    """

    module: str
    gguf: str = ""
    runs: bool = False
    missing: tuple[str, str] | None = None
    same_as: str = ""
    text_of: str = ""


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
    "bloom": ModelType("bloom"),
    "cohere": ModelType("cohere"),
    "deepseek_v2": ModelType("deepseek"),
    "deepseek_v3": ModelType("deepseek"),
    "falcon": ModelType("falcon"),
    "gemma": ModelType("gemma", gguf="gemma", missing=("hidden_activation", "GeGLU by tanh")),
    "gemma2": ModelType("gemma", gguf="gemma2", missing=_GEMMA2),
    "gemma3": ModelType("gemma3", missing=_GEMMA2),
    "gemma3_text": ModelType("gemma", gguf="gemma3", missing=_GEMMA2),
    "gpt_bigcode": ModelType("gpt_bigcode"),
    "gpt_neo": ModelType("gpt_neo"),
    "gpt_oss": ModelType("gpt_oss"),
    "granite": ModelType("granite"),
    "gptj": ModelType("gptj"),
    "kimi_k2": ModelType("deepseek", same_as="deepseek_v3"),
    "mixtral": ModelType("mixtral", gguf="llama"),
    "mpt": ModelType("mpt"),
    "nemotron": ModelType("nemotron"),
    "olmo": ModelType("olmo"),
    "olmo2": ModelType(
        "olmo", gguf="olmo2", missing=("model_type", "norms after attention and feed-forward")
    ),
    "openai-gpt": ModelType("openai_gpt"),
    "opt": ModelType("opt"),
    "phi": ModelType("phi", missing=("model_type", "an LM head with a bias")),
    "phi3": ModelType("phi3", gguf="phi3"),
    "qwen2_moe": ModelType("qwen"),
    "qwen3_moe": ModelType("qwen", gguf="qwen3moe"),
    "smollm3": ModelType("smollm3", gguf="smollm3"),
    "stablelm": ModelType("stablelm"),
    "cwm": ModelType("llama_like"),
    "emu3": ModelType("llama_like", text_of="emu3_text_model"),
    "emu3_text_model": ModelType("llama_like"),
    "ernie4_5": ModelType("llama_like"),
    "helium": ModelType("llama_like"),
    "internlm3": ModelType("llama_like"),
    "iquestcoder": ModelType("llama_like"),
    "ministral": ModelType("llama_like"),
    "ministral3": ModelType("llama_like"),
    "seed_oss": ModelType("llama_like"),
    "axk1": ModelType("deepseek"),
    "deepseek_v32": ModelType("deepseek"),
    "glm4_moe_lite": ModelType("deepseek"),
    "glm_moe_dsa": ModelType("deepseek"),
    "minicpm3": ModelType("deepseek"),
    "youtu": ModelType("deepseek"),
    "cohere2": ModelType("cohere"),
    "cohere2_moe": ModelType("cohere"),
    "cohere_compass_text": ModelType("cohere"),
    "olmo3": ModelType("olmo"),
    "olmoe": ModelType("olmo"),
    "flex_olmo": ModelType("olmo"),
    "jais2": ModelType("nemotron"),
    "mellum": ModelType("qwen"),
    "gpt-sw3": ModelType("gpt2", same_as="gpt2"),
    "arcee": ModelType("llama_kin"),
    "apertus": ModelType("llama_kin"),
    "bitnet": ModelType("llama_kin"),
    "nanochat": ModelType("llama_kin"),
    "hyperclovax": ModelType("llama_kin"),
    "diffllama": ModelType("llama_kin"),
    "dots1": ModelType("dots1"),
    "ernie4_5_moe": ModelType("ernie4_5_moe"),
    "exaone4": ModelType("exaone"),
    "exaone_moe": ModelType("exaone"),
    "glm": ModelType("glm"),
    "glm4": ModelType("glm"),
    "glm4_moe": ModelType("glm"),
    "solar_open": ModelType("glm"),
    "granitemoe": ModelType("granite_moe"),
    "granitemoeshared": ModelType("granite_moe"),
    "granitemoe_swa": ModelType("granite_moe"),
    "granite_swa": ModelType("granite_moe"),
    "hunyuan_v1_dense": ModelType("hunyuan"),
    "hunyuan_v1_moe": ModelType("hunyuan"),
    "hy_v3": ModelType("hunyuan"),
    "llama4": ModelType("llama4", text_of="llama4_text"),
    "phimoe": ModelType("mixtral"),
    "minimax_m2": ModelType("mixtral"),
    "aria_text": ModelType("aria"),
    "afmoe": ModelType("afmoe"),
    "laguna": ModelType("laguna"),
    "mimo_v2_flash": ModelType("mimo"),
    "dbrx": ModelType("dbrx"),
    "llama4_text": ModelType("llama4"),
    "longcat_flash": ModelType("longcat_flash"),
    "vaultgemma": ModelType("gemma"),
    "gemma4": ModelType("gemma3n", text_of="gemma4_text"),
    "gemma3n_text": ModelType("gemma3n"),
    "gemma4_text": ModelType("gemma3n"),
    "jetmoe": ModelType("jetmoe"),
    "doge": ModelType("doge"),
}
