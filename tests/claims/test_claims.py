"""Claims 4 to 7 and 9 with planted effects both ways, the protocol, and the command."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minilm.architectures import layout_of
from minilm.checkpoint import write_tensors
from minilm.claims import bytes_per_parameter, check, compression, majority, movement, work
from minilm.claims.intervals import Bootstrap, blocks_needed, share, student, t_quantile
from minilm.claims.protocol import Finding, Interval, Region, Rule
from minilm.claims.subject import Subject, open_subject
from minilm.cli.claims import main
from minilm.model.transformer import Transformer
from tests.claims.subjects import V, bigram_model, planted_pairs, subject_of

Capture = pytest.CaptureFixture[str]
Verdicts = dict[str, str]


def verdicts(findings: list[Finding]) -> Verdicts:
    return {finding.rule.name.partition("/")[2]: finding.verdict for finding in findings}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return subject_of(bigram_model("random"))


def test_verdicts_need_the_whole_interval() -> None:
    rule = Rule("a/b", "", "", "", Region(high=0.05), Region(0.5), least=30)
    decided = {
        (0.0, 0.04): "supported",
        (0.0, 0.06): "inconclusive",
        (0.06, 0.4): "inconclusive",
        (0.4, 0.6): "inconclusive",
        (0.51, 0.6): "contradicted",
    }
    for (low, high), verdict in decided.items():
        assert rule.decide(Interval(low, low, high)) == verdict
        assert Finding(rule, Interval(low, low, high), n=29).verdict == "inconclusive"
    none = Rule("a/c", "", "", "", Region(0, 0.03), Region(0))
    assert none.decide(Interval(0, 0, 0.02)) == "supported"
    assert none.decide(Interval(0.001, 0.0001, 0.02)) == "contradicted"


def test_intervals_are_those_of_the_textbooks() -> None:
    quantiles = {(0.975, 1): 12.7062, (0.975, 2): 4.3027, (0.9975, 5): 4.7733, (0.975, 30): 2.0423}
    for (p, degrees), value in quantiles.items():
        assert t_quantile(p, degrees) == pytest.approx(value, abs=1e-4)
    assert share(0, 600).high == pytest.approx(5.3 / 600, rel=0.01)
    assert share(10, 100, 0.95).low == pytest.approx(0.0490, abs=1e-4)
    assert share(10, 100, 0.95).high == pytest.approx(0.1762, abs=1e-4)
    assert blocks_needed(1.0, 0.5) == math.ceil((2.807 / 0.5) ** 2)
    values = np.random.default_rng(0).normal(size=30)
    own, exact = Bootstrap(30, 0).mean(values), student(values)
    assert own.half_width == pytest.approx(exact.half_width, rel=0.15)
    assert own == Bootstrap(30, 0).mean(values)


def test_published_models_have_the_counts_that_are_published() -> None:
    for name, config in majority.published_models().items():
        assert layout_of(config).count() == config["parameters"], name
    shares = {
        name: majority.shares_of(layout_of(c)) for name, c in majority.published_models().items()
    }
    assert shares["pythia-70m"].of_all == pytest.approx(0.179, abs=5e-4)
    assert shares["gpt2"].error == pytest.approx(0.303, abs=5e-4)
    assert all(each.has_predicted_majority in (None, each.of_all > 0.5) for each in shares.values())


def test_the_majority_and_the_formula_depend_on_the_model(subject: Subject) -> None:
    assert verdicts(majority.measure(subject)) == {
        "all": "contradicted",
        "non-embedding": "contradicted",
        "formula": "contradicted",
    }
    deep = subject_of(bigram_model("units", d_feed_forward=4 * V, num_layers=3, norm="layernorm"))
    found = verdicts(majority.measure(deep))
    assert (found["all"], found["non-embedding"], found["formula"]) == ("supported",) * 3


class Drifting(Transformer):
    """A model that changes a weight each time it is called."""

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        with torch.no_grad():
            self.final_norm.weight[0] += 1e-3
        return super().forward(*arguments, **named)


class Cubic(Transformer):
    """One whose work is no square of the tokens."""

    def forward(self, tokens: Tensor, *arguments: Any, **named: Any) -> Tensor:
        t = tokens.shape[1]
        torch.ones(t * t, 6400 * t) @ torch.ones(6400 * t, 8)
        return super().forward(tokens, *arguments, **named)


def test_work_and_weights(subject: Subject) -> None:
    assert verdicts(work.measure(subject)) == {"tokens": "supported", "weights": "supported"}
    drifting, cubic = Drifting(subject.model.config), Cubic(subject.model.config)
    assert verdicts(work.measure(subject_of(drifting)))["weights"] == "contradicted"
    assert verdicts(work.measure(subject_of(cubic)))["tokens"] == "contradicted"


def test_movement_of_a_nudge_and_of_a_frozen_model() -> None:
    start = bigram_model("random", output_initialization="scaled")
    generator = torch.Generator().manual_seed(0)
    nudged, frozen = copy.deepcopy(start), copy.deepcopy(start)
    with torch.no_grad():
        for parameter in nudged.parameters():
            noise = torch.empty(parameter.shape).normal_(generator=generator)
            parameter += noise * 0.01 * parameter.norm() / parameter.numel() ** 0.5
        frozen.lm_head.weight[:8] += 1.0  # far less than a hundredth of the parameters
    assert verdicts(movement.compare(start, nudged, "it")) == {
        "every": "supported",
        "little": "supported",
    }
    assert verdicts(movement.compare(start, frozen, "it"))["every"] == "contradicted"
    far = bigram_model("random", output_initialization="scaled")
    with torch.no_grad():
        for parameter in far.parameters():
            parameter *= 2
    moved = movement.compare(start, far, "it")
    assert verdicts(moved)["little"] == "contradicted"
    other = Transformer(start.config, torch.Generator().manual_seed(5))
    for parameter in other.parameters():
        parameter.data.normal_(generator=generator)
    unrelated = movement.compare(start, other, "the start")
    assert {each.verdict for each in unrelated} == {"inconclusive"}
    assert "anything in common with the start" in unrelated[0].why


def test_half_a_step_of_a_narrow_dtype_is_no_movement() -> None:
    before, after = torch.full((4, 4), 1.0), torch.full((4, 4), 1.001)
    assert movement.movement("w", before, after, "float32").moved == 16
    assert movement.movement("w", before, after, "bfloat16").moved == 0


def model_on_a_grid() -> Transformer:
    """A model whose weights are on an int8 grid."""
    model = bigram_model(
        "random", output_initialization="scaled", d_feed_forward=256, init_std=0.05
    )
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name in ("up", "down"):
            weight = getattr(model.blocks[0].feed_forward, name).weight
            weight.copy_(torch.randint(-127, 128, weight.shape, generator=generator) / 127 * 0.02)
    return model


def test_quantization_of_a_grid_and_of_outliers() -> None:
    grid = verdicts(compression.measure(subject_of(model_on_a_grid())))
    assert grid["8-bit"] == "supported"
    assert grid["sharing"] == "inconclusive"
    outliers = verdicts(compression.measure(subject_of(outlier_model())))
    assert outliers["4-bit"] == "contradicted"


def outlier_model() -> Transformer:
    """What the feed-forward writes is large, each of its matrices with one far larger weight a group."""
    model = bigram_model("random", d_feed_forward=256)
    feed_forward = model.blocks[0].feed_forward
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        feed_forward.up.weight.normal_(0, 0.05, generator=generator)
        hidden = torch.nn.functional.gelu(feed_forward.up(model.embedding.token.weight))
        read = torch.linalg.lstsq(hidden, model.embedding.token.weight).solution  # V d
        feed_forward.down.weight.copy_(read.T * 3)
        feed_forward.down.weight[:, ::32] = 40.0
        feed_forward.up.weight[::32] = 0.0  # which nothing reaches
    return model


def test_pruning_finds_dead_units_and_no_redundancy_where_all_matter() -> None:
    dead = bigram_model(
        "units", d_feed_forward=2 * V, feed_forward="relu2", num_heads=1, head_dim=2
    )
    feed_forward = dead.blocks[0].feed_forward
    with torch.no_grad():  # one unit a token writes what follows it; as many write nothing
        feed_forward.up.weight.zero_()[:V] = torch.eye(V) / V**0.25
        feed_forward.down.weight.zero_()[:, :V] = dead.lm_head.weight * 20 / 10
        dead.lm_head.weight.copy_(torch.eye(V))
    assert verdicts(compression.measure(subject_of(dead)))["pruning"] == "supported"
    needed = bigram_model(
        "random", d_feed_forward=128, feed_forward="relu2", num_heads=1, head_dim=2
    )
    planted_pairs(needed, 20.0, pairs=64)
    feed_forward = needed.blocks[0].feed_forward
    with torch.no_grad():  # the same function, of weights of two sizes: one of a pair is smaller
        feed_forward.up.weight[::2] *= 2
        feed_forward.down.weight[:, ::2] /= 4
    assert verdicts(compression.measure(subject_of(needed)))["pruning"] == "contradicted"


def test_a_file_has_the_bytes_of_its_parameters(tmp_path: Path) -> None:
    subject = subject_of(bigram_model("random", d_feed_forward=64))
    whole, doubled = tmp_path / "model.safetensors", tmp_path / "doubled.safetensors"
    tensors = dict(subject.model.named_parameters())
    write_tensors(whole, tensors, {})
    write_tensors(doubled, tensors | {f"again.{name}": each for name, each in tensors.items()}, {})
    found = {
        path: verdicts(bytes_per_parameter.measure(replace(subject, checkpoint=path)))
        for path in (whole, doubled)
    }
    assert found[whole] == {"file": "supported", "4-bit": "contradicted"}
    assert found[doubled]["file"] == "contradicted"


def test_the_start_of_a_run_is_rebuilt(tiny_run: Path, cache: Path) -> None:
    moved = movement.measure(open_subject(tiny_run, tiny_run, None, 0, cache))
    assert moved[0].interval is not None
    assert moved[0].details["start"] == "the start of seed 0, rebuilt"


def test_a_model_no_better_than_its_token_frequencies_gets_no_verdict() -> None:
    model = bigram_model("random")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    report = check.check_subject(subject_of(model), "it", list(check.CLAIMS))
    assert {finding.verdict for finding in report.findings} == {"inconclusive"}
    assert {finding.why for finding in report.findings} == {f"not run: {check.NO_BETTER}"}
    assert len(report.findings) == sum(len(claim.rules) for claim in check.CLAIMS.values())


def test_what_is_too_large_to_be_measured_is_not_run(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MOST_FLOPS", 1e9)
    (typical, *_) = check.check_subject(subject, "it", ["one-parameter"]).findings
    assert typical.verdict == "inconclusive"
    assert typical.why == "not run: needs 1,000 passes of 1.6e+08 FLOPs, more than 1e+09 in all"


def test_the_command_writes_json_a_page_and_prose(
    tiny_run: Path, cache: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "80")
    page, prose = tmp_path / "page.html", tmp_path / "prose.md"
    names = ["--only", "majority", "bytes", "compression"]
    outputs = ["--html", str(page), "--markdown", str(prose)]
    assert main([str(tiny_run), *names, *outputs]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "majority/all: the feed-forward of this model" in text
    assert '<section id="claims"' in page.read_text()
    assert prose.read_text().startswith("# Claims\n")
    values = []
    for _ in range(2):
        assert main([str(tiny_run), *names, "--json", "-"]) == 0
        values.append(json.loads(capsys.readouterr().out))
        del values[-1]["seconds"]
    assert values[0] == values[1]
    assert values[0]["schema"] == "minilm.claims/1"
    claims = {claim["name"]: claim for claim in values[0]["claims"]}
    assert claims["majority/all"]["rule"]["supported"] == [0.5, None]
    assert set(claims["bytes/file"]) >= {"verdict", "effect", "n", "trials", "reason", "details"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "--only", "taste"], "--only: 'taste', expected one of one-parameter, "),
        (["RUN", "--json", "-", "--markdown", "-"], "--markdown: -, which is another output"),
        (["RUN", "--html", "RUN/config.json"], "config.json, which is a file of a model or a run"),
        (["/nowhere"], "/nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tiny_run: Path,
    cache: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINILM_CACHE", str(cache))
    assert main([each.replace("RUN", str(tiny_run)) for each in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
