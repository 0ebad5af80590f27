"""Sections of a document: what is in them, by the titles of their columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import minilm
from minilm import files
from minilm.inspection import extras
from minilm.inspection.inspector import inspect_with_sources
from minilm.inspection.report import Component, Report
from minilm.render.component_groups import component_group, fold_components
from minilm.render.document import Code, Listing, Paragraph, Section, brief
from minilm.render.sections import build_document, components_section


def section(report: Report, key: str) -> Section:
    (match,) = [each for each in build_document(report).sections if each.key == key]
    return match


def rows(section: Section, number: int = 0) -> list[dict[str, str]]:
    """A table's rows by the titles of their columns."""
    table = section.tables()[number]
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, row, strict=True)) for row in table.rows]


def paragraphs(section: Section) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Paragraph)]


def listing(section: Section, title: str) -> tuple[str, ...]:
    (lines,) = [b.lines for b in section.blocks if isinstance(b, Listing) and b.title == title]
    return lines


def save(path: Path, **tensors: torch.Tensor) -> str:
    save_file(tensors, path)
    return str(path)


def test_witnesses_say_how_they_were_compared(tiny_run: Path) -> None:
    total = f"{minilm.inspect(tiny_run).parameters.total:,}"
    assert rows(section(minilm.inspect(tiny_run), "witnesses")) == [
        {"witness": "formula", "parameters": total, "compared": ""},
        {"witness": "file", "parameters": total, "compared": "by names with the formula"},
        {"witness": "module", "parameters": total, "compared": "by names with the formula"},
    ]
    assert [row["parameters"] for row in rows(section(minilm.inspect("nano"), "witnesses"))] == [
        "1,055,488",
        "not available",
        "not available",
    ]


def test_statistics(tmp_path: Path) -> None:
    values = torch.tensor([[0.0, 1.0], [-3.0, float("nan")]])
    target = save(tmp_path / "a.safetensors", w=values, empty_rows=torch.zeros(2, 3))
    statistics = section(extras.with_statistics(inspect_with_sources(target), None), "statistics")
    *tensors, total = rows(statistics)
    assert total["tensor"] == "total"
    (w,) = [row for row in tensors if row["tensor"] == "w"]
    assert (w["shape"], w["min"], w["max"], w["max |x|"]) == ("2 × 2", "-3", "1", "3")
    odd = listing(statistics, "not finite, zero or dead (3)")
    assert "w: 1 NaN, 1 zeros (25.00%)" in odd
    assert "empty_rows: 6 zeros (100.00%), 2 of 2 rows all zero" in odd
    assert rows(statistics, 1)[0] == {"largest values": "w", "at": "1, 0", "value": "-3"}
    histogram = rows(statistics, 2)
    assert histogram[0] == {"magnitude": "2^0 to 2^1", "values": "1"}
    assert histogram[-1] == {"magnitude": "2^1 to 2^2", "values": "1"}


def test_difference(tmp_path: Path) -> None:
    a = save(tmp_path / "a.safetensors", w=torch.zeros(2, 2), gone=torch.ones(1), s=torch.ones(2))
    b = save(tmp_path / "b.safetensors", w=torch.eye(2), new=torch.ones(1), s=torch.ones(3))
    differences = section(
        extras.with_difference(inspect_with_sources(a), inspect_with_sources(b), None), "difference"
    )
    assert paragraphs(differences) == ["They differ; 0 of 1 compared tensors are identical."]
    assert listing(differences, "added (1)") == ("new",)
    assert listing(differences, "removed (1)") == ("gone",)
    assert rows(differences, 0) == [{"reshaped": "s", "before (A)": "2", "after (B)": "3"}]
    change, total = rows(differences, 1)
    assert (change["change of"], change["same bits"], change["rank"]) == ("w", "50.0%", "2")
    assert total["change of"] == "total"
    same = section(
        extras.with_difference(inspect_with_sources(a), inspect_with_sources(a), None), "difference"
    )
    assert paragraphs(same) == ["Both hold the same tensors with the same bits."]
    assert set(listing(same, "identical (3)")) == {"gone", "s", "w"}


def test_what_fits() -> None:
    report = extras.with_fits(inspect_with_sources("gpt2"), "1GB", context=None, batch=1)
    assert report.fits is not None
    fit_rows = rows(section(report, "fits"))
    assert len(fit_rows) == len(report.fits)
    for row, fit in zip(fit_rows, report.fits, strict=True):
        assert row["fits"] == ("yes" if fit.fits else "no")
        assert row["max context"] == (f"{fit.max_context:,}" if fit.max_context else "none")
    assert fit_rows[0]["use"] == "inference, float32"
    assert fit_rows[0]["weights"] == "474.7 MiB"
    assert {"yes", "no"} == {row["fits"] for row in fit_rows}


def test_reconciliation() -> None:
    explained = section(
        extras.with_reconciliation(inspect_with_sources("gpt2"), "163037184"), "reconciliation"
    )
    assert paragraphs(explained) == ["163037184 is explained exactly:"]
    assert "124,439,808 + 38,597,376" in listing(explained, "")[0]
    wrong = section(
        extras.with_reconciliation(inspect_with_sources("gpt2"), "163037185"), "reconciliation"
    )
    assert paragraphs(wrong) == ["163037185 is NOT explained; the nearest:"]
    assert listing(wrong, "")[0].endswith("; 1 more")


def test_what_was_asked_comes_before_the_components() -> None:
    report = extras.with_fits(inspect_with_sources("gpt2"), "1GB", context=None, batch=1)
    keys = [each.key for each in build_document(report).sections]
    assert keys[:3] == ["witnesses", "fits", "components"]
    requested = [each.key for each in build_document(report).sections if each.requested]
    assert requested == ["fits"]


def test_hyperparameters_that_do_not_apply_are_not_listed(tiny_run: Path) -> None:
    report = minilm.inspect("gpt2")
    assert report.hyperparameters["model"]["rope_theta"]  # JSON has them all
    names = [row["model"] for row in rows(section(report, "hyperparameters"))]
    assert "norm_bias" in names
    assert not {name for name in names if name.startswith(("rope", "rotary"))}
    assert "ngram_rows" not in names
    fast = [row["model"] for row in rows(section(minilm.inspect("nano-fast"), "hyperparameters"))]
    assert {"ngram_rows", "rope_theta", "rope_scaling"} <= {*fast}
    assert "rope_factor" not in fast
    training = rows(section(minilm.inspect(tiny_run), "hyperparameters"), 1)
    assert "batch_size" in [row["training"] for row in training]
    assert "growth_fraction" not in [row["training"] for row in training]


@pytest.mark.parametrize("first_dense", [2, 1])
def test_fields_of_experts_are_listed_where_there_are_experts(
    tmp_path: Path, first_dense: int
) -> None:
    fields = {
        "model_type": "deepseek_v3",
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "first_k_dense_replace": first_dense,
        "num_nextn_predict_layers": 0,
        "n_group": 1,
        "attention_group_size": 3,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 8,
    }
    files.write_json(tmp_path / "config.json", fields)
    names = {row["model"] for row in rows(section(minilm.inspect(tmp_path), "hyperparameters"))}
    of_experts = {"n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", "n_group"}
    assert names == fields.keys() - (of_experts if first_dense == 2 else set())


def test_every_hyperparameter_of_another_program_is_listed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "rope_theta": 3, "position": 1}')
    names = [row["model"] for row in rows(section(minilm.inspect(tmp_path), "hyperparameters"))]
    assert names == ["model_type", "rope_theta", "position"]
    claim = "One without an effect here is not listed."
    for target, claimed in ((tmp_path, False), ("gpt2", True)):
        (text,) = paragraphs(section(minilm.inspect(target), "hyperparameters"))
        assert text.endswith(claim) == claimed


def test_letters_that_are_in_no_formula_are_details() -> None:
    codes = {b.label: b for b in section(minilm.inspect("gpt2"), "formula").blocks}
    where, others = codes["where"], codes["other sizes"]
    assert isinstance(where, Code)
    assert isinstance(others, Code)
    assert where.text.split("  ")[0] == "V=50257 vocabulary"
    assert others.text.split("  ")[0] == "f=3072 feed-forward width"
    assert (where.full_only, others.full_only) == (False, True)


@pytest.mark.parametrize("target", ["gpt2", "llama-3-8b", "nano-fast"])
@pytest.mark.parametrize("most", range(2, 14))
def test_folded_components_have_the_same_sums(target: str, most: int) -> None:
    report = minilm.inspect(target)
    folded = fold_components(report.components, most)
    assert len(folded) <= most
    for field in ("count", "weights", "biases"):
        assert sum(getattr(c, field) for c in folded) == sum(
            getattr(c, field) for c in report.components
        )
    assert sum(c.share for c in folded) == pytest.approx(1)
    assert len({c.name for c in folded}) == len(folded)
    if most >= len(report.components):
        assert folded == [*report.components]


def test_norms_are_folded_first_and_the_largest_parts_last() -> None:
    components = minilm.inspect("llama-3-8b").components
    assert "norms" in [c.name for c in fold_components(components, 11)]
    assert [c.name for c in fold_components(components, 7)] == [
        "token embedding",
        "attention",
        "feed-forward gate",
        "feed-forward up",
        "feed-forward down",
        "LM head",
        "norms",
    ]
    assert fold_components(components, 3)[-1].name == "other (3 components)"


def test_a_folded_name_may_be_the_name_of_a_component() -> None:
    parts = [Component(name, 1, 0.25, "", "", 1, 0) for name in ("attention", "attn.q", "a", "b")]
    assert [c.name for c in fold_components(parts, 3)] == ["attention", "a", "b"]
    table = components_section(
        replace(minilm.inspect("nano"), components=tuple(parts)), most_rows=2
    ).tables()[0]
    assert len(table.rows) == 3


@pytest.mark.parametrize(
    ("component", "group"),
    [
        ("token embedding", "embedding"),
        ("embedding norm", "norm"),
        ("attention output", "attention"),
        ("attention query/key norm", "norm"),
        ("feed-forward gate+up", "feed-forward"),
        ("shared expert gate", "experts"),
        ("LM head", "head"),
        ("model.layers.self_attn.q_proj", "attention"),
        ("h.ln_1", "norm"),
        ("conv1", "other"),
    ],
)
def test_components_are_grouped_by_what_they_are(component: str, group: str) -> None:
    assert component_group(component) == group


def test_a_short_list_says_how_many_lines_are_left_out() -> None:
    block = Listing("added (30)", tuple(f"t{n}" for n in range(30)))
    short = brief(Section("x", "X", (block, Paragraph("no", full_only=True))))
    assert short is not None
    assert len(short.blocks) == 1
    assert short.listings()[0].lines[-2:] == ("t19", "and 10 more")
    assert brief(Section("x", "X", (Paragraph("no", full_only=True),))) is None
