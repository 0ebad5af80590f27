"""Claim 1, of facts: no single parameter encodes one.

For each fact, the scalars whose zero should cost its margin most, by gradient * w in paraphrase A, are set to
zero singly. One *encodes* the fact if the margin changes its sign in A and in the paraphrases B, the median
change of the other facts' margins is under a tenth of its own, and the loss rises by less than 0.01: what
breaks everything encodes nothing. All that change the sign are asked this: beside one that breaks everything,
and costs the fact most, another may be its own. Null: the scalars chosen for another fact, of which the same
is asked.

What breaks a fact need not store it: where causal tracing (Meng et al. 2022, arXiv:2202.05262) finds a fact
does not say where editing it works (Hase et al. 2023, arXiv:2301.04213). Both are shown beside each other.
Shapes as in `facts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from minilm.claims.facts import CUE, Facts, find_facts, last_logits, margins
from minilm.claims.intervals import share
from minilm.claims.one_parameter import HARMFUL, differentiable, element, highest
from minilm.claims.protocol import Finding, Interval, Region, Rule
from minilm.claims.structures import Structure, structures_of
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import (
    Blocks,
    Scalar,
    angles_of,
    block_of,
    first_layer,
    replaced,
    scalars_set,
)
from minilm.model.transformer import Transformer
from minilm.progress import progress_bar
from minilm.render.document import Table

CANDIDATES = 10  # of a fact
CHECKED = 200  # scalars that flip a fact, whose other effects are measured
TRACED = 100  # facts
CONCENTRATED = 50  # facts
MOST_JOINT = 14  # 2^14 scalars set to zero together
NOISE = 3.0  # standard deviations of the embeddings, as Meng et al. 2022 take

RULE = Rule(
    name="one-parameter/facts",
    statement="no single parameter encodes a fact",
    statistic="share of known facts that one parameter encodes",
    unit="share",
    supported=Region(0, 0.03),
    contradicted=Region(0),
    least=200,
    units="known facts",
)


@dataclass(frozen=True)
class Flip:
    """A fact whose sign ``scalar`` changes, and how much its margin falls."""

    fact: int
    scalar: Scalar
    fall: float


@dataclass(frozen=True)
class Effects:
    """Of scalars chosen for facts: every flip by one of them, and those that were looked at and encode."""

    flips: list[Flip]
    checked: list[Flip]
    encoding: list[Flip]

    @property
    def flipped(self) -> set[int]:
        """The facts that at least one flips."""
        return {each.fact for each in self.flips}

    @property
    def encoded(self) -> dict[int, Flip]:
        """The facts that at least one encodes, with that which costs the most."""
        return {each.fact: each for each in sorted(self.encoding, key=lambda each: each.fall)}

    @property
    def perhaps(self) -> set[int]:
        """The facts that are encoded, or may be by a scalar that was not looked at."""
        return {*self.encoded, *(each.fact for each in set(self.flips) - set(self.checked))}


def measure(subject: Subject, *, shuffled: bool = False) -> list[Finding]:
    """The finding; with ``shuffled`` answers there is nothing to know, and it cannot be supported."""
    model = subject.model
    facts = find_facts(model, subject.text, subject.random(3), shuffled=shuffled)
    n = len(facts)
    if n < RULE.least:
        return [Finding(RULE, n=n, text=f"The model knows {n} facts of the text.")]
    ranked = [
        _ranked(model, facts.one(number), 2**MOST_JOINT if number < CONCENTRATED else CANDIDATES)
        for number in progress_bar(iterable=range(n), desc="facts, ranking", leave=False)
    ]
    candidates = [each[:CANDIDATES] for each in ranked]
    own = _effects(subject, facts, candidates, "facts")
    null = _effects(subject, facts, [*candidates[1:], candidates[0]], "facts, the null")
    interval, reason = _interval(own, null, n)
    half, of_others = (_median_half(model, facts, ranked, shift) for shift in (0, 1))
    lost = _lost(model, facts.part(slice(TRACED)), structures_of(model, subject.random(5)))
    tracing = _tracing(model, facts.part(slice(TRACED)))
    parameters = sum(p.numel() for p in model.parameters())
    return [
        Finding(
            RULE,
            interval,
            n=n,
            trials=2 * n * CANDIDATES + len({each.scalar for each in own.checked}),
            reason=reason,
            text=(
                f"{n} facts are known. By one of the {CANDIDATES} scalars that matter most to each, "
                f"{len(own.flipped)} flip, and {len(null.flipped)} by those chosen for another "
                f"fact; {len(own.encoded)} and {len(null.encoded)} flip while the others and the loss stay "
                f"as they are. Half of a fact's margin is gone with its {half:,.0f} most important scalars "
                f"(median of {CONCENTRATED}), of {parameters:,}; with as many "
                f"chosen for another fact it takes {_at_least(of_others)}."
            ),
            details={
                "flipped": len(own.flipped),
                "flipped_by_null": len(null.flipped),
                "unchecked": len(own.perhaps) - len(own.encoded),
                "encoded_by_null": len(null.encoded),
                "encoded": [
                    {"fact": each.fact, "parameter": element(each.scalar, model), "fall": each.fall}
                    for _, each in sorted(own.encoded.items())
                ],
                "scalars_of_half": half,
                "scalars_of_half_by_null": of_others,
                "tracing": tracing,
                "lost_with": [
                    {"kind": each.kind, "name": each.name, "share": share_lost}
                    for each, share_lost in lost
                ],
            },
            tables=(_lost_table(lost), _tracing_table(tracing)),
        )
    ]


def _effects(
    subject: Subject, facts: Facts, candidates: list[list[Scalar]], activity: str
) -> Effects:
    """Which facts their candidates flip, and of `CHECKED` of these scalars what else they do.

    Every fact's costliest come first, then every fact's second: one that flips several is looked at once.
    """
    flips = _flips(subject.model, facts, candidates, activity)
    of_fact: dict[int, list[Flip]] = {}
    for flip in sorted(flips, key=lambda flip: -flip.fall):
        of_fact.setdefault(flip.fact, []).append(flip)
    rounds = zip_longest(*of_fact.values())
    scalars = dict.fromkeys(flip.scalar for each in rounds for flip in each if flip is not None)
    base = _margins_in_b(subject.model, facts)
    others = {
        scalar: _others(subject, facts, scalar, base)
        for scalar in progress_bar(
            iterable=list(scalars)[:CHECKED], desc=f"{activity}, others", leave=False
        )
    }
    checked = [flip for flip in flips if flip.scalar in others]
    return Effects(
        flips, checked, [flip for flip in checked if _encodes(flip, *others[flip.scalar])]
    )


def _encodes(flip: Flip, changes: Tensor, loss: float) -> bool:
    """Whether it is this fact alone that the scalar carries: ``changes`` (f,) of all margins."""
    others = torch.cat((changes[: flip.fact], changes[flip.fact + 1 :]))
    return float(others.median()) < flip.fall / 10 and loss < HARMFUL


def _interval(own: Effects, null: Effects, n: int) -> tuple[Interval | None, str]:
    """Of the share of ``n`` facts that are encoded, and why there is none; what is unchecked may be so."""
    encoded = len(own.encoded)
    if encoded and len(null.encoded) >= encoded:
        return None, "the scalars chosen for other facts encode as many"
    return Interval(encoded / n, share(encoded, n).low, share(len(own.perhaps), n).high), ""


def _median_half(model: Transformer, facts: Facts, ranked: list[list[Scalar]], shift: int) -> float:
    """The median of `_half` over facts, each with the scalars of the fact ``shift`` places after it."""
    numbers = range(CONCENTRATED)
    halves = [_half(model, facts.one(i), ranked[(i + shift) % CONCENTRATED]) for i in numbers]
    return float(np.median(halves))


def _at_least(scalars: float) -> str:
    return f"{scalars:,.0f}" + (" or more" if scalars >= 2**MOST_JOINT else "")


def _ranked(model: Transformer, fact: Facts, count: int) -> list[Scalar]:
    """The scalars whose zero costs the margin most in A, to first order."""
    with differentiable(model) as parameters:
        margins(model, fact.a, fact).sum().backward()  # type: ignore[no-untyped-call]
        scores = {name: p.grad * p for name, p in parameters.items() if p.grad is not None}
        return highest({name: score.detach() for name, score in scores.items()}, count)


@torch.inference_mode()
def _flips(
    model: Transformer, facts: Facts, candidates: list[list[Scalar]], activity: str
) -> list[Flip]:
    """Each candidate of a fact that turns its margin, in A and B."""
    flips = []
    for number in progress_bar(iterable=range(len(facts)), desc=activity, leave=False):
        fact = facts.one(number)
        contexts = torch.cat((fact.a[:, None], fact.b), dim=1)  # 1 1+b t
        base = float(margins(model, fact.b, fact))
        if base <= 0:
            continue
        for scalar in candidates[number]:
            with scalars_set(model, [scalar]):
                each = _margin_of_each(model, contexts, fact)
            after = float(each[1:].mean())
            if float(each[0]) < 0 and after < 0:
                flips.append(Flip(number, scalar, base - after))
    return flips


def _margin_of_each(model: Transformer, contexts: Tensor, fact: Facts) -> Tensor:
    """(1, r, t) -> (r,)."""
    logits = last_logits(model, contexts[0])
    return logits[:, int(fact.answers)] - logits[:, int(fact.distractors)]


@torch.inference_mode()
def _margins_in_b(model: Transformer, facts: Facts) -> Tensor:
    return margins(model, facts.b, facts)


@torch.inference_mode()
def _others(subject: Subject, facts: Facts, scalar: Scalar, base: Tensor) -> tuple[Tensor, float]:
    """How much the scalar's zero changes every margin in B, ``base`` (f,), and the loss."""
    model = subject.model
    with scalars_set(model, [scalar]):
        changes = (margins(model, facts.b, facts) - base).abs()
        return changes, float(subject.trials.effect(first_layer(model, scalar.name)).mean())


@torch.inference_mode()
def _half(model: Transformer, fact: Facts, ranked: list[Scalar]) -> int:
    """How many of the scalars, set to zero together, halve the margin in B; in powers of two."""
    base = float(margins(model, fact.b, fact))
    for power in range(MOST_JOINT + 1):
        with scalars_set(model, ranked[: 2**power]):
            if float(margins(model, fact.b, fact)) <= base / 2:
                break
    return int(2**power)


@torch.inference_mode()
def _lost(
    model: Transformer, facts: Facts, structures: Iterable[Structure]
) -> list[tuple[Structure, float]]:
    """The share of the facts whose margin in B turns with each structure at zero, the largest first."""
    rows = []
    for structure in progress_bar(iterable=list(structures), desc="facts, lost", leave=False):
        with replaced(model, structure.change):
            lost = float((margins(model, facts.b, facts) <= 0).float().mean())
        rows.append((structure, lost))
    return sorted(rows, key=lambda row: -row[1])


def _lost_table(lost: list[tuple[Structure, float]]) -> Table:
    """Of each kind the structure with which most are lost, the median and that with the fewest."""
    rows = []
    for kind in dict.fromkeys(structure.kind for structure, _ in lost):
        each = [row for row in lost if row[0].kind == kind]
        places = dict.fromkeys((0, len(each) // 2, len(each) - 1))
        rows += [
            (f"{kind} {structure.name}", f"{structure.parameters:,}", f"{share_lost:.0%}")
            for structure, share_lost in (each[place] for place in places)
        ]
    return table(
        "Facts that are lost with a structure",
        {"structure": "text", "parameters": "number", "facts lost": "number"},
        rows,
    )


@torch.inference_mode()
def _tracing(model: Transformer, facts: Facts) -> list[dict[str, float]]:
    """By layer, how much of the answer's probability comes back with its clean state, at which token.

    The embeddings of the cue are given noise; the states after the layer are restored at one token of it.
    """
    tokens = facts.b[:, 0]  # f t
    generator = torch.Generator().manual_seed(0)
    clean: Tensor = model.embedding(tokens)
    scale = NOISE * float(model.embedding.token.weight.std())
    noisy = clean.clone()
    shape = noisy[:, -CUE:].shape
    noisy[:, -CUE:] += scale * torch.empty(shape).normal_(generator=generator)
    states = _states(model, tokens, clean)
    answered = [
        _probability(model, x, facts) for x in (states[-1], _states(model, tokens, noisy)[-1])
    ]
    lost = answered[0] - answered[1]
    rows = []
    for layer in range(model.config.num_layers):
        row = {"layer": float(layer)}
        for name, place in (("first", -CUE), ("last", -1)):
            x = _states(model, tokens, noisy, (layer, place, states[layer + 1]))[-1]
            row[name] = (_probability(model, x, facts) - answered[1]) / lost if lost > 0 else 0.0
        rows.append(row)
    return rows


def _states(
    model: Transformer, tokens: Tensor, x: Tensor, patch: tuple[int, int, Tensor] | None = None
) -> list[Tensor]:
    """What each layer is given, and last what the final norm is; ``patch``: layer, token, clean states."""
    positions, angles = angles_of(model, Blocks(tokens, tokens))
    states = [x]
    for layer in range(model.config.num_layers):
        x = block_of(model, layer)(x, angles, None, positions)
        if patch is not None and patch[0] == layer:
            x = x.clone()
            x[:, patch[1]] = patch[2][:, patch[1]]
        states.append(x)
    return states


def _probability(model: Transformer, x: Tensor, facts: Facts) -> float:
    logits = model.lm_head(model.final_norm(x[:, -1]))
    return float(logits.softmax(-1).gather(1, facts.answers[:, None]).mean())


def _tracing_table(tracing: list[dict[str, float]]) -> Table:
    return table(
        "Causal tracing: what comes back when a state of the cue is restored",
        {"layer": "number", "first token": "number", "last token": "number"},
        ((f"{row['layer']:.0f}", f"{row['first']:.0%}", f"{row['last']:.0%}") for row in tracing),
    )
