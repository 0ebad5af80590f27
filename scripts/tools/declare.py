"""A draft declaration of one of transformers' model types, for a person to finish.

    python scripts/tools/declare.py glm4_moe
    python scripts/tools/declare.py gemma2 num_hidden_layers=6
    python scripts/tools/declare.py bert:BertForMaskedLM    # another class than its causal language model
    python scripts/tools/declare.py    # what transformers has, by mapping, that is not declared

transformers' own model is built on the meta device, at its defaults but for few layers and experts, and once
more with each whole number of its configuration doubled, and each pair of them. A dimension that is a
sum of products of at most two fields is found exactly so; each flag is turned over to see the tensors that it
adds or removes. What must be read in `modeling_TYPE.py` stays open: which layers differ and why,
windows, what is cached, and whether a component's name is the right one.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm.architectures import layout_of_class  # noqa: E402
from minilm.architectures.model_types import MODEL_TYPES  # noqa: E402
from minilm.errors import ConfigError  # noqa: E402
from minilm.ledger.symbols import (  # noqa: E402
    ASCII,
    ONE,
    ZERO,
    Polynomial,
    format_polynomial,
    symbol,
)

LETTERS = {
    "vocab_size": "V",
    "hidden_size": "d",
    "d_model": "d",
    "n_embd": "d",
    "num_attention_heads": "h",
    "n_head": "h",
    "decoder_attention_heads": "h",
    "num_key_value_heads": "g",
    "head_dim": "k",
    "intermediate_size": "f",
    "decoder_ffn_dim": "f",
    "ffn_dim": "f",
    "max_position_embeddings": "T",
    "n_positions": "T",
    "moe_intermediate_size": "m",
    "q_lora_rank": "q",
    "kv_lora_rank": "c",
    "qk_rope_head_dim": "r",
    "qk_nope_head_dim": "n",
    "v_head_dim": "v",
}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
LAYERS = ("num_hidden_layers", "decoder_layers", "n_layer", "num_layers")
MAPPINGS = (
    *("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_TEXT_TO_TEXT"),
    *("CTC", "AUDIO_CLASSIFICATION", "SPEECH_SEQ_2_SEQ"),
)
SMALL = {**dict.fromkeys(LAYERS, 4), **dict.fromkeys(EXPERTS, 8)} | {"n_group": 1, "topk_group": 1}
# Of a tensor's name, the first that occurs in it.
COMPONENTS = {
    "embed_tokens": "TOKEN_EMBEDDING",
    "position": "POSITION_EMBEDDING",
    "lm_head": "LM_HEAD",
    "shared_expert_gate": "SHARED_EXPERT_GATE",
    "shared": "SHARED_EXPERT",
    "experts.gate_up": "EXPERTS_GATE_UP",
    **{f"experts.{{e}}.{name}": f"EXPERTS_{name.upper()}" for name in ("gate", "up", "down")},
    "mlp.gate.": "ROUTER",
    "router": "ROUTER",
    "q_norm": "ATTENTION_QK_NORM",
    "k_norm": "ATTENTION_QK_NORM",
    "sinks": "ATTENTION_SINKS",
    "q_a_layernorm": "ATTENTION_LATENT_NORM",
    "input_layernorm": "ATTENTION_NORM",
    "post_attention_layernorm": "FEED_FORWARD_NORM",
    "q_proj": "ATTENTION_QUERY",
    "k_proj": "ATTENTION_KEY",
    "v_proj": "ATTENTION_VALUE",
    "o_proj": "ATTENTION_OUTPUT",
    "gate_proj": "FEED_FORWARD_GATE",
    "up_proj": "FEED_FORWARD_UP",
    "down_proj": "FEED_FORWARD_DOWN",
    "norm": "FINAL_NORM",
}

Shapes = dict[str, tuple[int, ...]]
Fields = Mapping[str, Any]


def build(model_type: str, fields: Fields) -> tuple[Any, Shapes]:
    """The model and its parameters and buffers by their names in files."""
    import torch
    import transformers
    from transformers.core_model_loading import revert_weight_conversion

    kind, _, class_name = model_type.partition(":")
    config = transformers.AutoConfig.for_model(kind, **fields)
    with torch.device("meta"):
        if class_name:
            model = getattr(transformers, class_name)._from_config(config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
    distinct = dict(model.named_parameters())
    every = dict(model.named_parameters(remove_duplicate=False))
    buffers = {name: t for name, t in model.state_dict().items() if name not in every}
    stored = revert_weight_conversion(model, distinct | buffers)
    return model, {name: tuple(tensor.shape) for name, tensor in stored.items()}


def collected(shapes: Shapes) -> dict[str, tuple[tuple[int, ...], list[int]]]:
    """One entry for the same tensor in many layers and experts: its shape, and the layers."""
    groups: dict[tuple[str, tuple[int, ...]], set[int]] = defaultdict(set)
    for name, shape in shapes.items():
        layer = re.search(r"\.(\d+)\.", name)
        pattern = re.sub(r"experts\.\d+\.", "experts.{e}.", name)
        pattern = re.sub(r"\.\d+\.", ".{i}.", pattern, count=1)
        groups[pattern, shape].add(int(layer[1]) if layer else -1)
    widths: dict[str, int] = defaultdict(int)
    tensors = {}
    for (name, shape), layers in groups.items():
        widths[name] += 1  # a tensor whose width differs by layer is listed once a width
        key = name if widths[name] == 1 else f"{name} ({widths[name]})"
        tensors[key] = (shape, sorted(layers - {-1}))
    return tensors


def doubled(model_type: str, base: Fields, names: tuple[str, ...]) -> dict[str, Any]:
    fields = {**base, **{name: 2 * base[name] for name in names}}
    try:
        return collected(build(model_type, fields)[1])
    except Exception:  # the two sizes do not fit each other: nothing is learnt from them
        return {}


def polynomials(model_type: str, base: Fields, written: Fields) -> dict[str, list[Polynomial]]:
    """Each tensor's dimensions as polynomials over the letters, or the names, of the fields."""
    start = collected(build(model_type, base)[1])
    numbers = {
        name: value
        for name, value in written.items()
        if type(value) is int and value > 1 and name not in LAYERS and "token_id" not in name
    }
    base = {**base, **numbers}
    single = {name: doubled(model_type, base, (name,)) for name in numbers}
    changes = {name: moved for name, moved in single.items() if moved and moved != start}

    def difference(tensor: str, axis: int, moved: Mapping[str, Any]) -> int:
        same = tensor in moved and len(moved[tensor][0]) == len(start[tensor][0])
        return int(moved[tensor][0][axis] - start[tensor][0][axis]) if same else 0

    dimensions = {tensor: [ZERO] * len(shape) for tensor, (shape, _) in start.items()}
    linear = {
        (tensor, axis, name): difference(tensor, axis, changes[name])
        for tensor, (shape, _) in start.items()
        for axis in range(len(shape))
        for name in changes
    }
    for one, two in combinations(changes, 2):
        moving = {(t, a) for t, a, name in linear if linear[t, a, one] and linear[t, a, two]}
        both = doubled(model_type, base, (one, two)) if moving else {}
        for tensor, axis in moving:
            product = difference(tensor, axis, both)
            product -= linear[tensor, axis, one] + linear[tensor, axis, two]
            if product and both:
                term = product // (numbers[one] * numbers[two]) * letter(one) * letter(two)
                dimensions[tensor][axis] += term
    values = {spelling(name): number for name, number in numbers.items()}
    for (tensor, axis, name), change in linear.items():
        products = Polynomial(
            {
                pair: coefficient
                for pair, coefficient in dimensions[tensor][axis].terms.items()
                if spelling(name) in dict(pair) and len(pair) == 2
            }
        )
        own = change - products.value(values)
        dimensions[tensor][axis] += own // numbers[name] * letter(name)
    for tensor, (shape, _) in start.items():
        for axis, size in enumerate(shape):
            rest = size - dimensions[tensor][axis].value(values)
            dimensions[tensor][axis] += rest * ONE
    return dimensions


def spelling(name: str) -> str:
    return "E" if name in EXPERTS else LETTERS.get(name, name)


def letter(name: str) -> Polynomial:
    return symbol(spelling(name))


def component(name: str) -> str:
    return next((c for part, c in COMPONENTS.items() if part in name), "?")


def tensor_line(name: str, shape: list[Polynomial], layers: list[int], num_layers: int) -> str:
    """A tensor as it is declared, as far as its name and shape tell."""
    text = ", ".join(format_polynomial(each, ASCII) for each in shape)
    where = "" if not layers or len(layers) == num_layers else f"  # layers {layers}"
    routed = ", experts=E, routed=True" if "{e}" in name else ""
    call = f'Tensor("{name}", ({text},), components.{component(name)}{routed})'
    plain = name.removesuffix(".weight")
    if "norm" in plain and len(shape) == 1 and plain != name:
        width = "" if text == "d" else f", width={text}"
        call = f'*norm("{plain}", components.{component(name)}{width})'
    elif len(shape) == 2 and plain != name and not routed:
        call = f'*linear("{plain}", {text}, components.{component(name)})'
    return f"        {call},{where}"


def draft(model_type: str, overrides: Fields) -> str:
    """The whole draft."""
    import transformers

    kind = model_type.partition(":")[0]
    defaults = json.loads(transformers.AutoConfig.for_model(kind).to_json_string(False))
    base = {name: value for name, value in SMALL.items() if name in defaults}
    heads, width = defaults.get("num_attention_heads"), defaults.get("hidden_size")
    if defaults.get("head_dim") is None and heads and width:
        base["head_dim"] = width // heads // 2 * 2
    base |= dict(overrides)
    model, shapes = build(model_type, base)
    written = json.loads(model.config.to_json_string(False))
    num_layers = next((written[name] for name in LAYERS if name in written), 0)
    dimensions = polynomials(model_type, base, written)
    source = type(model).__module__.replace(".", "/").removeprefix("transformers/")
    lines = [f'"""{type(model).__name__}: huggingface/transformers `{source}.py`."""', ""]
    common = json.loads(transformers.PreTrainedConfig().to_json_string(False))
    own = sorted(item for item in defaults.items() if item[0] not in common)
    lines += [f"# {name}: {value!r}" for name, value in own]
    lines += ["", "    tensors = ("]
    for name, (_, layers) in collected(shapes).items():
        lines.append(tensor_line(name, dimensions[name], layers, num_layers))
    lines.append("    )")
    buffers = model.state_dict().keys() - dict(model.named_parameters(remove_duplicate=False))
    lines += [f"# buffer: {name}" for name in sorted(buffers)[:4]]
    distinct = dict(model.named_parameters())
    every = dict(model.named_parameters(remove_duplicate=False))
    lines += [f"# tied: {name}" for name in sorted(every.keys() - distinct.keys())]
    for name, value in defaults.items():
        if isinstance(value, bool):
            lines += _turned_over(model_type, base, name, value, shapes)
    return "\n".join(lines)


def _turned_over(
    model_type: str, base: Fields, name: str, value: bool, shapes: Shapes
) -> list[str]:
    try:
        other = collected(build(model_type, {**base, name: not value})[1])
    except Exception as error:  # some flags need others
        return [f"# {name}={not value}: {type(error).__name__}"]
    before = {(tensor, shape) for tensor, (shape, _) in collected(shapes).items()}
    after = {(tensor, shape) for tensor, (shape, _) in other.items()}
    added = sorted(tensor for tensor, _ in after - before)
    removed = sorted(tensor for tensor, _ in before - after)
    if not added and not removed:
        return []
    return [f"# {name}={not value}: adds {', '.join(added)}; removes {', '.join(removed)}"]


def undeclared(mapping: str) -> list[str]:
    """The types of one of transformers' mappings, as CAUSAL_LM, of whose class there is no declaration."""
    from transformers.models.auto import modeling_auto

    names = getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES")
    return sorted(kind for kind, name in names.items() if not _is_declared(kind, name))


def _is_declared(model_type: str, class_name: str) -> bool:
    if model_type not in MODEL_TYPES:
        return False
    config = {"model_type": model_type, "architectures": [class_name]}
    try:
        return layout_of_class(config) is not None
    except ConfigError:  # it needs fields that have no default
        return True


def main(arguments: list[str]) -> None:
    if not arguments:
        for mapping in MAPPINGS:
            print(f"{mapping}: {' '.join(undeclared(mapping)) or 'all are declared'}")
        return
    model_type, *pairs = arguments
    overrides = {name: json.loads(value) for name, value in (pair.split("=") for pair in pairs)}
    print(draft(model_type, overrides))


if __name__ == "__main__":
    main(sys.argv[1:])
