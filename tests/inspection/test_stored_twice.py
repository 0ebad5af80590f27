"""What a file holds beside the parameters that count: a tied head once more, next-token modules."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import minilm
from minilm import formats
from minilm.architectures import layout_of
from minilm.inspection.tied_copies import PIECE, SAMPLE_PIECES, copied_heads

VOCABULARY, WIDTH, LAYERS = 10, 4, 2
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tensors(*, tied: bool, layers: int = LAYERS) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    values = {
        TABLE: rng.standard_normal((VOCABULARY, WIDTH), dtype=np.float32),
        HEAD: rng.standard_normal((VOCABULARY, WIDTH), dtype=np.float32),
        "model.norm.weight": np.ones(WIDTH, np.float32),
    }
    for i in range(layers):
        shape = (WIDTH, WIDTH)
        values[f"model.layers.{i}.proj.weight"] = rng.standard_normal(shape, dtype=np.float32)
    return values | ({HEAD: values[TABLE].copy()} if tied else {})


def write(folder: Path, values: dict[str, Any], **fields: Any) -> Path:
    config = {"model_type": "novel", "num_hidden_layers": LAYERS} | fields
    (folder / "config.json").write_text(json.dumps(config))
    save_file(values, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("fields", [{"tie_word_embeddings": True}, {}])
def test_a_tied_head_that_is_stored_twice_counts_once(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    total = 2 * VOCABULARY * WIDTH + WIDTH + LAYERS * WIDTH * WIDTH
    untied = minilm.inspect(write(tmp_path, tensors(tied=False), **fields))
    assert (untied.parameters.total, untied.tied) == (total, ())
    report = minilm.inspect(write(tmp_path, tensors(tied=True), **fields))
    assert (report.parameters.total, report.parameters.stored_elements) == (
        total - VOCABULARY * WIDTH,
        total,
    )
    assert report.tied == ((HEAD, TABLE),)
    assert f"{HEAD} is a copy of {TABLE}: tied, and counted once" in report.notes


def test_a_head_that_is_not_stored_is_tied(tmp_path: Path) -> None:
    """The class has one, and no other matrix has as many rows as the vocabulary."""
    values = tensors(tied=False)
    del values[HEAD]
    total = VOCABULARY * WIDTH + WIDTH + LAYERS * WIDTH * WIDTH
    fields = {"architectures": ["NovelForCausalLM"], "vocab_size": VOCABULARY}
    report = minilm.inspect(write(tmp_path, values, **fields))
    assert (report.parameters.total, report.tied) == (total, ((HEAD, TABLE),))
    assert f"{HEAD} is not stored: tied to {TABLE}" in report.notes
    twice = {each.name: each.count for each in report.conventions}["tied head twice"]
    assert twice == total + VOCABULARY * WIDTH
    for others in (
        {"tie_word_embeddings": False},
        {"architectures": ["NovelModel"]},
        {"vocab_size": VOCABULARY + 1},
        {"vocab_size": [VOCABULARY]},
    ):
        assert minilm.inspect(write(tmp_path, values, **fields | others)).tied == ()
    values["model.unembed.weight"] = np.ones((VOCABULARY, WIDTH), np.float32)
    assert minilm.inspect(write(tmp_path, values, **fields)).tied == ()


def test_a_config_that_says_untied_decides(tmp_path: Path) -> None:
    """A head that merely begins as a copy is trained apart."""
    for fields in ({"tie_word_embeddings": False}, {"text_config": {"tie_word_embeddings": False}}):
        assert minilm.inspect(write(tmp_path, tensors(tied=True), **fields)).tied == ()


def test_values_that_say_nothing_are_no_tie(tmp_path: Path) -> None:
    values = tensors(tied=True)
    for name in (TABLE, HEAD):
        values[name] = np.zeros_like(values[name])
    assert minilm.inspect(write(tmp_path, values)).tied == ()
    values[HEAD] = values[HEAD].astype(np.float16)
    assert minilm.inspect(write(tmp_path, values)).tied == ()


@pytest.mark.parametrize("place", [0, 1 / 3, 1])
def test_large_tables_are_compared_to_the_last_byte(tmp_path: Path, place: float) -> None:
    """One byte differs, most likely outside the sample."""
    rows = 2 * PIECE * SAMPLE_PIECES // 64 + 1
    table = np.random.default_rng(0).integers(0, 255, (rows, 64), dtype=np.uint8)
    values = {"wte.weight": table, "lm_head.weight": table.copy()}
    save_file(values, tmp_path / "x.safetensors")
    assert minilm.inspect(tmp_path / "x.safetensors").tied == (("lm_head.weight", "wte.weight"),)
    values["lm_head.weight"].reshape(-1)[int(place * (rows * 64 - 1))] ^= 1
    save_file(values, tmp_path / "x.safetensors")
    report = minilm.inspect(tmp_path / "x.safetensors")
    assert (report.tied, report.parameters.total) == ((), 2 * table.size)


def test_a_large_table_of_few_values_is_a_copy(tmp_path: Path) -> None:
    """The sample alone is all zeros."""
    table = np.zeros((2 * PIECE * SAMPLE_PIECES // 64, 64), np.uint8)
    table.reshape(-1)[PIECE + PIECE // 2] = 1
    values = {"wte.weight": table, "lm_head.weight": table.copy()}
    save_file(values, tmp_path / "x.safetensors")
    assert minilm.inspect(tmp_path / "x.safetensors").tied == (("lm_head.weight", "wte.weight"),)


def test_many_heads_and_tables_are_each_read_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {}
    for i in range(50):
        values[f"{i:02}.head.weight"] = np.full((1, 4), i, np.float32)
        values[f"{i:02}.wte.weight"] = np.full((1, 4), i, np.float32)
    save_file(values, tmp_path / "x.safetensors")
    opened = []
    open_file = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *args, **kw: opened.append(path) or open_file(path, *args, **kw)
    )
    header = formats.read(tmp_path / "x.safetensors")
    # The first is zeros.
    assert copied_heads(header) == tuple(
        (f"{i:02}.head.weight", f"{i:02}.wte.weight") for i in range(1, 50)
    )
    assert len(opened) <= 2


def test_a_small_table_is_compared_to_its_last_byte(tmp_path: Path) -> None:
    values = tensors(tied=True)
    values[HEAD][-1, -1] += 1
    assert minilm.inspect(write(tmp_path, values)).tied == ()


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({"num_nextn_predict_layers": 1}, "model.layers.2.eh_proj.weight"),
        ({"num_nextn_predict_layers": 1}, "model.language_model.layers.2.eh_proj.weight"),
        ({"text_config": {"num_hidden_layers": 2, "num_mtp_modules": 1}}, "layers.2.proj.weight"),
        ({}, "mtp.fc.weight"),
        ({}, "model.mtp_layers.0.proj.weight"),
    ],
)
def test_next_token_modules_are_apart(tmp_path: Path, fields: dict[str, Any], extra: str) -> None:
    values = tensors(tied=False)
    total = minilm.inspect(write(tmp_path, values)).parameters.total
    values[extra] = np.ones((WIDTH, 2 * WIDTH), np.float32)
    report = minilm.inspect(write(tmp_path, values, **fields))
    assert report.parameters.total == total
    assert {c.name: c.count for c in report.conventions}["with MTP"] == total + 2 * WIDTH * WIDTH
    assert any("(MTP) modules of 32 parameters" in note for note in report.notes)


def test_other_layers_beyond_the_last_count(tmp_path: Path) -> None:
    """A vision tower has layers of its own, and a config without next-token modules has none."""
    values = tensors(tied=False)
    total = minilm.inspect(write(tmp_path, values)).parameters.total
    for fields, extra in (
        ({}, "model.layers.2.proj.weight"),
        ({"num_nextn_predict_layers": 1}, "vision.layers.2.proj.weight"),
        ({"num_nextn_predict_layers": 1}, "model.layers.3.proj.weight"),
    ):
        more = values | {extra: np.ones((WIDTH, WIDTH), np.float32)}
        report = minilm.inspect(write(tmp_path, more, **fields))
        assert report.parameters.total == total + WIDTH * WIDTH


def test_the_ties_of_a_live_module_are_shown(transformers: Any, tmp_path: Path) -> None:
    config = transformers.GraniteConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=8,
        tie_word_embeddings=True,
    )
    transformers.GraniteForCausalLM(config).to(torch.float32).save_pretrained(tmp_path)
    report = minilm.inspect(tmp_path, live=True)
    assert report.witnesses.file == report.witnesses.module
    assert report.tied == (("lm_head.weight", "model.embed_tokens.weight"),)


def test_other_ties_of_a_type(tmp_path: Path) -> None:
    """LUKE's head has its bias twice, and the table of entities is the matrix of their predictions too."""
    table = "luke.entity_embeddings.entity_embeddings.weight"
    values = tensors(tied=False) | {table: np.ones((5, WIDTH), np.float32)}
    classes = ["LukeForMaskedLM"]
    report = minilm.inspect(write(tmp_path, values, model_type="luke", architectures=classes))
    assert report.tied == (
        ("lm_head.bias", "lm_head.decoder.bias"),
        ("entity_predictions.decoder.weight", table),
    )
    classes = ["LukeForSequenceClassification"]
    report = minilm.inspect(write(tmp_path, values, model_type="luke", architectures=classes))
    assert report.tied == (), "a class without a head"


@pytest.mark.parametrize(
    ("model_type", "stored", "other"),
    [
        ("dab-detr", "bbox_predictor.layers.0", "model.decoder.bbox_embed.layers.0"),
        ("pp_doclayout_v3", "model.enc_score_head", "model.decoder.class_embed"),
        ("rt_detr_v2", "model.decoder.bbox_embed.1.layers.0", "bbox_embed.1.layers.0"),
    ],
)
def test_parts_of_detectors_that_are_one(
    tmp_path: Path, model_type: str, stored: str, other: str
) -> None:
    parts = {
        f"{stored}.{n}": np.full(WIDTH, i, np.float32) for i, n in enumerate(("bias", "weight"))
    }
    report = minilm.inspect(write(tmp_path, tensors(tied=False) | parts, model_type=model_type))
    assert report.tied == tuple((f"{other}.{n}", f"{stored}.{n}") for n in ("bias", "weight"))


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.layer_scalar",
        "codec.quantizer.layers.0.codebook.embed_avg",
        "model.layers.0.self_attn.slope_rate",
        "layers.0.attention.self.relative_position_index",
        "model.layers.0.moe.router_bias",
        "model.llm.layers.0.mlp.gate.bias",
        "embeddings.word_embeddings.weight_integer",
        "projector.visual_temporal_embed.pos_idx_to_embed",
        "bros.bbox_embeddings.bbox_sinusoid_emb.x_pos_emb.inv_freq",
        "mega.layers.0.mega_layer.rel_pos_bias._float_tensor",
        "language_model.rotary_emb.alpha",
    ],
)
def test_buffers_of_types_that_are_not_declared(tmp_path: Path, name: str) -> None:
    values = tensors(tied=False)
    total = sum(value.size for value in values.values())
    report = minilm.inspect(write(tmp_path, values | {name: np.ones(3, np.float32)}))
    assert (report.parameters.total, report.parameters.buffers) == (total, 3)


@pytest.mark.parametrize("says", [True, None])
@pytest.mark.parametrize("differs", [False, True])
def test_a_tied_head_with_values_of_its_own_counts(
    tmp_path: Path, differs: bool, says: bool | None
) -> None:
    """Of a declared type, whether config.json or the type says it is tied: transformers 5 loads it so."""
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 30}
    config |= {"n_positions": 16} | ({} if says is None else {"tie_word_embeddings": says})
    layout = layout_of(config)
    rng = np.random.default_rng(0)
    values = {
        tensor.name: rng.standard_normal(tensor.shape, dtype=np.float32)
        for tensor in layout.named_tensors()
    }
    table = "transformer.wte.weight"
    save_file(values | {HEAD: values[table] + differs}, tmp_path / "model.safetensors")
    classes = {"architectures": ["GPT2LMHeadModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config | classes))
    report = minilm.inspect(tmp_path)
    assert report.verified
    total = layout.count() + 30 * 8 * differs
    assert (report.witnesses.formula, report.parameters.total) == (total, total)
    assert report.tied == (() if differs else ((HEAD, table),))
    note = f"{HEAD} is stored with values of its own: counted, though it is declared as tied"
    assert (note in report.notes) == differs
    assert report.components[-1].name == ("LM head" if differs else "final norm")


def test_a_live_module_has_such_a_head_too(transformers: Any, tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 2, "intermediate_size": 8, "vocab_size": 20}
    config = transformers.LlamaConfig(**sizes, tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).to(torch.float32).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    values = load_file(path)
    save_file(values | {HEAD: values[TABLE] + 1}, path)
    report = minilm.inspect(tmp_path, live=True)
    assert report.verified
    assert report.witnesses.module == report.parameters.total
    assert report.tied == ()
    # transformers loads what is counted.
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    assert loaded.num_parameters() == report.parameters.total
