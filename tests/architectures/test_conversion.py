"""Architectures that minilm also runs: fields there and back, and which tensor becomes which."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from minilm.architectures import layout_of
from minilm.architectures.conversion import Architecture, architecture_for, exportable
from minilm.architectures.gguf_names import gguf_name
from minilm.architectures.model_types import MODEL_TYPES
from minilm.architectures.tensor_map import TensorMapping, tensor_mappings
from minilm.config import ModelConfig
from minilm.errors import ConfigError
from minilm.ledger.layout import Tensor
from tests.interop.shapes import SHAPES

RUNS = [name for name, entry in MODEL_TYPES.items() if entry.runs]


def architecture(model_type: str) -> Architecture:
    return architecture_for({"model_type": model_type})


def test_the_table_and_the_modules_list_the_same_architectures() -> None:
    listed = {
        each.model_type: name
        for name in {entry.module for entry in MODEL_TYPES.values()}
        for each in getattr(import_module(f"minilm.architectures.{name}"), "ARCHITECTURES", ())
    }
    assert listed == {name: MODEL_TYPES[name].module for name in RUNS}
    assert all(MODEL_TYPES[name].gguf for name in RUNS)


@pytest.mark.parametrize("model_type", RUNS)
def test_the_defaults_of_the_fields_are_those_of_the_layout(model_type: str) -> None:
    fields = {"model_type": model_type}
    config, layout = architecture(model_type).model_config(fields), layout_of(fields)
    assert config.vocab_size == layout.symbols["V"]
    assert config.tied_embeddings == (model_type in ("gpt2", "starcoder2")) == bool(layout.ties)
    assert config.sliding_window == layout.attention[0].window


@pytest.mark.parametrize("name", SHAPES)
def test_fields_there_and_back(name: str) -> None:
    config = ModelConfig(**SHAPES[name][1])
    architecture = exportable(config)[0]
    config = architecture.stored_config(config)
    assert architecture.class_name == SHAPES[name][0]
    fields = architecture.config_json(config)
    assert architecture_for(fields) == architecture
    assert architecture.model_config(fields) == replace(config, norm_bias=config.norm_bias)
    # Every field is said: the defaults of transformers are never what decides.
    mappings = tensor_mappings(architecture, config)
    declared = {tensor.name: tensor.shape for tensor in layout_of(fields).named_tensors()}
    assert [mapping.hf_name for mapping in mappings] == list(declared)


def layer(name: str) -> dict[str, TensorMapping]:
    config = ModelConfig(**SHAPES[name][1])
    mappings = tensor_mappings(exportable(config)[0], config)
    return {each.hf_name: each for each in mappings if ".1." in each.hf_name}


def qkv(suffix: str) -> tuple[str, ...]:
    return tuple(f"blocks.1.attention.{name}.{suffix}" for name in ("query", "key", "value"))


def test_the_tensors_of_a_gpt2_layer() -> None:
    mappings = layer("gpt2")
    assert len(mappings) == 12
    prefix = "transformer.h.1."
    for hf_name, names, transposed in [
        ("attn.c_attn.weight", qkv("weight"), True),
        ("attn.c_attn.bias", qkv("bias"), False),
        ("ln_2.weight", ("blocks.1.feed_forward_norm.weight",), False),
        ("mlp.c_proj.weight", ("blocks.1.feed_forward.down.weight",), True),
        ("mlp.c_proj.bias", ("blocks.1.feed_forward.down.bias",), False),
    ]:
        expected = TensorMapping(prefix + hf_name, names, transposed=transposed)
        assert mappings[prefix + hf_name] == expected


def test_the_tensors_of_a_gpt_neox_layer() -> None:
    mappings = layer("pythia")
    assert len(mappings) == 12
    name = "gpt_neox.layers.1.attention.query_key_value.bias"
    assert mappings[name] == TensorMapping(name, qkv("bias"), by_head=True)


def test_the_tensors_of_a_qwen3_layer() -> None:
    mappings = {name: each.minilm_names for name, each in layer("qwen3").items()}
    prefix, attention = "model.layers.1.", "blocks.1.attention"
    assert mappings == {
        f"{prefix}input_layernorm.weight": ("blocks.1.attention_norm.weight",),
        f"{prefix}self_attn.q_proj.weight": (f"{attention}.query.weight",),
        f"{prefix}self_attn.k_proj.weight": (f"{attention}.key.weight",),
        f"{prefix}self_attn.v_proj.weight": (f"{attention}.value.weight",),
        f"{prefix}self_attn.o_proj.weight": (f"{attention}.output.weight",),
        f"{prefix}self_attn.q_norm.weight": (f"{attention}.query_norm.weight",),
        f"{prefix}self_attn.k_norm.weight": (f"{attention}.key_norm.weight",),
        f"{prefix}post_attention_layernorm.weight": ("blocks.1.feed_forward_norm.weight",),
        f"{prefix}mlp.gate_proj.weight": ("blocks.1.feed_forward.gate.weight",),
        f"{prefix}mlp.up_proj.weight": ("blocks.1.feed_forward.up.weight",),
        f"{prefix}mlp.down_proj.weight": ("blocks.1.feed_forward.down.weight",),
    }


def test_windows_in_some_layers_only_are_refused() -> None:
    fields: dict[str, Any] = {"model_type": "qwen2", "use_sliding_window": True}
    with pytest.raises(ConfigError, match="max_window_layers: windows in some layers only"):
        architecture("qwen2").model_config(fields)
    windows = {"layer_types": ["sliding_attention"] * 32, "sliding_window": 7}
    assert architecture("qwen2").model_config(fields | windows).sliding_window == 7


def test_a_component_without_a_gguf_name_is_refused() -> None:
    tensor = Tensor(
        "x.weight", (), "causal convolution", layout_of({"model_type": "gpt2"}).tensors[0].role
    )
    with pytest.raises(ConfigError, match="causal convolution, expected a part that GGUF has"):
        gguf_name(tensor)


def test_a_count_imports_the_one_module_that_declares_it() -> None:
    for model_type, module in (("llama", "llama"), ("deepseek_v3", "deepseek")):
        program = f"""
import sys
from minilm.architectures import layout_of
from minilm.architectures.model_types import MODEL_TYPES
layout_of({{"model_type": {model_type!r}}})
modules = {{entry.module for entry in MODEL_TYPES.values()}}
imported = {{name for name in modules if "minilm.architectures." + name in sys.modules}}
assert imported == {{{module!r}}}, imported
assert not {{"numpy", "torch", "minilm.architectures.tensor_map"}} & set(sys.modules)
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
