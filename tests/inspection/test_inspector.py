"""The report of every kind of target, and each way in which witnesses can disagree."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import minilm
from minilm.architectures import layout_of
from minilm.checkpoint import save_weights
from minilm.errors import FormatError, InputError
from minilm.runs.files import RunRecord, write_record

TINY_TOTAL_SHARES = pytest.approx(1.0, abs=1e-12)


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def change_weights(run: Path, change: str) -> None:
    path = run / "model.safetensors"
    tensors = load_file(path)
    if change == "one too many":
        tensors["blocks.0.extra"] = torch.zeros(1)
    elif change == "missing":
        del tensors["final_norm.bias"]
    elif change == "renamed":
        tensors["final_norm.gain"] = tensors.pop("final_norm.weight")
    elif change == "wrong shape":
        tensors["final_norm.weight"] = torch.zeros(17)
    elif change == "transposed":
        name = "blocks.0.feed_forward.up.weight"
        tensors[name] = tensors[name].T.contiguous()
    save_file(tensors, path)


def test_a_run_is_proven_by_three_witnesses(tiny_run: Path) -> None:
    report = minilm.inspect(str(tiny_run))
    w = report.witnesses
    assert w.formula == w.file == w.module == report.parameters.total
    assert report.verified
    assert report.mismatches == ()
    assert report.architecture == "minilm"
    assert {row.dtype for row in report.tensors} == {"float32"}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("one too many", ["blocks.0.extra [1] is not in the formula", "(+1)"]),
        ("missing", ["final_norm.bias [16] is missing", "(-16)"]),
        ("renamed", ["final_norm.gain [16] is not in", "final_norm.weight [16] is missing"]),
        ("wrong shape", ["final_norm.weight has shape [17], the formula says [16]", "(+1)"]),
        ("transposed", ["blocks.0.feed_forward.up.weight has shape [16, 64]"]),
    ],
)
def test_a_difference_is_named(run_copy: Path, change: str, names: list[str]) -> None:
    change_weights(run_copy, change)
    for target in (run_copy, run_copy / "model.safetensors"):
        report = minilm.inspect(str(target))
        assert not report.verified
        for name in names:
            assert any(name in line for line in report.mismatches), report.mismatches


def test_a_run_without_weights_is_not_verified(run_copy: Path) -> None:
    (run_copy / "model.safetensors").unlink()
    report = minilm.inspect(str(run_copy))
    assert report.mismatches == ("file: model.safetensors is missing",)


def write_folder(
    folder: Path, config: dict[str, Any], **extra: torch.Tensor
) -> dict[str, torch.Tensor]:
    """A config.json and a file of zeros, with ``extra`` tensors; returns the declared ones by name."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {t.name: torch.zeros(t.shape) for t in layout_of(config).named_tensors()}
    save_file(tensors | extra, folder / "model.safetensors")
    return tensors


def write_llama(folder: Path, **fields: object) -> dict[str, torch.Tensor]:
    """A tiny Llama folder; returns its tensors by name."""
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 12,
        "vocab_size": 11,
    } | fields
    return write_folder(folder, config)


def write_gpt2(folder: Path, **extra: torch.Tensor) -> int:
    """A tiny GPT-2 folder as transformers writes it; returns its exact count."""
    config = {
        "model_type": "gpt2",
        "n_embd": 8,
        "n_layer": 2,
        "n_head": 2,
        "vocab_size": 11,
        "n_positions": 5,
    }
    return sum(tensor.numel() for tensor in write_folder(folder, config, **extra).values())


def test_a_second_copy_of_a_tied_head_is_not_counted_twice(tmp_path: Path) -> None:
    count = write_gpt2(tmp_path, **{"lm_head.weight": torch.zeros(11, 8)})
    report = minilm.inspect(str(tmp_path))
    assert report.verified
    assert report.parameters.total == report.witnesses.file == count
    assert report.parameters.stored_elements == count + 11 * 8
    assert report.tied == (("lm_head.weight", "transformer.wte.weight"),)


def test_a_gpt2_file_as_published_has_short_names_and_masks(tmp_path: Path) -> None:
    count = write_gpt2(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 5, 5) for i in range(2)}
    save_file(short | masks, tmp_path / "model.safetensors")
    report = minilm.inspect(str(tmp_path))
    assert report.verified, report.mismatches
    assert report.parameters.total == report.witnesses.file == count
    assert report.parameters.buffers == 2 * 25
    assert report.parameters.stored_elements == count + 2 * 25
    components = {row.name: row.component for row in report.tensors}
    assert components["h.1.mlp.c_fc.weight"] == "feed-forward up"
    # Both spellings in one file are one tensor too many.
    save_file(tensors | {"wte.weight": torch.zeros(11, 8)}, tmp_path / "model.safetensors")
    assert not minilm.inspect(str(tmp_path)).verified


def test_a_tied_head_of_another_shape_is_one_tensor_too_many(tmp_path: Path) -> None:
    write_gpt2(tmp_path, **{"lm_head.weight": torch.zeros(1, 1)})
    assert not minilm.inspect(str(tmp_path)).verified


def test_a_minilm_file_may_not_hold_its_tied_head_again(tmp_path: Path) -> None:
    config = minilm.ModelConfig(tied_embeddings=True, d_model=8, num_heads=2, num_layers=1)
    write_record(tmp_path, RunRecord(config, minilm.TrainConfig()))
    save_weights(tmp_path / "model.safetensors", minilm.Transformer(config), {})
    assert minilm.inspect(str(tmp_path)).verified
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.zeros(256, 8)}, tmp_path / "model.safetensors")
    report = minilm.inspect(str(tmp_path))
    assert any("lm_head.weight [256, 8] is not in the formula" in x for x in report.mismatches)


def test_a_preset_has_its_formula_and_on_request_its_module() -> None:
    report = minilm.inspect("gpt2")
    assert report.witnesses.formula == 124_439_808
    assert report.witnesses.file is None
    assert report.witnesses.module is None
    assert minilm.inspect("gpt2", live=True).witnesses.module == 124_439_808


def test_gpt2_conventions() -> None:
    p = minilm.inspect("gpt2").parameters
    assert (p.total, p.embedding, p.non_embedding) == (124_439_808, 39_383_808, 85_056_000)
    assert (p.biases, p.weights) == (102_144, 124_337_664)
    assert p.total == p.trainable == p.active


def test_json_is_the_documented_schema(tiny_run: Path) -> None:
    value = json.loads(json.dumps(minilm.inspect(str(tiny_run)).to_json(tensors=True)))
    assert value["schema"] == "minilm.report/1"
    assert value["verified"] is True
    assert set(value["witnesses"]) == {"formula", "file", "module"}
    total = value["parameters"]["total"]
    assert sum(c["count"] for c in value["components"]) == total
    assert sum(c["share"] for c in value["components"]) == TINY_TOTAL_SHARES
    for component in value["components"]:
        assert component["weights"] + component["biases"] == component["count"]
        assert set(component) == {"name", "count", "share", "formula", "weights", "biases"}
    assert sum(t["count"] for t in value["tensors"]) == total
    assert set(value["tensors"][0]) == {"name", "shape", "dtype", "count", "component"}
    assert set(value["formula"]) == {"symbolic", "substituted", "symbols", "approximation"}
    assert set(value["formula"]["approximation"]) == {"text", "value", "relative_error"}
    weights = value["memory"]["weights"]
    assert weights["float32"] == weights["stored"] == 4 * total
    assert weights["float16"] == weights["bfloat16"] == 2 * total
    assert weights["int8"] == total
    assert weights["int4"] == (total + 1) // 2
    assert value["memory"]["training"]["total"] == 16 * total


def test_flops_and_cache_of_gpt2() -> None:
    report = minilm.inspect("gpt2", context=1024, batch=2)
    # 12 layers of 12 d² multiplied parameters and a tied head, 2 FLOPs each; scores and their use.
    matrices = 12 * 12 * 768**2 + 50257 * 768
    attention = 4 * 12 * 768 * 1024
    assert report.flops == {
        "forward_per_token": 2 * matrices + attention,
        "training_per_token": 3 * (2 * matrices + attention),
        "attention_per_token": attention,
    }
    assert report.memory["kv_cache"]["bfloat16"] == 2 * 12 * 768 * 2 * 1024 * 2


def test_a_sliding_window_bounds_attention_and_its_cache(tmp_path: Path) -> None:
    fields = {"num_layers": 2, "d_model": 8, "num_heads": 2, "context_length": 1024}
    for window, span in ((0, 1024), (8, 8), (4096, 1024)):
        config = minilm.ModelConfig(**fields, sliding_window=window)
        write_record(tmp_path, RunRecord(config, minilm.TrainConfig()))
        report = minilm.inspect(str(tmp_path / "config.json"))
        assert report.flops["attention_per_token"] == 4 * 2 * 8 * span
        assert report.memory["kv_cache"]["bfloat16"] == 2 * 2 * 8 * span * 2


def test_biases_are_what_is_added() -> None:
    attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    # in_proj_bias and out_proj.bias; bias_k and bias_v are tokens that are attended to.
    assert minilm.inspect(attention).parameters.biases == 12 + 4
    assert minilm.inspect(nn.GRU(2, 3, bidirectional=True)).parameters.biases == 2 * 2 * 9
    module = nn.Module()
    module.bias_scale = nn.Parameter(torch.zeros(3))
    assert minilm.inspect(module).parameters.biases == 0


def test_hyperparameters_are_those_of_model_and_training(tiny_run: Path) -> None:
    value = minilm.inspect(str(tiny_run)).hyperparameters
    assert value["model"]["d_model"] == 16
    assert value["training"]["learning_rate"] == 0.02


def test_linear_has_ten_parameters() -> None:
    p = minilm.inspect(nn.Linear(4, 2)).parameters
    assert (p.total, p.weights, p.biases, p.trainable) == (10, 8, 2, 10)


def test_shared_modules_and_tied_parameters_count_once() -> None:
    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, nn.ReLU(), shared)
    report = minilm.inspect(module)
    assert report.parameters.total == 12
    assert set(report.tied) == {("2.weight", "0.weight"), ("2.bias", "0.bias")}

    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    report = minilm.inspect(nn.Sequential(embedding, head))
    assert (report.parameters.total, report.parameters.embedding) == (15, 15)


def test_frozen_parameters_and_buffers_are_told_apart() -> None:
    module = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.LSTM(2, 3))
    module[0].requires_grad_(False)
    p = minilm.inspect(module).parameters
    assert p.total == sum(x.numel() for x in module.parameters())
    assert p.trainable == p.total - 10
    assert p.buffers == 5  # mean and variance of 2, and one count
    assert p.stored_elements == p.total + 5
    assert p.biases == 2 + 2 + 2 * 12  # Linear, BatchNorm, the LSTM's two of 4 * 3


def test_an_empty_module_and_a_lazy_one() -> None:
    assert minilm.inspect(nn.Sequential()).parameters.total == 0
    with pytest.raises(InputError, match=r"0\.weight: a lazy parameter, expected one with a shape"):
        minilm.inspect(nn.Sequential(nn.LazyLinear(3)))


def test_our_own_module_is_held_against_its_formula() -> None:
    model = minilm.Transformer(minilm.ModelConfig(d_model=8, num_heads=2, num_layers=1))
    assert minilm.inspect(model).verified
    model.extra = nn.Parameter(torch.zeros(3))
    report = minilm.inspect(model)
    assert not report.verified
    assert sum(component.count for component in report.components) == report.parameters.total
    assert any("extra [3] is not in the formula" in line for line in report.mismatches)


def test_a_file_without_a_config_is_counted_and_grouped(tmp_path: Path) -> None:
    save_file(
        {
            "layers.0.up.weight": torch.zeros(4, 3),
            "layers.1.up.weight": torch.zeros(4, 3),
            "layers.1.up.bias": torch.zeros(4),
            "embed_tokens.weight": torch.zeros(7, 3),
        },
        tmp_path / "x.safetensors",
    )
    report = minilm.inspect(str(tmp_path / "x.safetensors"))
    assert report.formula is None
    assert {c.name: c.count for c in report.components} == {"embed_tokens": 21, "layers.up": 28}
    assert (report.parameters.biases, report.parameters.embedding) == (4, 21)
    assert "not checked" in " ".join(report.notes)


def test_a_llama_folder_is_proven_by_its_own_names(tmp_path: Path) -> None:
    tensors = write_llama(tmp_path)
    count = sum(tensor.numel() for tensor in tensors.values())
    report = minilm.inspect(str(tmp_path))
    assert report.verified
    assert report.witnesses.file == report.witnesses.formula == count
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert not minilm.inspect(str(tmp_path)).verified


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "not JSON"),
        ("config.json", '{"x": ' + "9" * 5000 + "}", "not JSON"),
        ("config.json", "[1]", "a JSON list, expected a JSON object"),
        ("config.json", '{"model_type": "novel"}', "model_type 'novel'"),
        ("config.json", '{"family": "minilm", "model": {"d_model": 0}}', "d_model: 0"),
        ("config.json", '{"family": "minilm"}', "NoneType, expected an object"),
        ("weights.bin", "xx", "no zip"),
        ("model.safetensors", "xx", "at least 8 bytes"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        minilm.inspect(str(tmp_path / name))
    assert message in str(caught.value)
    assert issubclass(type(caught.value), (FormatError, InputError))


def test_nothing_by_that_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file, a folder nor a preset"):
        minilm.inspect("no-such-model")
    with pytest.raises(InputError, match=r"a folder without config\.json"):
        minilm.inspect(str(tmp_path))
    with pytest.raises(InputError, match="context: 0, expected at least 1"):
        minilm.inspect("nano", context=0)


def test_what_modules_register_as_buffers_is_no_parameter_of_an_unknown_file(
    tmp_path: Path,
) -> None:
    save_file(
        {
            "h.0.attn.bias": torch.ones(1, 1, 5, 5),
            "h.0.attn.masked_bias": torch.tensor(-1e4),
            "h.0.attn.c_attn.bias": torch.zeros(24),
            "bn.running_mean": torch.zeros(3),
            "bn.running_var": torch.zeros(3),
            "bn.num_batches_tracked": torch.tensor(7),
            "bn.weight": torch.zeros(3),
            "embeddings.position_ids": torch.arange(9),
            "mlp.gate.e_score_correction_bias": torch.zeros(4),
            "ffn.gate.tid2eid": torch.zeros(7, 2, dtype=torch.int64),
            "encoder_attn.num_points_scale": torch.ones(12),
        },
        tmp_path / "x.safetensors",
    )
    p = minilm.inspect(tmp_path / "x.safetensors").parameters
    assert (p.total, p.biases, p.buffers) == (27, 24, 25 + 1 + 3 + 3 + 1 + 9 + 4 + 14 + 12)


def test_a_frozen_batch_norm_is_all_buffers_of_an_unknown_file(tmp_path: Path) -> None:
    """It counts no batches, as a trained one beside it does; where none does, nothing is known."""
    statistics = {f"{norm}.running_mean": torch.zeros(3) for norm in ("frozen", "trained")}
    values = {
        f"{norm}.{part}": torch.zeros(3)
        for norm in ("frozen", "trained", "layer_norm")
        for part in ("weight", "bias")
    }
    counted = {"trained.num_batches_tracked": torch.tensor(7)}
    save_file(statistics | values | counted, tmp_path / "x.safetensors")
    p = minilm.inspect(tmp_path / "x.safetensors").parameters
    assert (p.total, p.biases, p.buffers) == (12, 6, 3 + 3 + 1 + 6)
    save_file(statistics | values, tmp_path / "old.safetensors")
    p = minilm.inspect(tmp_path / "old.safetensors").parameters
    assert (p.total, p.buffers) == (18, 6)
    fields = {"model_type": "novel", "transformers_version": "5.23.0"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    p = minilm.inspect(tmp_path / "old.safetensors").parameters
    assert (p.total, p.buffers) == (6, 18)


def test_experts_of_an_undeclared_model_are_active_as_its_config_says(tmp_path: Path) -> None:
    tensors = {f"layers.0.mlp.experts.{i}.up.weight": torch.zeros(4, 3) for i in range(8)}
    save_file(tensors | {"layers.0.q.weight": torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    unknown = minilm.inspect(tmp_path / "model.safetensors")
    assert unknown.parameters.active == unknown.parameters.total == 8 * 12 + 9
    assert any("how many experts" in note for note in unknown.notes)
    fields = {"model_type": "novel", "num_experts": 8, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert minilm.inspect(tmp_path).parameters.active == 2 * 12 + 9


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (
            "block_sparse_moe.input_linear.weight",
            {"num_local_experts": 4, "num_experts_per_tok": 2},
        ),
        ("ffn.experts.mlp.w1", {"ffn_config": {"moe_num_experts": 4, "moe_top_k": 2}}),
        ("mlp.experts.up.weight", {"num_experts": 4, "moe_topk": [2, 2]}),
        ("mlp.experts.up.weight", {"text_config": {"num_experts": 4, "top_k_experts": 2}}),
    ],
)
def test_experts_under_the_names_of_other_families(
    tmp_path: Path, name: str, fields: dict[str, object]
) -> None:
    tensors = {f"layers.0.{name}": torch.zeros(4, 8, 3), "layers.0.q.weight": torch.zeros(3, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "novel", **fields}))
    parameters = minilm.inspect(tmp_path).parameters
    assert (parameters.total, parameters.active) == (96 + 9, 48 + 9)


@pytest.mark.parametrize("fields", [{}, {"moe_topk": [2], "num_experts": 4}])
def test_weights_beside_a_config_without_sizes_are_counted_not_held_against_defaults(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    save_file({"layers.0.q.weight": torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    config = {"model_type": "hunyuan_v1_moe", **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for target in (tmp_path, tmp_path / "model.safetensors"):
        report = minilm.inspect(target)
        assert (report.verified, report.parameters.total) == (True, 9)
        assert report.notes[0].startswith("config.json gives no sizes: counted")
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 32, "moe_topk": 1}))
    assert not minilm.inspect(tmp_path).verified
    (tmp_path / "model.safetensors").unlink()
    assert minilm.inspect(tmp_path).parameters.total > 9, "alone, it means the defaults"


def test_a_body_saved_without_its_head_is_proven(tmp_path: Path) -> None:
    tensors = write_llama(tmp_path, architectures=["LlamaModel"])
    body = {k.removeprefix("model."): v for k, v in tensors.items() if k != "lm_head.weight"}
    save_file(body, tmp_path / "model.safetensors")
    report = minilm.inspect(tmp_path)
    assert report.mismatches == ()
    assert report.parameters.total == sum(t.numel() for t in body.values())
    # Embedding models are published so under the config.json of the language model.
    write_llama(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    save_file(body, tmp_path / "model.safetensors")
    report = minilm.inspect(tmp_path)
    assert report.mismatches == ()
    assert report.parameters.total == sum(t.numel() for t in body.values())
    assert report.notes == ("the file holds the body alone, without the head of llama",)
    # With the names of the whole, it is one matrix short of a language model.
    del whole["lm_head.weight"]
    save_file(whole, tmp_path / "model.safetensors")
    assert any(
        "lm_head.weight [11, 8] is missing" in x for x in minilm.inspect(tmp_path).mismatches
    )


def test_a_classifier_has_a_score_in_place_of_the_head(tmp_path: Path) -> None:
    tensors = write_llama(
        tmp_path,
        architectures=["LlamaForSequenceClassification"],
        id2label={0: "a", 1: "b", 2: "c"},
    )
    del tensors["lm_head.weight"]
    save_file(tensors | {"score.weight": torch.zeros(3, 8)}, tmp_path / "model.safetensors")
    report = minilm.inspect(tmp_path)
    assert report.mismatches == ()
    assert {c.name: c.count for c in report.components}["classifier"] == 24


def test_a_head_that_is_not_declared_leaves_the_file_counted(tmp_path: Path) -> None:
    write_llama(tmp_path, architectures=["LlamaForMultipleChoice"])
    report = minilm.inspect(tmp_path)
    assert report.formula is None
    assert any("no formula for the head of LlamaForMultipleChoice" in note for note in report.notes)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_what_compile_and_ddp_put_before_every_name_is_left_out(
    prefix: str, tmp_path: Path
) -> None:
    tensors = write_llama(tmp_path)
    save_file({prefix + k: v for k, v in tensors.items()}, tmp_path / "model.safetensors")
    assert minilm.inspect(tmp_path).mismatches == ()


@pytest.mark.parametrize("config", ["{", "{}", '{"model_type": "llama", "hidden_size": "x"}'])
def test_weights_that_are_asked_for_are_counted_whatever_the_config(
    config: str, tmp_path: Path
) -> None:
    tensors = write_llama(tmp_path)
    (tmp_path / "config.json").write_text(config)
    report = minilm.inspect(tmp_path / "model.safetensors")
    assert report.parameters.total == sum(t.numel() for t in tensors.values())
    assert any("not checked" in note for note in report.notes)


def test_positions_beyond_the_learned_ones_are_noted() -> None:
    assert minilm.inspect("gpt2", context=1024).notes == ()
    assert minilm.inspect("nano", context=100_000).notes == ()  # turned by angle, not learned
    assert minilm.inspect("gpt2", context=1025).notes == (
        "the model has positions for 1024 tokens only",
    )


def test_packed_parameters_of_a_module_count_as_what_they_stand_for() -> None:
    """bitsandbytes' Params4bit: two values in a byte, and the true shape in quant_state."""

    class State:
        shape = torch.Size([6, 4])
        quant_type = "nf4"

    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    module.weight.quant_state = State()
    report = minilm.inspect(module)
    assert (report.parameters.total, report.parameters.trainable) == (24, 0)
    assert (report.tensors[0].shape, report.tensors[0].dtype) == ((6, 4), "nf4")


@pytest.mark.parametrize("target", [None, 5, b"x", [], {}, torch.zeros(2), nn.Linear, ""])
def test_what_is_no_target_is_refused_in_one_line(target: object) -> None:
    with pytest.raises(InputError, match=r"^target: ") as caught:
        minilm.inspect(target)
    assert "\n" not in str(caught.value)
