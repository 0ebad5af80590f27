"""LoRA on a module: nothing at first, merged the same, taken off the base; on disk the same logits."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from minilm.checkpoint import load
from minilm.config import ModelConfig
from minilm.config.lora import LoraConfig
from minilm.errors import ConfigError, FormatError, InputError
from minilm.generation.decoder import ModelDecoder, make_decoder
from minilm.inspection.inspector import inspect
from minilm.ledger.layout_changes import ADAPTER_TARGETS
from minilm.model.transformer import Transformer, next_token_loss
from minilm.transforms import lora
from tests.interop.shapes import NO_BIASES, SHAPES, TINY, make_run, random_model
from tests.transforms.adapters import ALL, make_adapter_run, trained

TOKENS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(3))
GROUPED = ModelConfig(**TINY | {"num_kv_heads": 2, "head_dim": 6, "dropout": 0.0})


@pytest.mark.parametrize("dora", [False, True])
def test_at_first_it_is_the_base_bit_for_bit(dora: bool) -> None:
    model = random_model(GROUPED)
    logits, weights = model(TOKENS), {n: p.clone() for n, p in model.named_parameters()}
    lora.apply(model, LoraConfig(rank=4, targets=ALL, dora=dora))
    assert torch.equal(model(TOKENS), logits)
    for name, parameter in model.named_parameters():
        is_adapter = lora.is_adapter(name)
        assert parameter.requires_grad == is_adapter
        assert is_adapter or torch.equal(parameter, weights[lora.base_name(name)])


@settings(max_examples=20)
@given(
    rank=st.integers(1, 8),
    factor=st.floats(0.1, 4),  # a larger one multiplies the rounding of float32 beyond 1e-5
    targets=st.sets(st.sampled_from(ALL), min_size=1),
    tied=st.booleans(),
    stabilised=st.booleans(),
    dora=st.booleans(),
)
def test_merged_is_the_adapter(
    rank: int, factor: float, targets: set[str], tied: bool, stabilised: bool, dora: bool
) -> None:
    alpha = factor * (math.sqrt(rank) if stabilised else rank)
    model = random_model(replace(GROUPED, tied_embeddings=tied))
    base = model(TOKENS)
    config = LoraConfig(rank, alpha, targets=tuple(targets), rank_stabilised=stabilised, dora=dora)
    trained(lora.apply(model, config)).eval().requires_grad_(False)
    adapted = model(TOKENS)
    assert (adapted - base).abs().max() > 1e-4
    lora.merge(model)
    scale = adapted.abs().max()
    torch.testing.assert_close(model(TOKENS) / scale, adapted / scale, atol=1e-5, rtol=0)
    assert not list(lora.adapters(model))
    # Its config says what it is: an unmodified model, which the fast decoder takes.
    assert not isinstance(make_decoder(model), ModelDecoder)


def test_taken_off_it_is_the_base() -> None:
    model = random_model(GROUPED)
    logits = model(TOKENS)
    trained(lora.apply(model, LoraConfig(rank=2, targets=ALL)))
    lora.set_adapter(model, None)
    assert torch.equal(model(TOKENS), logits)


def test_merging_a_tied_head_leaves_the_embedding() -> None:
    model = random_model(replace(GROUPED, tied_embeddings=True))
    table = model.embedding.token.weight.clone()
    trained(lora.apply(model, LoraConfig(rank=2, targets=("lm_head",))))
    lora.merge(model)
    assert torch.equal(model.embedding.token.weight, table)
    assert not torch.equal(model.lm_head.weight, table)
    assert not model.config.tied_embeddings
    assert "lm_head.weight" in dict(model.named_parameters())


def test_the_scale_of_a_stabilised_adapter_is_applied_once(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", TINY)
    config = LoraConfig(rank=4, alpha=4, targets=("down",), rank_stabilised=True)
    live = make_adapter_run(base, tmp_path / "run", config)
    loaded = load(tmp_path / "run").model
    for model in (live, loaded):
        module = model.blocks[1].feed_forward.down
        assert isinstance(module, lora.LoRALinear)
        x = torch.randn(1, 3, module.in_features, generator=torch.Generator().manual_seed(0))
        low = x @ module.lora_A.weight.T @ module.lora_B.weight.T
        torch.testing.assert_close(module(x) - module.base(x), 2 * low, atol=1e-4, rtol=1e-4)
    weight = load(base).model.blocks[1].feed_forward.down.weight
    update = module.lora_B.weight @ module.lora_A.weight
    merged = lora.merge(loaded).blocks[1].feed_forward.down.weight
    torch.testing.assert_close(merged, weight + 2 * update, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_are_float32_on_a_half_base(dtype: torch.dtype) -> None:
    model = random_model(GROUPED).to(dtype)
    logits = model(TOKENS)
    lora.apply(model, LoraConfig(rank=4))
    assert torch.equal(model(TOKENS), logits)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    next_token_loss(model, TOKENS[:, :-1], TOKENS[:, 1:]).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)


class Doubled(nn.Module):
    """A linear map that is no nn.Linear and has no weight of its name, as a quantized one is."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("packed", linear.weight.detach() / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (2 * self.packed).T


def test_the_base_may_be_any_linear_map() -> None:
    model = random_model(ModelConfig(**TINY | NO_BIASES))
    for block in model.blocks:
        block.attention.query = Doubled(block.attention.query)
    logits = model(TOKENS)
    lora.apply(model, LoraConfig(rank=2))
    assert torch.equal(model(TOKENS), logits)
    trained(model)
    assert not torch.equal(model(TOKENS), logits)
    with pytest.raises(InputError, match="an adapter of a Doubled"):
        lora.merge(model)


def test_dropout_is_of_training_alone() -> None:
    model = trained(lora.apply(random_model(GROUPED), LoraConfig(rank=4, dropout=0.5)))
    assert torch.equal(model.eval()(TOKENS), model(TOKENS))
    assert not torch.equal(model.train()(TOKENS), model(TOKENS))


@pytest.mark.parametrize("name", ["llama", "neox", "gpt2-tied", "own names"])
@pytest.mark.parametrize("dora", [False, True])
def test_every_trained_part_is_in_the_files(name: str, dora: bool, tmp_path: Path) -> None:
    fields = TINY | {"ngram": 2} if name == "own names" else SHAPES[name][1]
    base = make_run(tmp_path / "base", fields)
    targets = ALL if name != "llama" else (*ALL, "gate")
    model = make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3, targets=targets, dora=dora))
    loaded = load(tmp_path / "run").model
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    assert not any(p.requires_grad for p in loaded.parameters())
    trainable = load(tmp_path / "run", trainable=True).model
    names = {n for n, p in trainable.named_parameters() if p.requires_grad}
    assert names == {n for n, _ in model.named_parameters() if lora.is_adapter(n)}
    report = inspect(tmp_path / "run")
    assert report.verified
    assert report.parameters.trainable == sum(
        p.numel() for n, p in model.named_parameters() if n in names
    )
    own = [module for _, module in lora.adapters(model)]
    sides = sum(m.in_features + m.out_features for m in own)
    lengths = sum(m.out_features for m in own)
    assert report.parameters.trainable == 3 * sides + dora * lengths


@pytest.fixture(scope="module")
def adapter_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    base = make_run(folder / "base", SHAPES["llama"][1])
    make_adapter_run(base, folder / "run", LoraConfig(rank=3))
    return folder


def copied(adapter_run: Path, folder: Path) -> Path:
    shutil.copytree(adapter_run, folder / "copy")
    return folder / "copy" / "run"


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_tensor_that_is_missing_or_left_over_raises(adapter_run: Path, tmp_path: Path) -> None:
    run = copied(adapter_run, tmp_path)
    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = sorted(tensors)[0]
    save_file({f"{name}x" if name == key else name: t for name, t in tensors.items()}, path)
    with pytest.raises(FormatError, match=f"{key} absent"):
        load(run)
    save_file({n: t for n, t in tensors.items() if n != key}, path)
    with pytest.raises(FormatError, match=f"{key} absent"):
        load(run)
    save_file(tensors | {"more": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match=r"more \[2\], expected no such tensor"):
        load(run)


def test_a_joined_matrix_that_is_not_zero_beside_its_blocks_raises(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["neox"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=3))
    path = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(name for name in tensors if name.endswith("query_key_value.lora_B.weight"))
    tensors[key][0, -1] = 1.0
    save_file(tensors, path)
    with pytest.raises(FormatError, match="B is not zero beside the blocks"):
        load(tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "value"), [("lora_alpha", 3), ("r", 4), ("use_rslora", True), ("use_dora", True)]
)
def test_settings_of_another_adapter_raise(
    field: str, value: Any, adapter_run: Path, tmp_path: Path
) -> None:
    run = copied(adapter_run, tmp_path)
    change(run / "adapter" / "adapter_config.json", **{field: value})
    with pytest.raises(FormatError, match=f"{field} {value}"):
        load(run)


def test_a_base_with_other_weights_is_refused(adapter_run: Path, tmp_path: Path) -> None:
    run = copied(adapter_run, tmp_path)
    record = json.loads((run / "config.json").read_text())
    # Moved together, the base is found beside the run.
    change(run / "config.json", base=record["base"] | {"path": "/nowhere/base"})
    load(run)
    path = run.parent / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["final_norm.weight"][0] += 1
    save_file(tensors, path)
    with pytest.raises(
        InputError, match=r"weights with SHA-256 .*, expected those that the adapter"
    ):
        load(run)
    shutil.rmtree(run.parent / "base")
    with pytest.raises(InputError, match=r"no model\.safetensors in its base"):
        load(run)


def test_an_adapter_is_no_base(adapter_run: Path, tmp_path: Path) -> None:
    run = copied(adapter_run, tmp_path)
    (run / "model.safetensors").write_bytes(b"")
    change(run / "config.json", base={"path": str(run), "sha256": "0" * 64})
    with pytest.raises(InputError, match="an adapter, expected the run that an adapter"):
        load(run)


def test_the_gradient_of_dora_takes_the_lengths_of_the_sum_as_constant() -> None:
    """As Liu et al. have it, section 4.3: m (W + s B A) x / c with c held."""
    linear = nn.Linear(5, 4)
    module = lora.LoRALinear(linear, LoraConfig(2, 3, dora=True), torch.Generator(), "a")
    with torch.no_grad():
        module.lora_B.weight.copy_(torch.randn(4, 2))
    x = torch.randn(3, 5)
    module(x).square().sum().backward()
    actual = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    total = linear.weight + 1.5 * module.lora_B.weight @ module.lora_A.weight
    ratio = module.lora_magnitude_vector / total.detach().norm(dim=1)
    (x @ (ratio[:, None] * total).T + linear.bias).square().sum().backward()
    assert set(actual) == {"lora_A.weight", "lora_B.weight", "lora_magnitude_vector"}
    for name, gradient in actual.items():
        expected = module.get_parameter(name).grad
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_several_adapters_of_one_base(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    configs = {"a": LoraConfig(rank=3), "b": LoraConfig(rank=2, targets=("query", "lm_head"))}
    live = {name: make_adapter_run(base, tmp_path / name, each) for name, each in configs.items()}
    model = load(tmp_path / "a", adapters=[tmp_path / "b"]).model
    both, of_base = model(TOKENS), load(base).model(TOKENS)
    for name in ("a", "b"):
        lora.set_adapter(model, name)
        torch.testing.assert_close(model(TOKENS), live[name](TOKENS), atol=1e-5, rtol=1e-5)
    lora.set_adapter(model, {"b": 0.0})
    assert torch.equal(model(TOKENS), of_base)
    lora.set_adapter(model, {"a": 1, "b": 1})
    assert torch.equal(model(TOKENS), both)
    on_base = load(base, adapters=[tmp_path / "b", tmp_path / "a"]).model
    torch.testing.assert_close(on_base(TOKENS), both, atol=1e-4, rtol=1e-4)
    report = inspect(model)
    assert report.verified
    alone = {name: inspect(tmp_path / name).parameters for name in configs}
    base_count = inspect(base).parameters.total
    assert report.parameters.total == base_count + sum(
        each.total - base_count for each in alone.values()
    )
    lora.set_adapter(model, {"a": 0.5, "b": -1.0})
    weighted = model(TOKENS)
    lora.merge(model)
    torch.testing.assert_close(model(TOKENS), weighted, atol=1e-4, rtol=1e-4)
    trainable = load(base, adapters=[tmp_path / "b"], trainable=True).model
    assert {n for n, p in trainable.named_parameters() if p.requires_grad} == {
        n for n, _ in live["b"].named_parameters() if lora.is_adapter(n)
    }


def test_adapters_that_do_not_go_together(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    other = make_run(tmp_path / "other", SHAPES["llama"][1] | {"vocab_size": 300})
    make_adapter_run(base, tmp_path / "a", LoraConfig(rank=3))
    make_adapter_run(other, tmp_path / "b", LoraConfig(rank=3))
    make_adapter_run(base, tmp_path / "dora", LoraConfig(rank=3, dora=True))
    with pytest.raises(InputError, match=f"an adapter of {other}, expected one of the base of"):
        load(tmp_path / "a", adapters=[tmp_path / "b"])
    with pytest.raises(InputError, match="a whole model, expected a run that is an adapter"):
        load(tmp_path / "a", adapters=[base])
    with pytest.raises(InputError, match="a: the name of two adapters"):
        load(tmp_path / "a", adapters=[tmp_path / "a"])
    with pytest.raises(InputError, match="dora: a DoRA adapter among several"):
        load(tmp_path / "a", adapters=[tmp_path / "dora"])
    model = load(tmp_path / "dora").model
    with pytest.raises(InputError, match="adapter: 'x', expected one of dora"):
        lora.set_adapter(model, "x")
    with pytest.raises(InputError, match=r"adapter: 0\.5 times dora"):
        lora.set_adapter(model, {"dora": 0.5})
    for strengths in (["dora"], {"dora": "1"}, {"dora": float("nan")}, {"dora": True}):
        with pytest.raises(InputError, match=r"^adapter: "):
            lora.set_adapter(model, strengths)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="for a model without adapters"):
        lora.set_adapter(torch.nn.Linear(2, 2), "dora")


def test_no_adapter_on_an_adapter() -> None:
    model = lora.apply(random_model(GROUPED), LoraConfig(rank=2))
    with pytest.raises(InputError, match="a model with adapters, expected one without"):
        lora.apply(model, LoraConfig(rank=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("query", "attn")}, "targets: 'attn', expected any of query"),
        ({"targets": ()}, "targets: none"),
        ({"targets": "query"}, "targets: 'query'"),
        ({"rank": 0}, "lora_rank: 0"),
        ({"rank": True}, "lora_rank: True"),
        ({"alpha": 0}, "lora_alpha: 0"),
        ({"alpha": "x"}, "lora_alpha: 'x'"),
        ({"dropout": 1}, "lora_dropout: 1"),
        ({"dora": 1}, "dora: 1"),
        ({"rank_stabilised": 1}, "rank_stabilised: 1"),
    ],
)
def test_no_such_adapter(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoraConfig(**options)


def test_targets_are_in_one_order() -> None:
    config = LoraConfig(targets=("output", "query", "query"))
    assert config.targets == ("query", "output")
    assert set(ALL) | {"gate"} == set(ADAPTER_TARGETS)


def test_the_same_seed_gives_the_same_adapter() -> None:
    def a(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        model = lora.apply(Transformer(GROUPED), LoraConfig(rank=2), generator)
        return dict(model.named_parameters())["blocks.0.attention.query.lora_A.weight"]

    assert torch.equal(a(1), a(1))
    assert not torch.equal(a(1), a(2))
