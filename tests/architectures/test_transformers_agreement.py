"""Every family against transformers' own models: names, shapes, ties, buffers, caches and windows.

The models are built without weights (on the meta device) from random small configs, and from the empty
config that is all defaults. Where transformers fuses or renames what a file holds, its own conversion
back to the file's names is applied, and one small model a family is really saved and read again. The
declarations follow transformers 5; with 4 the families of OTHERWISE_IN_4 are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minilm.architectures import layout_of
from minilm.architectures.model_types import MODEL_TYPES
from minilm.costs.memory import kv_cache_elements
from minilm.errors import ConfigError
from minilm.formats.safetensors import read_header
from minilm.inspection.names import current_name
from minilm.ledger.layout import Layout
from tests.architectures import draws_decoders
from tests.architectures.record import CLASS_DRAWS, DRAWS, PATH, digest, drawn, tied_names
from tests.architectures.remote_types import CASES as REMOTE
from tests.architectures.required import REQUIRED

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
import torch  # noqa: E402
from transformers import DynamicCache, EncoderDecoderCache  # noqa: E402
from transformers.utils import import_utils  # noqa: E402

try:
    from transformers.core_model_loading import revert_weight_conversion
except ImportError:  # before transformers 5 a module has the names of its file

    def revert_weight_conversion(model: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors


Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]

NUM_DRAWS = 20
# DiNAT's kernels are needed to run it, not to build it.
import_utils.BACKENDS_MAPPING["natten"] = (lambda: True, "")
IS_VERSION_4 = transformers.__version__.startswith("4.")
OTHERWISE_IN_4 = {
    "deepseek_v2": "another default vocabulary, and an uncompressed cache",
    "deepseek_v3": "an uncompressed cache",
    "falcon": "the feed-forward width is not four times n_embed",
    "gpt_neo": "attention_types must list every layer",
    "opt": "norms without biases are not initialized",
    "stablelm": "norms without biases are not initialized",
}
# The transformers that adds a type, where make agree may have an earlier one.
ADDED_IN = dict.fromkeys(
    (
        *("apertus1p5_text", "dory", "exaone", "inkling2_loop_text", "lara_mini", "sarvam_mla"),
        "sarvam_moe",
    ),
    "5.24",
)


@pytest.fixture(autouse=True)
def _skip_what_differs(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    model_type = callspec.params["model_type"] if callspec else ""
    if IS_VERSION_4 and model_type in draws_decoders.DRAWS:
        pytest.skip("transformers 4 does not know it, or writes it otherwise")
    if IS_VERSION_4 and model_type in OTHERWISE_IN_4:
        pytest.skip(f"transformers 4: {OTHERWISE_IN_4[model_type]}")


def skip_what_is_newer(model_type: str) -> None:
    """Skip the test of a type that a later transformers than the installed one adds."""
    added = ADDED_IN.get(model_type)
    if added and model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} lacks it: {added} adds it")


def build(config: Config, device: str = "meta") -> Any:
    """transformers' model for a config.json."""
    skip_what_is_newer(config["model_type"])
    parsed = transformers.AutoConfig.for_model(**config)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(parsed)


def stored(model: Any) -> tuple[Shapes, Shapes]:
    """Parameters and persistent buffers as transformers would write them, each once."""
    # Of one parameter under two names, that which is written.
    written = getattr(model, "all_tied_weights_keys", None) or {}
    parameters = {written.get(name, name): t for name, t in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    buffers = {name: t for name, t in model.state_dict().items() if name not in every}
    return _in_file(model, parameters), _in_file(model, buffers)


def _in_file(model: Any, tensors: dict[str, Any]) -> Shapes:
    if not tensors:
        return {}
    reverted = revert_weight_conversion(model, tensors)
    return {
        current_name(name) if "LayerNorm." in name else name: tuple(tensor.shape)
        for name, tensor in reverted.items()
    }


def ties(model: Any) -> set[frozenset[str]]:
    """The names of one parameter, where it has several."""
    shared: dict[int, dict[str, Any]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared.setdefault(id(parameter), {})[name] = parameter
    return {frozenset(_in_file(model, same)) for same in shared.values() if len(same) > 1}


def shapes(layout: Layout, *, buffers: bool = False) -> Shapes:
    declared = layout.buffers if buffers else layout.tensors
    return {tensor.name: tensor.shape for tensor in layout.named_tensors(declared)}


def assert_agrees(model: Any, *layouts: Layout) -> None:
    parameters, buffers = stored(model)
    for layout in layouts:
        assert shapes(layout) == parameters
        assert shapes(layout, buffers=True) == buffers
        assert tied_names(layout.ties) == ties(model)
        assert layout.count() == model.num_parameters() + _padding(model)


def _padding(model: Any) -> int:
    """Elements of the rows behind the last token that Inkling 2's files have and its head leaves out."""
    if not hasattr(model.config, "unpadded_vocab_size"):
        return 0
    rows, width = model.lm_head.weight.shape
    return (model.config.vocab_size - rows) * width


# `gemma3` is compared by test_gemma3.py, whose text and image parts are configurations of their own. Of a
# larger model and its language model one is drawn; the tower of `gemma3n` is timm's.
DRAWN_ELSEWHERE = {
    *(
        "dots3_note",
        "gemma3",
        "gemma3n",
        "emu3_text_model",
        "gemma4",
        "gemma4_unified",
        "llama4",
        "mllama_text_model",
        "qwen3_5",
        "qwen3_5_moe",
    ),
}


def test_every_family_is_drawn() -> None:
    renamed = {name for name, model_type in MODEL_TYPES.items() if model_type.same_as}
    types = DRAWS.keys() | (CLASS_DRAWS.keys() - DRAWN_ELSEWHERE - renamed)
    of_remote_code_alone = REMOTE.keys() - DRAWS.keys()
    assert types == MODEL_TYPES.keys() - renamed - DRAWN_ELSEWHERE - of_remote_code_alone


@pytest.mark.parametrize("model_type", DRAWS)
def test_random_configs_agree_name_by_name(model_type: str) -> None:
    for seed in range(NUM_DRAWS):
        config = drawn(model_type, seed)
        model = build(config)
        written = json.loads(model.config.to_json_string(use_diff=False))
        assert_agrees(model, layout_of(config), layout_of(written))


SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
)


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("model_type", DRAWS)
def test_a_size_that_is_null(model_type: str, field: str) -> None:
    skip_what_is_newer(model_type)
    if field not in transformers.CONFIG_MAPPING[model_type].__dataclass_fields__:
        pytest.skip("no field, or the second name of one")
    config = drawn(model_type) | {field: None}
    try:
        model = build(config)
    except Exception:  # transformers' own, of many kinds
        try:
            layout = layout_of(config)
        except ConfigError:
            return
        assert layout == layout_of(config | {field: 8}), (
            "only a field that nothing reads may be null"
        )
    else:
        assert_agrees(model, layout_of(config))


@pytest.mark.parametrize("model_type", DRAWS)
def test_the_record_is_what_is_built(model_type: str) -> None:
    model = build(drawn(model_type))
    recorded = json.loads(PATH.read_text(encoding="utf-8"))[model_type]
    assert digest(*stored(model), ties(model)) == recorded, (
        "run: python -m tests.architectures.record"
    )


@pytest.mark.parametrize("model_type", DRAWS)
def test_the_defaults_are_the_architectures(model_type: str) -> None:
    config = {"model_type": model_type} | REQUIRED.get(model_type, {})
    layout, model = layout_of(config), build(config)
    assert_agrees(model, layout)
    written = model.config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len", "max_target_positions")
    lengths = (getattr(written, name, 0) for name in names)
    assert layout.context_length == max(lengths)


# Types of which transformers shows nothing to compare with, and why.
NOT_COMPARED = {
    "openai-gpt": "transformers keeps no cache of it",
}
CACHED = [name for name in DRAWS if name not in NOT_COMPARED]
SMALL = {
    "vocab_size": 11,
    "intermediate_size": 7,
    "pad_token_id": 0,
    "experts_implementation": "eager",
}
# Values with which a draw can be run, of fields that change no cache.
RUNS_WITH: dict[str, Config] = {
    "blenderbot": {"encoder_layers": 3},  # the cache is made for so many
    "codegen": {"rotary_dim": 2},  # at most a head's width
    "cpmant": {"prompt_types": 3, "segment_types": 3},
    "falcon": {"num_ln_in_parallel_attn": None, "parallel_attn": True},
    "fuyu": {"partial_rotary_factor": 1.0},  # even parts of the heads, whatever their width
    "inkling2_loop_text": {"unpadded_vocab_size": 11},
    "inkling2_text": {"unpadded_vocab_size": 11},
    "persimmon": {"partial_rotary_factor": 1.0},
    "phi": {"partial_rotary_factor": 1.0},
    "prophetnet": {"max_position_embeddings": 8, "num_buckets": 8},
    "stablelm": {"partial_rotary_factor": 1.0},
    "xlm": {"is_decoder": True},
    "xlstm": {"weight_mode": "single"},  # the initial weights of the other are of a wrong size
    "xmod": {"default_language": "en_XX"},
}
# Their local layers keep all tokens and leave the window to the mask.
MASKED_WINDOWS = {"gpt_neo"}


def test_caches_of_almost_all_types_are_compared() -> None:
    assert NOT_COMPARED.keys() <= DRAWS.keys()
    assert len(CACHED) / len(DRAWS) >= 0.95


@pytest.mark.parametrize("model_type", CACHED)
def test_windows_and_caches_are_those_of_a_real_run(model_type: str, tmp_path: Path) -> None:
    """A forward pass over two tokens leaves the cache that the layout says, in layers as it says."""
    for seed in range(4):
        model, layout = assert_caches(model_type, seed)
    model.save_pretrained(tmp_path)
    header = read_header(tmp_path / "model.safetensors")
    in_file = {tensor.name: tensor.shape for tensor in header.tensors}
    assert in_file == shapes(layout) | shapes(layout, buffers=True)


def runnable(model_type: str, seed: int) -> Config:
    """A draw that can be run on a CPU, in a moment."""
    config = drawn(model_type, seed)
    small = SMALL | RUNS_WITH.get(model_type, {})
    if MODEL_TYPES[model_type].causal_only:
        small |= {"is_decoder": True}  # else it keeps nothing
    if "text_config" in config:
        config["text_config"] |= small
    else:
        config |= small
    return config


def assert_caches(model_type: str, seed: int) -> tuple[Any, Layout]:
    config = runnable(model_type, seed)
    model = build(config, "cpu").eval()
    layout = layout_of(config)
    output, cached = run_of_two_tokens(model, model_type)
    if model_type == "falcon":
        _drop_repeated_heads(cached)
    elements = sum(_elements(layer) for layer in cached)
    elements += sum(layer.numel() for layer in output.get("mems", ()))  # XLNet's
    tokens = 2
    if model_type == "cpmant":
        tokens += model.config.prompt_length  # the prompt is cached before the text
    assert elements == kv_cache_elements(layout, context=tokens, batch=1)
    assert _states(model, output, cached) == layout.state.value(layout.symbols)
    own = [layer for layer in cached if _elements(layer)]  # not another layer's
    windows = [getattr(layer, "sliding_window", 0) for layer in own]
    expanded = [
        window
        for kind in layout.attention
        if kind.cache != 0
        for window in [kind.window] * kind.layers.value(layout.symbols)
    ]
    if model_type not in MASKED_WINDOWS and "mems" not in output:
        assert sorted(windows) == sorted(expanded)
    return model, layout


def run_of_two_tokens(model: Any, model_type: str) -> tuple[Any, list[Any]]:
    """The output, and the layers of the cache."""
    given: Config = {"use_cache": True}
    if model_type == "xlnet":
        given = {}  # it keeps the layers' inputs
    elif model_type == "xlm":  # it fills a cache and does not put it out
        given = {"cache": EncoderDecoderCache(DynamicCache(), DynamicCache())}
    elif model_type == "recurrent_gemma":
        given |= {"past_key_values": DynamicCache(config=model.config)}
    with torch.no_grad():
        output = model(torch.tensor([[1, 2]]), **given)
    names = ("past_key_values", "cache_params", "cache")
    kept = (holder.get(name) for holder in (output, given) for name in names)
    cache = next((each for each in kept if each is not None), None)
    cache = getattr(cache, "self_attention_cache", cache)
    return output, list(getattr(cache, "layers", ()))


def _drop_repeated_heads(cached: list[Any]) -> None:
    """transformers repeats Falcon's keys and values for every head of a group before it caches them."""
    for layer in cached:
        layer.keys, layer.values = (part.unique(dim=1) for part in (layer.keys, layer.values))


def _states(model: Any, output: Any, cached: list[Any]) -> int:
    """Elements of what recurrent layers keep, wherever a type has it."""
    states = sum(_state_elements(layer) for layer in cached)
    cache = output.get("cache_params", output.get("past_key_values"))
    states += sum(part.numel() for part in getattr(cache, "linear_cache", ()) if len(part))
    states += sum(part.numel() for part in output.get("state", ()))  # RWKV's
    matrices = getattr(cache, "rnn_state", {}).values()  # xLSTM's
    states += sum(part.numel() for layer in matrices for part in layer)
    own = (  # RecurrentGemma's
        getattr(module, name, None)
        for module in model.modules()
        for name in ("recurrent_states", "conv1d_state")
    )
    return states + sum(part.numel() for part in own if part is not None)


def _elements(layer: Any) -> int:
    parts = (getattr(layer, name, None) for name in ("keys", "values", "indexer_keys", "idx_keys"))
    distinct = {part.data_ptr(): part for part in parts if part is not None}
    return sum(part.numel() for part in distinct.values())


def _state_elements(layer: Any) -> int:
    """Of a recurrent layer: its state, and what its convolution keeps."""
    kept = (getattr(layer, name, {}) for name in ("conv_states", "recurrent_states"))
    return sum(part.numel() for parts in kept for part in parts.values() if part is not None)


def test_compressed_entries_are_those_of_a_real_run() -> None:
    """DeepSeek-V4's: one for 4 tokens with its indexer's, and one for 6."""
    config = {
        **drawn("deepseek_v4"),
        "num_hidden_layers": 3,
        "layer_types": [
            "compressed_sparse_attention",
            "heavily_compressed_attention",
            "compressed_sparse_attention",
        ],
        "mlp_layer_types": ["moe"] * 3,
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 6},
        "compress_rate_csa": None,
        "vocab_size": 11,
        "sliding_window": 64,
        "experts_implementation": "eager",
    }
    with torch.no_grad():
        cache = build(config, "cpu").eval()(torch.arange(26)[None] % 11).past_key_values
    compressed = [entry for layer in cache.layers for entry in layer.compressed_kv.values()]
    elements = sum(_elements(layer) for layer in cache.layers)
    elements += sum(entry.numel() for entry in compressed)
    assert elements == kv_cache_elements(layout_of(config), context=26, batch=1)
