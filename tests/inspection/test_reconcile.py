"""Numbers that were published, explained; numbers that mean nothing, not explained."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file

from minilm.architectures import layout_of
from minilm.architectures.minilm import layout as minilm_layout
from minilm.architectures.model_types import MODEL_TYPES
from minilm.config import ModelConfig
from minilm.inspection import extras
from minilm.inspection.inspector import Inspection, inspect_with_sources
from minilm.inspection.reconciliation.candidate_terms import candidate_terms
from minilm.inspection.reconciliation.explanation import LIKELY, OTHER_FILE
from minilm.inspection.reconciliation.numbers import parse_number
from minilm.inspection.reconciliation.reconcile import (
    Reading,
    Reconciliation,
    SearchIndex,
    exact_matches,
    reconcile,
)
from minilm.inspection.report import Parameters, Report, TensorRow, Witnesses
from minilm.ledger.layout import Layout
from minilm.quantization.logical_tensors import Quantization
from tests.architectures.required import REQUIRED
from tests.strategies import model_configs

GPT2 = {"model_type": "gpt2"}
LLAMA = {"model_type": "llama", "tie_word_embeddings": False}
LLAMA_3_8B = LLAMA | {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt2-medium": GPT2 | {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": GPT2 | {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": GPT2 | {"n_embd": 1600, "n_layer": 48, "n_head": 25},
    "llama-3-8b": LLAMA_3_8B,
    "llama-13b": LLAMA
    | {
        "vocab_size": 32000,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "llama-3.2-1b": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "falcon-7b": {
        "model_type": "falcon",
        "vocab_size": 65024,
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "new_decoder_architecture": False,
    },
    "gpt-neox-20b": {
        "model_type": "gpt_neox",
        "vocab_size": 50432,
        "hidden_size": 6144,
        "intermediate_size": 24576,
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
    },
    "opt-125m": {
        "model_type": "opt",
        "vocab_size": 50272,
        "hidden_size": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "word_embed_proj_dim": 768,
        "max_position_embeddings": 2048,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "mixtral-8x7b": {
        "model_type": "mixtral",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "tie_word_embeddings": False,
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss",
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
    "gemma-3n-e2b": {
        "model_type": "gemma3n",
        "architectures": ["Gemma3nForConditionalGeneration"],
        "text_config": {
            "num_hidden_layers": 30,
            "intermediate_size": 8192,
            "num_kv_shared_layers": 10,
        },
    },
    "deepseek-v3": {
        "model_type": "deepseek_v3",
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "moe_layer_freq": 1,
        "first_k_dense_replace": 3,
        "tie_word_embeddings": False,
        "attention_bias": False,
    },
}


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inspection]:
    inspections = {}
    for name, config in CONFIGS.items():
        path = tmp_path_factory.mktemp(name) / "config.json"
        path.write_text(json.dumps(config))
        inspections[name] = inspect_with_sources(path)
    return inspections


def explain(inspection: Inspection, text: str) -> Reconciliation:
    answer = reconcile(inspection.report, inspection.layout, parse_number(text))
    for explanation in (*answer.explanations, *answer.nearest):
        # The arithmetic is done again from its terms.
        count = explanation.start_count + sum(part.count for part in explanation.parts)
        if explanation.start == "exact count":
            assert explanation.start_count == inspection.report.parameters.total
        if not answer.number.is_bytes and not explanation.reading:
            assert explanation.value == count
            assert explanation.difference == answer.number.value - count
    return answer


# Model, published number, what the first explanation must name, the signed counts of its parts.
EXACT = [
    ("gpt2", "124439808", [], []),
    ("gpt2", "163037184", ["tied head counted twice"], [38_597_376]),  # torchinfo
    ("gpt2", "137022720", ["causal masks"], [12 * 1024 * 1024]),  # the Hub's safetensors.total
    ("gpt2", "137022732", ["causal masks and masked_bias"], [12 * (1024 * 1024 + 1)]),
    ("gpt2", "124337664", ["all biases"], [-102_144]),  # nanoGPT, bias=False
    ("gpt2", "85056000", ["token and position embeddings"], [-39_383_808]),
    ("gpt2", "116929536", ["vocabulary of 40,478, GPT-1's"], [(40478 - 50257) * 768]),
    ("gpt2", "124475904", ["padded to a multiple of 64"], [47 * 768]),  # nanoGPT's 50304
    ("gpt2", "123653376", ["position embedding"], [-786_432]),  # nanoGPT's get_num_params
    ("gpt2", "163109376", ["padded to a multiple of 64", "tied head"], [36_096, 38_633_472]),
    ("gpt2", "174833664", ["masks", "position", "tied head"], [12_582_912, -786_432, 38_597_376]),
    ("gpt2", "175620096", ["tied head", "causal masks"], [38_597_376, 12_582_912]),
    ("llama-3-8b", "7504924672", ["LM head left out"], [-525_336_576]),  # calflops
    # accelerate 1.15 estimate-memory: the bare body and the buffers of its module
    ("llama-3-8b", "7504924800", ["inv_freq and original", "LM head"], [128, -525_336_576]),
    ("llama-13b", "13015866880", ["inv_freq"], [2560]),  # the Hub's safetensors.total
    ("llama-3.2-1b", "1498482688", ["tied head"], [262_668_288]),  # KerasHub
    ("falcon-7b", "7,217,189,760", ["tied head"], [65024 * 4544]),
    ("gpt-neox-20b", "20554568208", ["inv_freq"], [528]),
    ("opt-125m", "125237760", ["2 offset rows"], [-1536]),  # KerasHub
    ("qwen3-0.6b", "751,632,384", ["tied head"], [155_582_464]),
    ("gpt-oss-20b", "21,511,953,984", ["scales of MXFP4"], [597_196_800]),
    ("gpt-oss-20b", "4187440704", ["only the active experts"], [4_187_440_704 - 20_914_757_184]),
    ("gpt-oss-20b", "3608307264", ["and no token embedding"], [3_608_307_264 - 20_914_757_184]),
    # The Hub's safetensors.total
    ("gemma-3n-e2b", "5439438272", ["for layers that take an earlier"], [10 * 2_097_408]),
    ("deepseek-v3", "671026419200", ["registered buffers"], [58 * 256]),
    ("deepseek-v3", "684531386000", ["MTP modules, registered buffers and FP8"], [13_504_981_648]),
]


@pytest.mark.parametrize(("model", "number", "named", "counts"), EXACT)
def test_published_numbers_to_the_last_digit(
    inspected: dict[str, Inspection], model: str, number: str, named: list[str], counts: list[int]
) -> None:
    answer = explain(inspected[model], number)
    assert answer.explained
    assert answer.exact
    first = answer.explanations[0]
    assert first.difference == 0
    assert [part.count for part in first.parts] == counts
    for part, name in zip(first.parts, named, strict=True):
        assert name in part.name
        assert f"{abs(part.count):,} ({part.name})" in first.text
    assert answer.chance < 0.001


def test_fused_masks_and_a_head_that_is_missing_are_told_apart(
    inspected: dict[str, Inspection],
) -> None:
    # Without its head or without its embedding Llama 3 has as many: both are listed.
    names = [e.parts[0].name for e in explain(inspected["llama-3-8b"], "7504924672").explanations]
    assert names == ["the LM head left out", "the token embedding left out"]


ROUNDED = [
    ("gpt2", "124M", "exact count", ""),
    ("gpt2", "124.4M", "exact count", ""),
    ("gpt2", "124000000", "exact count", ""),
    ("gpt2", "117M", "exact count", "GPT-1's"),
    ("gpt2-medium", "345M", "exact count", "GPT-1's"),
    ("gpt2-large", "762M", "exact count", "GPT-1's"),
    ("gpt2-xl", "1542M", "exact count", "GPT-1's"),
    ("gpt2-xl", "1.5B", "exact count", ""),  # cut off, not rounded: 1.558
    ("gpt2", "118.7M", "exact count", ""),  # M = 2^20
    ("gpt2", "162.1M", "the rule of thumb 12*L*d^2 + 2*V*d", ""),
    ("gpt2", "475 MB", "exact count", ""),  # MiB
    ("gpt2", "474.7 MiB", "exact count", ""),
    ("gpt2", "548 MB", "exact count", "causal masks"),  # pytorch_model.bin
    ("llama-3-8b", "8.03B", "exact count", ""),
    ("llama-3-8b", "16.06 GB", "exact count", ""),
    ("llama-3-8b", "4.65B", "exact count", "bitsandbytes"),  # the Hub, of an NF4 checkpoint
    ("mixtral-8x7b", "12.9B", "exact count", "only the active experts"),
    ("gpt-oss-20b", "3.6B", "exact count", "no token embedding"),
    ("deepseek-v3", "671B", "exact count", ""),
    ("deepseek-v3", "685B", "exact count", "MTP"),
]


@pytest.mark.parametrize(("model", "number", "start", "named"), ROUNDED)
def test_rounded_numbers_within_their_digits(
    inspected: dict[str, Inspection], model: str, number: str, start: str, named: str
) -> None:
    answer = explain(inspected[model], number)
    assert answer.explained
    assert not answer.exact
    first = answer.explanations[0]
    assert first.start == start
    assert len(first.parts) == (1 if named else 0)
    assert all(named in part.name for part in first.parts)
    assert "within the rounding" in first.text


def test_every_line_says_the_arithmetic(inspected: dict[str, Inspection]) -> None:
    def line(number: str) -> str:
        return explain(inspected["gpt2"], number).explanations[0].text

    assert line("163037184") == (
        "163,037,184 = 124,439,808 + 38,597,376 (the tied head counted twice)"
    )
    assert line("117M") == (
        "117M ~ 116,929,536 = 124,439,808 - 7,510,272 (a vocabulary of 40,478, GPT-1's); "
        "within the rounding (+70,464)"
    )
    assert line("475MB") == (
        "475MB ~ 497,759,232 bytes = 4 x 124,439,808 (exact count); bytes, float32, with "
        "1,000,000 read as 1,048,576; within the rounding (+314,368)"
    )
    assert line("497759232") == (
        "497,759,232 = 497,759,232 bytes = 4 x 124,439,808 (exact count); bytes, float32"
    )


@pytest.mark.parametrize("number", ["124441234", "99M", "40M", "7e8", "1", "124439807", "600MB"])
def test_what_nothing_explains_names_the_nearest(
    inspected: dict[str, Inspection], number: str
) -> None:
    answer = explain(inspected["gpt2"], number)
    assert not answer.explained
    assert answer.explanations == ()
    assert len(answer.nearest) == 3
    distances = [abs(explanation.difference) for explanation in answer.nearest]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert f"{distances[0]:,} " in answer.nearest[0].text


def test_a_number_that_chance_would_explain_is_possible_and_no_more(
    inspected: dict[str, Inspection],
) -> None:
    """One rule: of rounded numbers at most half may be explained by chance."""
    for number, name, most in (("8B", "", 0.2), ("7.5B", "the LM head left out", 0.3)):
        answer = explain(inspected["llama-3-8b"], number)
        assert answer.explained
        assert answer.chance < most
        assert [part.name for part in answer.explanations[0].parts] == ([name] if name else [])
    guess = explain(inspected["llama-3-8b"], "7B")  # a dozen single parts would come to it
    assert (guess.explained, guess.exact, guess.nearest) == (False, False, ())
    assert guess.explanations
    assert guess.chance > 0.5
    nano = inspect_with_sources("nano")
    for number in ("1M", "1000000"):  # from half to one and a half times the count, all are
        answer = explain(nano, number)
        assert not answer.explained
        assert answer.chance > 0.9
        assert answer.explanations[0].value == nano.report.parameters.total
    assert explain(nano, "1.06M").explained


@pytest.mark.parametrize(("step", "most"), [(1, 1), (768, 90)])
@pytest.mark.parametrize("model", ["gpt2", "llama-3-8b", "deepseek-v3"])
def test_chance_explains_fewer_than_one_number_in_a_hundred(
    inspected: dict[str, Inspection], model: str, step: int, most: int
) -> None:
    """Of 10,000 numbers from half to one and a half times the total at most ``most`` are explained.

    Counts of real models are multiples of a width, and there chance does more.
    """
    index = SearchIndex.of(inspected[model].report, inspected[model].layout)
    choose = random.Random(0)
    explained = tried = 0
    for _ in range(10_000):
        value = choose.randrange(index.total // 2, index.total + index.total // 2) // step * step
        candidates, tried = exact_matches(index, Reading("", parse_number(str(value))))
        explained += bool(candidates)
    assert tried > 2_000  # pairs and triples among them
    assert tried / index.total < 0.005  # the chance that the answer states
    assert explained <= most


def report_of(layout: Layout) -> Report:
    total = layout.count()
    return report_with(
        Parameters(
            total=total,
            trainable=total,
            weights=total,
            biases=0,
            embedding=0,
            non_embedding=total,
            active=total,
            stored_elements=total,
            buffers=0,
        ),
        witnesses=Witnesses(formula=total),
    )


def report_with(parameters: Parameters, **fields: Any) -> Report:
    nothing: dict[str, Any] = {"mismatches": (), "components": (), "tensors": (), "memory": {}}
    names = {"target": "x", "architecture": "unknown"}
    return Report(**names | nothing | fields, parameters=parameters)


@settings(max_examples=40, deadline=None)
@given(model_configs())
def test_every_term_is_found(config: ModelConfig) -> None:
    layout = minilm_layout(config)
    report = report_of(layout)
    index = SearchIndex.of(report, layout)
    for term in candidate_terms(report, layout):
        number = parse_number(str(report.parameters.total + term.count))
        candidates, _ = exact_matches(index, Reading("", number))
        # Others may come to the same; nothing takes more terms than that one.
        assert [candidate.terms for candidate in candidates].count((term,)) == 1
        assert {candidate.count for candidate in candidates} == {number.value}
        assert all(len(candidate.terms) <= 1 for candidate in candidates)


@settings(max_examples=25, deadline=None)
@given(model_configs())
def test_compatible_terms_share_no_tensor(config: ModelConfig) -> None:
    layout = minilm_layout(config)
    for term in candidate_terms(report_of(layout), layout):
        assert not term.is_compatible(term)
        removed = [t for t in layout.tensors if t.name in term.touches]
        if term.count < 0 and term.name.endswith("left out"):
            assert -term.count == sum(layout.value(tensor) for tensor in removed)


def test_a_tiny_model_is_not_explained_by_pairs() -> None:
    config = ModelConfig(vocab_size=7, context_length=8, num_layers=1, d_model=8, num_heads=1)
    layout = minilm_layout(config)
    report = report_of(layout)
    total = report.parameters.total
    # With so few numbers near the total, two parts would come to any of them.
    numbers = range(total // 2, 3 * total // 2, max(1, total // 40))
    answers = [reconcile(report, layout, parse_number(str(number))) for number in numbers]
    assert sum(not answer.explained for answer in answers) > len(numbers) // 2
    assert all(len(e.parts) <= 1 for answer in answers for e in answer.explanations)


def test_a_file_alone_is_explained_by_what_it_holds() -> None:
    rows = (TensorRow("a.weight", (10, 10), "float32", 100, "a"),)
    report = report_with(
        Parameters(
            total=1000,
            trainable=1000,
            weights=990,
            biases=10,
            embedding=200,
            non_embedding=800,
            active=1000,
            stored_elements=1150,
            buffers=50,
        ),
        witnesses=Witnesses(file=1000),
        tensors=rows,
        tied=(("b.weight", "a.weight"),),
    )
    for number, name in [
        ("1000", None),
        ("1050", "the buffers"),
        ("1100", "b.weight counted though it is a.weight"),
        ("1150", "everything that is stored"),
        ("990", "the biases"),
        ("800", "the embedding tables"),
    ]:
        answer = reconcile(report, None, parse_number(number))
        assert answer.exact, number
        terms = answer.explanations[0].parts
        assert (name is None and not terms) or terms[0].name.startswith(str(name)), number
    assert not reconcile(report, None, parse_number("1234")).explained


def test_a_quantized_file_is_explained_by_its_packing(inspected: dict[str, Inspection]) -> None:
    report, layout = inspected["llama-3-8b"].report, inspected["llama-3-8b"].layout
    assert layout is not None
    packed, scales = 6_979_321_856 // 2, 109_051_904
    quantized = Report(
        **{
            **{name: getattr(report, name) for name in Report.__dataclass_fields__},
            "quantization": Quantization(
                "nf4", 6_979_321_856, packed, scales, packed, scales, 4.125
            ),
        }
    )
    answer = reconcile(quantized, layout, parse_number(str(8_030_261_248 - packed)))
    assert answer.explanations[0].parts[0].name == "nf4 values counted as they are packed"
    answer = reconcile(quantized, layout, parse_number(str(8_030_261_248 - packed + scales)))
    assert answer.explanations[0].parts[0].name.startswith("nf4 values as packed, with scales")


def test_the_answer_is_plain_json(inspected: dict[str, Inspection]) -> None:
    value = asdict(explain(inspected["gpt2"], "117M"))
    again = json.loads(json.dumps(value))
    assert again["explained"] is True
    assert again["number"]["text"] == "117M"
    assert again["explanations"][0]["parts"][0]["count"] == -7_510_272


def write_llama(folder: Path, *, tied: bool, copy: bool, model_type: str = "llama") -> int:
    """A tiny untied or undeclared model whose head may be a copy; returns the size of its token table."""
    config = {
        "model_type": "llama",
        "vocab_size": 37,
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "tie_word_embeddings": tied,
    }
    generator = torch.Generator().manual_seed(1)
    tensors = {
        t.name: torch.randn(t.shape, generator=generator)
        for t in layout_of(config | {"tie_word_embeddings": False}).named_tensors()
    }
    if copy:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    return 37 * 8


def explained(folder: Path, number: int) -> list[str]:
    inspection = inspect_with_sources(folder)
    answer = extras.with_reconciliation(inspection, str(number)).reconciliation
    assert answer is not None
    assert answer.exact
    return [each.parts[0].name for each in answer.explanations]


@pytest.mark.parametrize("model_type", ["llama", "novel"])
def test_a_head_that_is_a_copy_is_no_table_left_out(tmp_path: Path, model_type: str) -> None:
    table = write_llama(tmp_path, tied=False, copy=True, model_type=model_type)
    total = inspect_with_sources(tmp_path).report.parameters.total
    assert explained(tmp_path, total - table) == [
        "lm_head.weight is a copy of model.embed_tokens.weight, counted once"
    ]
    # Where the values differ, it is not.
    write_llama(tmp_path, tied=False, copy=False, model_type=model_type)
    names = explained(tmp_path, total - table)
    assert (
        names
        == {
            "llama": ["the LM head left out", "the token embedding left out"],
            "novel": ["the embedding tables left out: model.embed_tokens.weight"],
        }[model_type]
    )


def test_a_tied_head_that_is_stored_twice_is_named(tmp_path: Path) -> None:
    table = write_llama(tmp_path, tied=True, copy=True)
    total = inspect_with_sources(tmp_path).report.parameters.total
    assert explained(tmp_path, total + table) == ["the tied head counted twice"]
    assert explained(tmp_path, total - table) == ["the token embedding left out"]


def test_zeros_are_no_copy(tmp_path: Path) -> None:
    table = write_llama(tmp_path, tied=False, copy=False)
    total = inspect_with_sources(tmp_path).report.parameters.total
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: torch.zeros_like(t) for name, t in tensors.items()}, tmp_path / "model.safetensors"
    )
    assert explained(tmp_path, total - table)[0] == "the LM head left out"


def test_a_body_is_short_of_a_head_rather_than_of_another_size(tmp_path: Path) -> None:
    """With 2 of 4 key/value heads of as many parameters, and a vocabulary padded to as many rows."""
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3Model"],
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert explained(tmp_path, 70_016 + 8_192) == ["an LM head, which this body is without"]
    # An attention matrix has as many parameters as the token table.
    assert explained(tmp_path, 70_016 - 8_192) == ["the token embedding left out"]


def test_likely_explanations_hide_coincidences(inspected: dict[str, Inspection]) -> None:
    """163M is also GPT-2 with a vocabulary of 100,352."""
    names = [each.parts[0].name for each in explain(inspected["gpt2"], "163M").explanations]
    assert names == ["the tied head counted twice"]


def test_what_a_file_does_not_hold_is_less_likely(tmp_path: Path) -> None:
    """The masks of GPT-2 are not in a file that stores its parameters alone."""
    config = GPT2 | {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 40, "n_positions": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {t.name: torch.zeros(t.shape) for t in layout_of(config).named_tensors()}

    def rank_of_masks() -> set[int]:
        inspection = inspect_with_sources(tmp_path)
        terms = candidate_terms(inspection.report, inspection.layout)
        return {
            term.rank for term in terms if term.name == "the causal masks that GPT-2 files hold"
        }

    save_file(tensors, tmp_path / "model.safetensors")
    assert rank_of_masks() == {OTHER_FILE}
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 16, 16) for i in range(2)}
    save_file(tensors | masks, tmp_path / "model.safetensors")
    assert rank_of_masks() == {LIKELY}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_number_near_the_total_of_every_type(tmp_path: Path, model_type: str) -> None:
    """Positions of pictures and sounds have other dimensions than those of texts."""
    config = {"model_type": model_type, **REQUIRED.get(model_type, {})}
    if layout_of(config).count() > 3 * 10**10:
        pytest.skip("a report of so many experts takes long")
    (tmp_path / "config.json").write_text(json.dumps(config))
    inspection = inspect_with_sources(tmp_path / "config.json")
    near = f"{round(inspection.report.parameters.total * 1.01)}"
    assert extras.with_reconciliation(
        inspection, f"{near[:2]}{'0' * (len(near) - 2)}"
    ).reconciliation
