"""Adapters in the real peft: ours on the exported model, and theirs as a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minilm.architectures.adapter_map import adapter_map
from minilm.checkpoint import load
from minilm.config.lora import LoraConfig
from minilm.errors import FormatError, InputError
from minilm.interop.convert import convert
from minilm.text.tokenizers import ByteTokenizer
from tests.interop.shapes import SHAPES, make_run
from tests.transforms.adapters import make_adapter_run

transformers = pytest.importorskip(
    "transformers", reason="the extra 'transformers' is not installed"
)
peft: Any = pytest.importorskip("peft", reason="peft is not installed")

from tests.interop.test_imports import MODELS  # noqa: E402  it is skipped where transformers is not there

# What they warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")

TOKENS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(3))
# Separate matrices, joined ones head by head, joined and transposed ones; a tied head.
NAMES = ("llama", "neox", "gpt2", "gpt2-tied", "starcoder2", "qwen2")


def their_model(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", ["rank_stabilised", "dora", ""])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "targets",
    [("query", "key", "value", "output"), ("query", "value", "up"), ("down", "lm_head")],
)
def test_peft_opens_ours_on_the_exported_model(
    name: str, targets: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    base = make_run(tmp_path / "base", SHAPES[name][1])
    config = LoraConfig(rank=3, alpha=7, targets=targets, **{kind: True} if kind else {})
    if (
        kind == "dora"
        and "query" in targets
        and "key" not in targets
        and name in ("neox", "gpt2", "gpt2-tied")
    ):
        reason = adapter_map(load(base).model.config, config).reason
        assert reason.startswith("dora: a part of the matrices that are one there")
        return
    model = make_adapter_run(base, tmp_path / "run", config)
    convert(base, "huggingface", tmp_path / "hf")
    theirs = peft.PeftModel.from_pretrained(
        their_model(tmp_path / "hf"), tmp_path / "run" / "adapter"
    )
    with torch.no_grad():
        logits, base_logits = theirs(TOKENS).logits, load(base).model(TOKENS)
    assert (logits - base_logits).abs().max() > 0.1
    torch.testing.assert_close(logits, model(TOKENS), atol=1e-4, rtol=1e-4)


TARGETS = {
    "llama": ["q_proj", "v_proj", "gate_proj", "lm_head"],
    "neox": ["query_key_value", "dense_h_to_4h", "lm_head"],
    "gpt2": ["c_attn", "attn.c_proj"],
}


def their_adapter(folder: Path, hf: Path, targets: list[str], **options: Any) -> Any:
    """Train nothing, but move every matrix; save it as peft does."""
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM")
    for name, value in options.items():
        setattr(config, name, value)
    theirs = peft.get_peft_model(their_model(hf), config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize("name", list(TARGETS))
@pytest.mark.parametrize("kind", ["use_rslora", "use_dora", ""])
def test_theirs_opens_here(name: str, kind: str, tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES[name][1])
    convert(base, "huggingface", tmp_path / "hf")
    theirs = their_adapter(
        tmp_path / "peft", tmp_path / "hf", TARGETS[name], **{kind: True} if kind else {}
    )
    convert(tmp_path / "peft", "minilm", tmp_path / "run")
    model = load(tmp_path / "run").model
    with torch.no_grad():
        logits = theirs(TOKENS).logits
    assert (logits - load(base).model(TOKENS)).abs().max() > 0.1
    torch.testing.assert_close(model(TOKENS), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("granite-untied", ["q_proj", "o_proj", "down_proj", "lm_head"]),
        ("phi3", ["qkv_proj", "gate_up_proj", "down_proj"]),
    ],
)
def test_theirs_opens_on_a_base_that_is_imported_only(
    name: str, targets: list[str], tmp_path: Path
) -> None:
    kind, fields = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**fields)
    torch.manual_seed(1)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text(ByteTokenizer().to_json())
    theirs = their_adapter(tmp_path / "peft", tmp_path / "hf", targets)
    convert(tmp_path / "peft", "minilm", tmp_path / "run")
    model = load(tmp_path / "run").model
    with torch.no_grad():
        logits = theirs(TOKENS).logits
    torch.testing.assert_close(model(TOKENS), logits, atol=1e-4, rtol=1e-4)


def test_a_head_may_have_the_name_of_before_transformers_5(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["neox"][1])
    config = LoraConfig(rank=3, targets=("down", "lm_head"))
    expected = make_adapter_run(base, tmp_path / "run", config)(TOKENS)
    weights = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    tensors = {
        name.replace(".lm_head.", ".embed_out."): tensor
        for name, tensor in load_file(weights).items()
    }
    assert any(".embed_out." in name for name in tensors)
    save_file(tensors, weights)
    assert torch.equal(load(tmp_path / "run").model(TOKENS), expected)
    fields = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    fields["base_model_name_or_path"] = str(base)
    (tmp_path / "run" / "adapter" / "adapter_config.json").write_text(json.dumps(fields))
    convert(tmp_path / "run" / "adapter", "minilm", tmp_path / "again")
    assert torch.equal(load(tmp_path / "again").model(TOKENS), expected)


@pytest.mark.parametrize("name", ["llama", "neox"])
@pytest.mark.parametrize("dora", [False, True])
def test_ours_comes_back_through_peft(name: str, dora: bool, tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES[name][1])
    config = LoraConfig(rank=3, targets=("query", "key", "value", "output"), dora=dora)
    model = make_adapter_run(base, tmp_path / "run", config)
    convert(base, "huggingface", tmp_path / "hf")
    fields = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    fields["base_model_name_or_path"] = str(tmp_path / "hf")
    (tmp_path / "run/adapter/adapter_config.json").write_text(json.dumps(fields))
    convert(tmp_path / "run" / "adapter", "minilm", tmp_path / "again")
    parameters = dict(load(tmp_path / "again").model.named_parameters())
    for key, parameter in model.named_parameters():
        assert torch.equal(parameters[key], parameter), key


def test_an_adapter_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    convert(base, "huggingface", tmp_path / "hf")
    their_adapter(tmp_path / "peft", tmp_path / "hf", ["q_proj"])
    path = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != key}, path)
    with pytest.raises(FormatError, match=r"lora_B\.weight, which has no place"):
        convert(tmp_path / "peft", "minilm", tmp_path / "out")
    layer = {name: tensor for name, tensor in tensors.items() if ".layers.0." in name}
    save_file(layer, path)
    with pytest.raises(FormatError, match=r"blocks\.1\.attention\.query\.lora_A\.weight absent"):
        convert(tmp_path / "peft", "minilm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("use_dora", True), ("bias", "all"), ("peft_type", "IA3"), ("init_lora_weights", "pissa")],
)
def test_what_is_no_plain_lora_is_refused(field: str, value: Any, tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    convert(base, "huggingface", tmp_path / "hf")
    their_adapter(tmp_path / "peft", tmp_path / "hf", ["q_proj"])
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    message = "lora_magnitude_vector" if field == "use_dora" else field
    with pytest.raises(FormatError, match=message):
        convert(tmp_path / "peft", "minilm", tmp_path / "out")


def test_an_adapter_alone_is_no_model(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", SHAPES["llama"][1])
    make_adapter_run(base, tmp_path / "run", LoraConfig(rank=2))
    for source in (tmp_path / "run", tmp_path / "run" / "adapter"):
        with pytest.raises(InputError, match=r"finetune RUN --merge"):
            convert(source, "huggingface", tmp_path / "out")
