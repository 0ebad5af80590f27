"""Sections of what is asked for: every figure stands under its own title."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from minilm.inspection import extras
from minilm.inspection.inspector import inspect_with_sources
from minilm.inspection.report import Report
from minilm.render.sections import sections
from minilm.render.tables import Section, way


def section(report: Report, key: str) -> Section:
    (found,) = [each for each in sections(report) if each.key == key]
    return found


def rows(found: Section, number: int = 0) -> list[dict[str, str]]:
    """A table's rows by the titles of their columns."""
    table = found.tables[number]
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, row, strict=True)) for row in table.rows]


def save(path: Path, **tensors: torch.Tensor) -> str:
    save_file(tensors, path)
    return str(path)


def test_statistics(tmp_path: Path) -> None:
    values = torch.tensor([[0.0, 1.0], [-3.0, float("nan")]])
    target = save(tmp_path / "a.safetensors", w=values, empty_rows=torch.zeros(2, 3))
    found = section(extras.with_statistics(inspect_with_sources(target), None), "statistics")
    total, *tensors = rows(found)
    assert total["tensor"] == "total"
    (w,) = [row for row in tensors if row["tensor"] == "w"]
    assert (w["shape"], w["min"], w["max"], w["NaN"], w["zeros"]) == ("2 × 2", "-3", "1", "1", "1")
    (dead,) = [row for row in tensors if row["tensor"] == "empty_rows"]
    assert dead["dead rows"] == "2"
    assert rows(found, 1)[0] == {"tensor": "w", "at": "1, 0", "value": "-3"}
    histogram = rows(found, 2)
    assert histogram[0] == {"magnitude": "2^0 to 2^1", "values": "1"}
    assert histogram[-1] == {"magnitude": "2^1 to 2^2", "values": "1"}


def test_difference(tmp_path: Path) -> None:
    a = save(tmp_path / "a.safetensors", w=torch.zeros(2, 2), gone=torch.ones(1), s=torch.ones(2))
    b = save(tmp_path / "b.safetensors", w=torch.eye(2), new=torch.ones(1), s=torch.ones(3))
    found = section(
        extras.with_difference(inspect_with_sources(a), inspect_with_sources(b), None), "difference"
    )
    assert found.text == ("They differ.",)
    assert rows(found, 0) == [{"added": "new"}]
    assert rows(found, 1) == [{"removed": "gone"}]
    assert rows(found, 2) == [{"reshaped": "s", "in A": "2", "in B": "3"}]
    change = rows(found, 3)[1]
    assert (change["change of"], change["identical"], change["rank"]) == ("w", "50.00%", "2")
    same = section(
        extras.with_difference(inspect_with_sources(a), inspect_with_sources(a), None), "difference"
    )
    assert same.text == ("Both hold the same tensors with the same bits.",)


def test_what_fits() -> None:
    report = extras.with_fits(inspect_with_sources("gpt2"), "1GB", context=None, batch=1)
    assert report.fits is not None
    found = rows(section(report, "fits"))
    assert len(found) == len(report.fits)
    for row, fit in zip(found, report.fits, strict=True):
        assert row["fits"] == ("yes" if fit.fits else "no")
        assert row["longest context"] == (f"{fit.max_context:,}" if fit.max_context else "none")
    assert found[0]["use"] == "inference, float32"
    assert found[0]["weights"] == "474.7 MiB"
    assert {"yes", "no"} == {row["fits"] for row in found}


def test_reconciliation() -> None:
    explained = section(
        extras.with_reconciliation(inspect_with_sources("gpt2"), "163037184"), "reconciliation"
    )
    assert explained.text == ("163037184 is explained to the last one:",)
    assert "124,439,808 + 38,597,376" in rows(explained)[0]["arithmetic"]
    assert rows(explained)[0]["left over"] == "+0"
    wrong = section(
        extras.with_reconciliation(inspect_with_sources("gpt2"), "163037185"), "reconciliation"
    )
    assert wrong.text == ("163037185 is not explained. The nearest:",)


def test_ways_to_train_are_named() -> None:
    assert [way(key) for key in ("adamw_float32", "lora_nf4", "other_x")] == [
        "AdamW, float32",
        "LoRA, nf4",
        "other, x",
    ]
