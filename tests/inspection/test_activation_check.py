"""The ledger's activations against what autograd keeps, for every option of the model."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from minilm.config import ModelConfig, loss_chunks
from minilm.config.lora import LoraConfig
from minilm.config.presets import PRESETS
from minilm.costs.activations import activations
from minilm.costs.forward_pass import EXPLICIT_UP_TO
from minilm.costs.trained import Trained
from minilm.errors import InputError
from minilm.inspection.activation_check import (
    _allocated,
    check_activations,
    measure_activations,
)
from minilm.ledger import components
from minilm.model.transformer import Transformer
from tests.strategies import model_configs

# torch says so each time that it writes an RMSNorm of 16 bits out instead of fusing it.
NO_FUSED_NORM = "ignore:Mismatch dtype between input and weight:UserWarning"

SMALL = ModelConfig(
    vocab_size=11, context_length=600, num_layers=2, d_model=24, num_heads=6, head_dim=4
)


def check(config: ModelConfig, *, batch: int, context: int, dtype: str = "float32") -> None:
    measurement = measure_activations(
        Transformer(config), batch=batch, context=context, dtype=dtype
    )
    assert measurement.saved == measurement.predicted


def exact(config: ModelConfig, dropout: float) -> ModelConfig:
    """Without the two options for which the ledger claims an estimate alone."""
    return replace(
        config,
        dropout=dropout,
        context_length=600,
        parallel_residual=False,
        rotary_dim=config.head_dim,
    )


@pytest.mark.parametrize("options", [{"parallel_residual": True}, {"rotary_dim": 2}])
def test_what_is_not_exact_says_so_and_is_near(options: dict) -> None:
    config = replace(SMALL, **options)
    assert not activations(config, batch=2, context=64).exact
    measurement = measure_activations(Transformer(config), batch=2, context=64)
    assert measurement.saved == pytest.approx(measurement.predicted, rel=0.1)


@given(
    config=model_configs(),
    dropout=st.sampled_from([0.0, 0.1]),
    # Lengths on both sides of where attention is written out.
    context=st.sampled_from([1, 2, 7, 128, 129]),
    batch=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_every_option_in_float32(
    config: ModelConfig, dropout: float, context: int, batch: int
) -> None:
    check(exact(config, dropout), batch=batch, context=context)


@pytest.mark.filterwarnings(NO_FUSED_NORM)
@given(
    config=model_configs(),
    dropout=st.sampled_from([0.0, 0.1]),
    dtype=st.sampled_from(["bfloat16", "float16"]),
    context=st.sampled_from([1, 7, 512, 513]),
    batch=st.integers(1, 2),
)
@settings(max_examples=10, deadline=None)
def test_every_option_under_autocast(
    config: ModelConfig, dropout: float, dtype: str, context: int, batch: int
) -> None:
    check(exact(config, dropout), batch=batch, context=context, dtype=dtype)


@pytest.mark.parametrize("context", [128, 129])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": 2},
        {"num_kv_heads": 1},
        {"num_kv_heads": 1, "position": "learned"},
        {"head_dim": 2, "rotary_dim": 2},
        {"num_kv_heads": 3, "dropout": 0.2, "sliding_window": 9},
        {"qk_norm": True, "norm": "rmsnorm", "norm_bias": False, "feed_forward": "swiglu"},
        {
            "position": "learned",
            "feed_forward": "relu2",
            "sliding_window": 9,
            "tied_embeddings": True,
        },
    ],
)
def test_options_on_both_sides_of_the_fused_kernel(options: dict, batch: int, context: int) -> None:
    assert EXPLICIT_UP_TO["float32"] == 128
    check(replace(SMALL, **options), batch=batch, context=context)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "trained",
    [
        Trained(),
        Trained(frozenset({components.LM_HEAD})),
        Trained(frozenset({*components.EMBEDDINGS, components.LM_HEAD})),
        Trained(lora=LoraConfig(2)),
        Trained(lora=LoraConfig(2, targets=("value", "lm_head"))),
        Trained(lora=LoraConfig(2), packing="int8"),
    ],
)
def test_a_loss_that_is_computed_in_chunks(
    trained: Trained, tied: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_chunks, "LOGITS_PER_CHUNK", 200)
    config = replace(SMALL, tied_embeddings=tied)
    measurement = check_activations(
        config, batch=3, context=7, dtype=dtype, device="cpu", trained=trained
    )
    assert measurement is not None
    assert measurement.saved == measurement.predicted


WIDE_LORA = ("query", "key", "value", "output", "up", "down")


@pytest.mark.filterwarnings(NO_FUSED_NORM)
@pytest.mark.parametrize(
    "trained",
    [
        Trained(frozenset({components.ATTENTION_QUERY, components.ATTENTION_OUTPUT})),
        Trained(frozenset(components.EMBEDDINGS)),
        Trained(frozenset({*components.EMBEDDINGS, components.ATTENTION_NORM})),
        Trained(lora=LoraConfig(4)),
        Trained(lora=LoraConfig(4, dropout=0.1, targets=WIDE_LORA)),
        Trained(lora=LoraConfig(2, targets=("value", "lm_head"))),
        Trained(lora=LoraConfig(2, targets=("down",))),
        Trained(lora=LoraConfig(4, dora=True)),
        Trained(lora=LoraConfig(4), packing="int8"),
        Trained(lora=LoraConfig(4, targets=WIDE_LORA), packing="int8"),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": 2, "norm": "rmsnorm", "norm_bias": False, "feed_forward": "swiglu"},
        {"position": "learned", "num_layers": 4, "shared_layers": 2, "dropout": 0.1},
    ],
)
def test_what_is_saved_follows_from_what_is_trained(options: dict, trained: Trained) -> None:
    config = replace(SMALL, **options)
    for dtype, context in (("float32", 32), ("float32", 200), ("bfloat16", 32)):
        measurement = check_activations(
            config, batch=2, context=context, dtype=dtype, device="cpu", trained=trained
        )
        assert measurement is not None
        assert measurement.saved == measurement.predicted


_FREEZABLE = (
    *(components.TOKEN_EMBEDDING, components.ATTENTION_NORM, components.ATTENTION_QUERY),
    *(components.ATTENTION_KEY, components.ATTENTION_VALUE, components.ATTENTION_OUTPUT),
    *(components.FEED_FORWARD_NORM, components.FEED_FORWARD_UP, components.FEED_FORWARD_DOWN),
    *(components.FINAL_NORM, components.LM_HEAD),
)


@pytest.mark.filterwarnings(NO_FUSED_NORM)
@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_frozen(seed: int) -> None:
    """A product saves what the gradient of its other side needs, which in the first block may have none."""
    random = Random(seed)
    norm = random.choice(["layernorm", "rmsnorm"])
    config = replace(
        SMALL,
        num_layers=random.choice([1, 2]),
        num_kv_heads=random.choice([1, SMALL.num_heads]),
        dropout=random.choice([0, 0.1]),
        qk_norm=random.random() < 0.4,
        position=random.choice(["rope", "learned"]),
        norm=norm,
        norm_bias=norm == "layernorm",
        sliding_window=random.choice([0, 5]),
        convolution=random.choice([0, 2]),
        feed_forward=random.choice(["gelu", "swiglu"]),
    )
    optional = {
        components.ATTENTION_QK_NORM: config.qk_norm,
        components.CONVOLUTION: config.convolution > 0,
        components.FEED_FORWARD_GATE: config.feed_forward == "swiglu",
        components.POSITION_EMBEDDING: config.position == "learned",
    }
    there = [*_FREEZABLE, *(each for each, is_there in optional.items() if is_there)]
    share = random.choice([0.4, 0.8])
    trained_one = random.choice(there)
    frozen = {each for each in there if each != trained_one and random.random() < share}
    measurement = check_activations(
        config,
        batch=random.choice([1, 2]),
        context=random.choice([3, 32, 200]),
        dtype=random.choice(["float32", "bfloat16"]),
        device="cpu",
        trained=Trained(frozenset(frozen)),
    )
    assert measurement is not None
    assert measurement.saved == measurement.predicted


@pytest.mark.filterwarnings(NO_FUSED_NORM)
@pytest.mark.parametrize("options", [{}, {"sharing": "group", "feed_forward": "swiglu"}])
def test_autocast_casts_a_shared_matrix_once(options: dict) -> None:
    config = replace(SMALL, num_layers=5, shared_layers=2, **options)
    check(config, batch=2, context=32, dtype="bfloat16")
    own = activations(replace(config, shared_layers=0), batch=2, context=32, dtype="bfloat16")
    assert own.total() > activations(config, batch=2, context=32, dtype="bfloat16").total()


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_checkpointed_blocks_keep_their_inputs(position: str) -> None:
    config = replace(SMALL, position=position, num_layers=3)
    model = Transformer(config)
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    measurement = measure_activations(model, batch=2, context=32)
    # A checkpoint holds the cosines and sines as arguments, where the hook does not see them.
    rotation = 4 * 32 * config.head_dim if position == "rope" else 0
    assert activations(config, batch=2, context=32).between_blocks() == measurement.saved + rotation


def test_a_block_is_what_another_layer_adds() -> None:
    one, two = (
        measure_activations(
            Transformer(replace(SMALL, num_layers=layers)), batch=2, context=32
        ).saved
        for layers in (1, 2)
    )
    assert activations(SMALL, batch=2, context=32).block() == two - one


@pytest.mark.parametrize(("context", "longest"), [(256, 256), (64, 0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_as_a_run_measured_it(context: int, longest: int, dtype: str) -> None:
    """Explicit where it would be fused by rule, and the other way round."""
    config = ModelConfig(vocab_size=61, context_length=256, num_layers=2, d_model=32, num_heads=2)
    model = Transformer(config)
    by_rule = measure_activations(model, batch=2, context=context, dtype=dtype)
    for block in model.blocks:
        block.attention.longest_explicit = longest
    tuned = measure_activations(model, batch=2, context=context, dtype=dtype)
    assert tuned.saved == tuned.predicted
    assert (tuned.saved == by_rule.saved) == (context == 256 and dtype == "bfloat16")


def test_a_caller_without_gradients() -> None:
    with torch.no_grad():
        check(SMALL, batch=2, context=32)


def test_the_module_is_left_as_it_was() -> None:
    model = Transformer(replace(SMALL, dropout=0.5)).eval()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measurement = measure_activations(model, batch=1, context=8)
    assert torch.equal(torch.rand(4), expected)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert measurement.relative_error == 0
    assert (measurement.device, measurement.allocated, measurement.peak) == ("cpu", None, None)


def test_the_error_is_relative_to_what_was_measured() -> None:
    measurement = measure_activations(Transformer(SMALL), batch=1, context=8)
    assert replace(measurement, predicted=measurement.saved * 2).relative_error == 1.0


def test_a_context_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="context: 601, expected at most the model's 600"):
        measure_activations(Transformer(SMALL), batch=1, context=601)


def test_presets_that_are_small_enough_are_measured() -> None:
    measurement = check_activations(PRESETS["nano"].model_config(), device="cpu")
    assert measurement is not None
    assert measurement.context == PRESETS["nano"].model_config().context_length
    assert measurement.saved == measurement.predicted
    assert check_activations(PRESETS["gpt2-xl"].model_config(), device="cpu") is None


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_cuda_the_allocator_agrees(dtype: str) -> None:
    measurement = check_activations(
        PRESETS["small"].model_config(), batch=8, dtype=dtype, device="cuda"
    )
    assert measurement is not None
    assert measurement.allocated is not None
    assert measurement.peak is not None
    assert measurement.predicted == pytest.approx(measurement.saved, rel=0.05)
    assert measurement.predicted == pytest.approx(measurement.allocated, rel=0.05)
    assert measurement.peak >= measurement.allocated


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cublas_has_its_workspace_before_the_allocator_is_read(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card: a product in the forward pass and its two in the backward pass come first."""
    events: list[Any] = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.mm.default:
                events.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    def read(device: torch.device) -> int:
        events.append("read")
        return 512

    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device, **how: ones(*shape, **how))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", read)
    precision = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with torch.no_grad(), Products():
        assert _allocated(torch.device("cuda"), precision) == 512
    assert events == [dtype, dtype, dtype, "read"]


def test_nothing_is_held_after_a_measurement() -> None:
    def num_tensors() -> int:
        gc.collect()
        return sum(issubclass(type(value), torch.Tensor) for value in gc.get_objects())

    before = num_tensors()
    check_activations(SMALL, context=8)
    check_activations(SMALL, context=8, dtype="bfloat16")
    assert num_tensors() == before
