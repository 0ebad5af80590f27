"""check_claims(): what is said of parameters, tested on one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims import (
    bytes_per_parameter,
    compression,
    damage,
    encoded_facts,
    initialization,
    knowledge,
    majority,
    movement,
    one_parameter,
    scaling,
    sharing,
    work,
)
from minilm.claims.cells import Cells
from minilm.claims.intervals import with_need
from minilm.claims.protocol import LEVEL, Finding, Rule, not_run
from minilm.claims.subject import Subject, open_subject
from minilm.costs.flops import flops_per_token
from minilm.data.cache import default_cache
from minilm.errors import InputError
from minilm.interop.convert import as_run
from minilm.model.digest import parameters_sha256
from minilm.version import __version__

SCHEMA = "minilm.claims/1"


@dataclass(frozen=True)
class Claim:
    """A claim by its number and what is said; ``measure`` gives a finding for each of its rules.

    One that trains models has ``measure_trained`` instead. ``passes`` are those over all blocks, about. What
    ``is_counted`` is of the parameters alone: it needs no text.
    """

    number: int
    saying: str
    rules: tuple[Rule, ...]
    measure: Callable[[Subject], list[Finding]] | None = None
    measure_trained: Callable[[Subject, Cells], list[Finding]] | None = None
    passes: int = 0
    is_counted: bool = False


CLAIMS: dict[str, Claim] = {
    "one-parameter": Claim(
        1,
        "No individual parameter encodes a fact; the model is robust.",
        (*one_parameter.RULES, encoded_facts.RULE, damage.RULE),
        lambda subject: [
            *one_parameter.measure(subject),
            *encoded_facts.measure(subject),
            *damage.measure(subject),
        ],
        passes=1100,
    ),
    "knowledge": Claim(
        2,
        "Knowledge sits in the matrices of attention and feed-forward.",
        knowledge.RULES,
        measure_trained=knowledge.measure,
    ),
    "scaling": Claim(
        3,
        "More parameters, more capable; data and recipe matter as much.",
        scaling.RULES,
        measure_trained=scaling.measure,
    ),
    "bytes": Claim(
        4,
        "A model of 70B parameters is 140 GB, 35 GB at 4 bits; a 7B runs on a laptop, 400B does not.",
        bytes_per_parameter.RULES,
        bytes_per_parameter.measure,
        is_counted=True,
    ),
    "work": Claim(5, "Work grows with tokens, weights do not.", work.RULES, work.measure),
    "compression": Claim(
        6,
        "Quantization loses little, pruning removes what is redundant.",
        compression.RULES,
        compression.measure,
        passes=25,
    ),
    "sharing": Claim(
        6,
        "Sharing saves and costs little.",
        sharing.RULES,
        measure_trained=sharing.measure,
    ),
    "majority": Claim(
        7,
        "The feed-forward holds the majority; a model has 2Vd + 12Ld² parameters.",
        majority.RULES,
        majority.measure,
        is_counted=True,
    ),
    "initialization": Claim(
        8,
        "Initial values matter, biases help, dropout prevents co-adaptation.",
        initialization.RULES,
        measure_trained=initialization.measure,
    ),
    "movement": Claim(
        9, "Training adjusts every parameter a little.", movement.RULES, movement.measure
    ),
}


@dataclass(frozen=True)
class ClaimsReport:
    """The findings of all claims, and what they were measured on.

    ``seconds`` alone differ when the same is run again.
    """

    target: str
    seed: int
    data: dict[str, Any]
    model: dict[str, Any]
    findings: tuple[Finding, ...]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "schema": SCHEMA,
            "target": self.target,
            "minilm": __version__,
            "torch": torch.__version__,
            "seed": self.seed,
            "level": LEVEL,
            "data": self.data,
            "model": self.model,
            "claims": [finding.to_dict() for finding in self.findings],
            "seconds": self.seconds,
        }


def check_claims(
    checkpoint: str | Path,
    only: Sequence[str] = (),
    *,
    data: str | None = None,
    seed: int = 0,
    train_seconds: float | None = None,
    cache: Path | None = None,
) -> ClaimsReport:
    """Test the claims, or ``only`` those of these names, each once, on a run or whatever `convert` imports.

    ``data``: a text whose last half is tested on; by default the validation split that the run was trained
    beside. Those that train models do so for ``train_seconds``, if given, on the rest of that text, and go on
    with what earlier calls trained.
    Raises InputError for a name that is none, and where there is no text, unless all claims are counted.
    """
    if unknown := [name for name in only if name not in CLAIMS]:
        raise InputError("--only", repr(unknown[0]), f"one of {', '.join(CLAIMS)}")
    cache = cache or default_cache()
    with as_run(Path(checkpoint)) as run:
        names = list(dict.fromkeys(only)) or list(CLAIMS)
        counted = all(CLAIMS[name].is_counted for name in names)
        subject = open_subject(run, Path(checkpoint), data, seed, cache, needs_text=not counted)
        cells = None
        if train_seconds is not None:
            shared = {
                "weights": parameters_sha256(subject.model),
                "text": subject.data["sha256"],
                "blocks": subject.blocks_sha256(),  # of a text that is given they are others
                "seed": seed,
            }
            cells = Cells(cache / "claims", train_seconds, **shared)
        return check_subject(subject, str(checkpoint), names, cells)


def check_subject(
    subject: Subject, target: str, names: Sequence[str], cells: Cells | None = None
) -> ClaimsReport:
    """The same of a model that is open; without ``cells`` nothing is trained."""
    advantage = subject.advantage if len(subject.blocks) else None
    findings: list[Finding] = []
    seconds = {}
    for name in names:
        claim, began = CLAIMS[name], time.monotonic()
        # What such a model loses by a change says nothing of what it knows.
        if advantage is not None and advantage.low <= 0:
            findings += [not_run(rule, NO_BETTER) for rule in claim.rules]
        elif claim.passes * pass_flops(subject) > MOST_FLOPS:
            findings += [not_run(rule, _too_large(subject, claim)) for rule in claim.rules]
        elif claim.measure is not None:
            findings += claim.measure(subject)
        elif claim.measure_trained is not None and cells is not None:
            findings += claim.measure_trained(subject, cells)
        else:
            findings += [not_run(rule, TRAINS) for rule in claim.rules]
        seconds[name] = round(time.monotonic() - began, 3)
    seconds |= {
        f"{f.rule.name}: {what}": each for f in findings for what, each in f.seconds.items()
    }
    return ClaimsReport(
        target=target,
        seed=subject.seed,
        data=dict(subject.data),
        model={
            "parameters": sum(p.numel() for p in subject.model.parameters()),
            "loss": None if advantage is None else float(subject.trials.base.mean()),
            "unigram_loss": None if advantage is None else float(subject.unigram.mean()),
            "better_by": None if advantage is None else list(astuple(advantage)),
        },
        findings=tuple(with_need(finding) for finding in findings),
        seconds=seconds,
    )


def pass_flops(subject: Subject) -> int:
    """Of one forward pass over the blocks, by the ledger."""
    length = subject.blocks.tokens.shape[1]
    layout = minilm_layout(subject.model.config)
    per_token = flops_per_token(layout, context=length)["forward_per_token"]
    return int(subject.blocks.tokens.numel() * per_token)


def _too_large(subject: Subject, claim: Claim) -> str:
    flops = pass_flops(subject)
    return f"needs {claim.passes:,} passes of {flops:.2g} FLOPs, more than {MOST_FLOPS:.0e} in all"


MOST_FLOPS = 2e14  # of a claim: some half an hour on two cores
NO_BETTER = "the model is no better than its token frequencies"
TRAINS = "it trains models: give --train-claims"
