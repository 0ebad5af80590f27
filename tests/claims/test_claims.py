"""Claims 4 to 7 and 9 with planted effects both ways, and the protocol."""

from __future__ import annotations

import copy
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minilm.claims import (
    bytes_per_parameter,
    check,
    compression,
    majority,
    movement,
    protocol,
    work,
)
from minilm.claims.intervals import Bootstrap, blocks_needed, share, student, t_quantile, with_need
from minilm.claims.protocol import Finding, Interval, Region, Rule
from minilm.claims.report import introduction
from minilm.claims.subject import Subject, open_subject
from minilm.errors import InputError
from minilm.model.digest import parameters_sha256
from minilm.model.transformer import Transformer
from minilm.parallel.tensor_parts import write_tensors
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
    assert rule.decide(Interval(math.inf, math.inf, math.inf)) == "contradicted"
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


def test_what_is_inconclusive_by_its_width_says_how_many_units_it_needs(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).normal(0, 0.04, 6)
    values -= values.mean()
    rule = Rule("a/b", "", "", "nats", Region(0.01), Region(high=0.01), 6, "seeds", margin=0.01)
    found = with_need(Finding(rule, student(values), n=6))
    needed = math.ceil((2.8070 * values.std(ddof=1) / 0.01) ** 2)
    assert found.why == f"needs {needed} seeds for a half-width of 0.01 nats, there are 6"
    claim = replace(check.CLAIMS["majority"], measure=lambda _: [replace(found, reason="")])
    monkeypatch.setitem(check.CLAIMS, "majority", claim)
    assert check.check_subject(subject, "it", ["majority"]).findings == (found,)
    several = Finding(rule, Interval.exact(0.01), n=6, half_width=student(values).half_width)
    meeting = replace(rule, supported=Region(0.02), contradicted=Region(high=0.01))
    assert with_need(replace(several, rule=meeting)).why == found.why  # of the widest of them
    gap = "the estimate lies between the two regions"  # of what is narrow enough, or has no width
    between = replace(rule, contradicted=Region(high=-0.1), margin=0.2)
    assert with_need(Finding(between, student(values), n=6)).why == gap
    wide = replace(rule, supported=Region(high=-1), contradicted=Region(1))
    assert with_need(Finding(wide, student(values), n=6)).why == gap, (
        "more of them would not decide"
    )
    counted = replace(between, margin=0.0)
    assert with_need(Finding(counted, Interval.exact(-0.05), n=6)).why == gap
    for silent in (
        Finding(rule, student(values + 1), n=6),
        Finding(replace(rule, margin=0.0), student(values), n=6),
        Finding(between, student(values + 0.01), n=6),
        Finding(rule, reason="not run: no time"),
    ):
        assert with_need(silent) == silent
    assert with_need(Finding(rule, student(values[:2]), n=2)).why == "needs 6 seeds, there are 2"


def test_the_page_names_every_rule_that_gives_no_number() -> None:
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    _, _, after = page.partition("**No number is given**")
    rules = [rule for each in check.CLAIMS.values() for rule in each.rules]
    named = re.findall(r"`([\w-]+/[\w-]+)`", after.partition("\n## ")[0])
    assert sorted(named) == sorted(rule.name for rule in rules if not rule.margin)


def test_the_report_says_that_the_pilot_asks_for_more_blocks(subject: Subject) -> None:
    def introduced(needed: int) -> str:
        data = {"blocks": 60, "block_tokens": 8, "source": "it", "blocks_needed": needed}
        return introduction(check.check_subject(replace(subject, data=data), "it", ["majority"]))

    assert introduced(61).endswith(
        "The pilot asks for 61 blocks, more than there are, for a half-width of 0.03 nats."
    )
    assert introduced(60).endswith("else inconclusive.")


def test_verdicts_are_as_many_as_the_level_allows_for() -> None:
    """0.5% each: the page and the protocol say how many, and how often one of them is wrong."""
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    default, trained = (
        sum(len(each.rules) for each in check.CLAIMS.values() if (each.measure is None) is trains)
        for trains in (False, True)
    )
    assert f"the {default} verdicts of a default run" in page
    assert f"the {trained} of `--train-claims`" in page
    assert f"the {default} verdicts" in (protocol.__doc__ or "")
    assert round(1 / (default * (1 - protocol.LEVEL))) == 12


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
    two_layers = Transformer(replace(subject.model.config, num_layers=2))
    counted, _ = work.measure(subject_of(two_layers))
    timed = [f"{tokens} tokens" for tokens in counted.details["tokens"]]
    (one_layer, _), _ = counted.details["by_parameters"]
    timed.append(f"{counted.details['tokens'][-1]} tokens, {one_layer:,} parameters")
    assert list(counted.seconds) == timed
    assert min(counted.seconds.values()) > 0
    charts = {chart.title: chart for chart in counted.charts}
    assert set(charts) == {
        f"{what} by {axis}"
        for what in ("megaFLOPs", "milliseconds")
        for axis in ("tokens", "parameters")
    }
    sizes = [parameters for parameters, _ in counted.details["by_parameters"]]
    for what in ("megaFLOPs", "milliseconds"):
        (line,) = charts[f"{what} by parameters"].lines
        assert list(line.x) == sizes
    assert line.y[-1] == pytest.approx(1e3 * counted.seconds[timed[-2]])


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


def test_a_start_of_another_seed_is_no_start() -> None:
    """Gains of norms are alike in all runs, and a table that was copied makes no start of the rest."""
    config = bigram_model("random", output_initialization="scaled").config
    run, other = (Transformer(config, torch.Generator().manual_seed(seed)) for seed in (4, 5))
    for _ in range(2):
        unrelated = movement.compare(other, run, "the start")
        assert {each.verdict for each in unrelated} == {"inconclusive"}
        assert "have anything in common with the start" in unrelated[0].why
        other.embedding.token.weight.data.copy_(run.embedding.token.weight)
    assert movement.compare(run, run, "the start")[0].interval is not None


def test_half_a_step_of_a_narrow_dtype_is_no_movement() -> None:
    before, after = torch.full((4, 4), 1.0), torch.full((4, 4), 1.001)
    assert movement.movement("w", before, after, "float32").moved == 16
    assert movement.movement("w", before, after, "bfloat16").moved == 0


def test_singular_values_before_and_after_are_those_that_were_planted() -> None:
    random = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(size, 4, generator=random, dtype=torch.float64))[0]
        for size in (9, 6)
    )

    def matrix(*singular: float) -> torch.Tensor:
        return (left @ torch.diag(torch.tensor(singular).double()) @ right.T).float()

    moved = movement.movement("w", matrix(3, 1, 1, 1), matrix(1, 1, 5, 1), "float32")
    assert moved.largest == pytest.approx((3, 5))
    assert moved.rank == pytest.approx((12 / 9, 28 / 25))
    assert moved.ratio == pytest.approx(math.sqrt(4 + 16) / math.sqrt(12))
    vector = movement.movement("b", torch.ones(3), torch.zeros(3), "float32")
    assert (vector.largest, vector.rank) == (None, None)


def feed_forward_model(outlier: float = 0.0) -> Transformer:
    """One unit a token writes what follows it, as many write nothing; all weights are on a grid.

    The ``outlier`` stands in every group of 32 weights of a row, at a unit that nothing reaches.
    """
    model = bigram_model(
        "units", d_feed_forward=2 * V, feed_forward="relu2", num_heads=1, head_dim=32
    )
    feed_forward = model.blocks[0].feed_forward
    with torch.no_grad():
        feed_forward.up.weight.zero_()[:V] = torch.eye(V) / V**0.25
        feed_forward.down.weight.zero_()[:, :V] = 2 * (model.lm_head.weight > 0.5)
        model.lm_head.weight.copy_(torch.eye(V))
        if outlier:
            feed_forward.up.weight[::32] = 0
            feed_forward.down.weight[:, ::32] = outlier
    return model


def test_quantization_of_a_grid_and_of_outliers_and_pruning_of_dead_units() -> None:
    assert verdicts(compression.measure(subject_of(feed_forward_model()))) == {
        "8-bit": "supported",
        "4-bit": "supported",
        "pruning": "supported",
    }
    outliers = verdicts(compression.measure(subject_of(feed_forward_model(1000.0))))
    assert (outliers["8-bit"], outliers["4-bit"]) == ("contradicted", "contradicted")


def test_pruning_finds_no_redundancy_where_all_matter() -> None:
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
    few_embeddings = subject_of(bigram_model("random", d_feed_forward=4096))
    assert verdicts(bytes_per_parameter.measure(few_embeddings))["4-bit"] == "supported"
    assert found[doubled]["file"] == "contradicted"


def test_the_start_of_a_run_is_rebuilt(tiny_run: Path, cache: Path) -> None:
    moved = movement.measure(open_subject(tiny_run, tiny_run, None, 0, cache))
    assert moved[0].interval is not None
    assert moved[0].details["start"] == "the start of seed 0, rebuilt"
    assert moved[0].details["is_own"]


def test_a_start_that_the_run_did_not_record_is_refused(tiny_run: Path, cache: Path) -> None:
    """However much it has in common with the run; one that recorded none is compared as before."""
    subject = open_subject(tiny_run, tiny_run, None, 0, cache)
    assert subject.record is not None
    other = replace(subject.record, start={"sha256": "0" * 64})
    refused = movement.measure(replace(subject, record=other))
    assert {each.verdict for each in refused} == {"inconclusive"}
    assert f"{tiny_run}: the start of seed 0, rebuilt, with SHA-256 " in refused[0].why
    assert refused[0].why.endswith("expected that of the run, 000000000000")
    older = movement.measure(replace(subject, record=replace(subject.record, start={})))
    assert older[0].interval is not None
    assert not older[0].details["is_own"]


def test_a_run_that_was_killed_has_a_start_but_names_no_text(
    tiny_run: Path, cache: Path, text_file: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(tiny_run, killed)
    (killed / "summary.json").unlink()
    (killed / "resume").mkdir(exist_ok=True)
    with pytest.raises(InputError, match=r"it has not ended, .* --resume --run-dir .*killed"):
        open_subject(killed, killed, None, 0, cache)
    moved = movement.measure(open_subject(killed, killed, str(text_file), 0, cache))
    assert moved[0].interval is not None


def test_no_block_of_a_text_that_is_given_is_in_what_models_are_trained_on(
    tiny_run: Path, cache: Path, tmp_path: Path
) -> None:
    numbers = tmp_path / "numbers.txt"  # all of its stretches of 16 bytes are different ones
    numbers.write_text("".join(f"{number:07d}\n" for number in range(1000)))
    subject = open_subject(tiny_run, tiny_run, str(numbers), 0, cache)
    trained_on = np.asarray(subject.text).astype(np.int64).tobytes()
    for blocks in (subject.blocks, subject.pilot):
        assert not [row for row in blocks.tokens.numpy() if row.tobytes() in trained_on]
    assert len(subject.text) == 4000
    assert subject.data["source"] == "the last 50% of numbers"


def test_a_run_that_was_fine_tuned_is_compared_with_what_it_began_with(
    tiny_run: Path, cache: Path
) -> None:
    subject = open_subject(tiny_run, tiny_run, None, 0, cache)
    assert subject.record is not None

    def moved(base: Path, **start: str) -> Finding:
        began_with = {**subject.record.began_with, "init_from": str(base)}
        record = replace(subject.record, began_with=began_with, start=start)
        return movement.measure(replace(subject, record=record))[0]

    itself = moved(tiny_run)
    assert itself.details["start"] == f"{tiny_run}, which it was fine-tuned from"
    assert itself.details["moved"] == 0
    assert itself.verdict == "contradicted"
    assert moved(tiny_run, sha256=parameters_sha256(subject.model)).details["is_own"]
    trained_since = moved(tiny_run, sha256="0" * 64)
    assert "which it was fine-tuned from, with SHA-256" in trained_since.why
    assert "which is not there, expected its start" in moved(tiny_run / "gone").why


def test_a_model_no_better_than_its_token_frequencies_gets_no_verdict() -> None:
    model = bigram_model("random")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    report = check.check_subject(subject_of(model), "it", list(check.CLAIMS))
    assert {finding.verdict for finding in report.findings} == {"inconclusive"}
    assert {finding.why for finding in report.findings} == {f"not run: {check.NO_BETTER}"}
    assert len(report.findings) == sum(len(claim.rules) for claim in check.CLAIMS.values())
    assert not any("`" in f"{finding.rule}" for finding in report.findings)  # they stand in pages


def test_what_is_too_large_to_be_measured_is_not_run(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MOST_FLOPS", 1e9)
    (typical, *_) = check.check_subject(subject, "it", ["one-parameter"]).findings
    assert typical.verdict == "inconclusive"
    assert typical.why == "not run: needs 1,100 passes of 4.2e+07 FLOPs, more than 1e+09 in all"
