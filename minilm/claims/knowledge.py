"""Claim 2: knowledge sits in the matrices of attention and feed-forward.

The model is given facts that it cannot know, cues of random tokens with random answers, and trained on
them. How many bits of them each class of parameters holds is asked twice. *Necessity*: a class is set
back to what it was before; its Shapley value over all subsets of the classes shares the bits out
(Shapley 1953). *Sufficiency*: that class alone is trained. Facts are in bits above chance, at most log2
V each. That norms at zero break a model says nothing of what they know: what the loss rises by where a
component is set to zero, or drawn anew, stands beside, without a verdict. Shapes: f facts of a cue of t
tokens.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from minilm.claims.cells import OVER_BUDGET, Cells, Numbers, train
from minilm.claims.facts import last_logits
from minilm.claims.intervals import student
from minilm.claims.protocol import Finding, Region, Rule, not_run
from minilm.claims.structures import components_of, drawn_anew, rises_of
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.claims.trials import replaced
from minilm.model.transformer import Transformer
from minilm.progress import progress_bar
from minilm.render.document import Table
from minilm.render.line_chart import log_chart

FACTS, CUE, STEPS, SEEDS = 200, 3, 60, 6
RATES = (1e-3, 3e-3, 1e-2)
CHOOSING = 1000  # the set of facts that rates are chosen with
CLASSES = ("attention", "feed-forward", "embeddings", "norms and biases")
MATRICES = CLASSES[:2]

NECESSITY = Rule(
    name="knowledge/necessity",
    statement="facts that are learned sit in the matrices",
    statistic="Shapley share of attention and feed-forward matrices in the bits of new facts",
    unit="of the bits",
    supported=Region(low=0.8),
    contradicted=Region(high=0.5),
    least=SEEDS,
    units="seeds",
    margin=0.15,
)
SUFFICIENCY = Rule(
    name="knowledge/sufficiency",
    statement="no other class alone stores half of what the matrices do",
    statistic="bits by the other class that stores most alone, of those by the matrices alone",
    unit="of the bits",
    supported=Region(high=0.5),
    contradicted=Region(0.5),
    least=SEEDS,
    units="seeds",
    margin=0.5,
)
RULES = (NECESSITY, SUFFICIENCY)
PUBLISHED = (
    "about 2 bits a parameter (Allen-Zhu and Li 2024, arXiv:2404.05405); embeddings alone learn modular "
    "addition (arXiv:2410.04368)"
)


def measure(subject: Subject, cells: Cells) -> list[Finding]:
    """Both findings, of `SEEDS` seeds; the rates are chosen on the facts of another one."""
    chosen: dict[str, float] = {}
    for name, classes in _arms().items():
        bits = {
            rate: cells.get(
                {**_settings(), "arm": name, "rate": rate, "seed": -1},
                partial(_of_rate, subject, classes, rate),
            )
            for rate in RATES
        }
        if any(each is None for each in bits.values()):
            return _unfinished()
        chosen[name] = max(RATES, key=lambda rate: (bits[rate] or {})["bits"])
    rows: list[Numbers] = []
    for seed in progress_bar(iterable=range(SEEDS), desc="facts that are new", leave=False):
        row = cells.get(
            {**_settings(), "rates": chosen, "seed": seed},
            partial(_of_seed, subject, chosen, seed),
        )
        if row is None:
            return _unfinished()
        rows.append(row)
    return _findings(subject, rows)


def _settings() -> dict[str, Any]:
    """What the numbers of a cell depend on beside its arm and seed."""
    return {"claim": "knowledge", "facts": FACTS, "cue": CUE, "steps": STEPS}


def _arms() -> dict[str, tuple[str, ...]]:
    """What is trained: everything, the matrices, and each class alone."""
    return {"all": CLASSES, "matrices": MATRICES} | {name: (name,) for name in CLASSES}


def _of_rate(subject: Subject, classes: tuple[str, ...], rate: float) -> Numbers:
    """Of the facts of another seed than those of the test."""
    return {"bits": trained_bits(subject.model, classes, rate, CHOOSING, subject.seed)[0]}


def _of_seed(subject: Subject, rates: Mapping[str, float], seed: int) -> Numbers:
    numbers: Numbers = {}
    for name, classes in _arms().items():
        bits, trained, facts = trained_bits(subject.model, classes, rates[name], seed, subject.seed)
        numbers[f"alone: {name}"] = bits
        if name == "all":
            shares = shapley(subject.model, trained, facts)
            numbers |= {f"share: {each}": share for each, share in shares.items()}
    return numbers


def trained_bits(
    start: Transformer, classes: Iterable[str], rate: float, number: int, seed: int
) -> tuple[float, Transformer, tuple[Tensor, Tensor]]:
    """Bits of a set of facts after ``classes`` alone were trained on them; the model; the facts."""
    facts = new_facts(start.config.vocab_size, number, seed)
    model = copy.deepcopy(start)
    by_class = classes_of(model)
    trained = [model.get_parameter(name) for each in classes for name in by_class[each]]
    if trained:
        train(
            model,
            lambda _: F.cross_entropy(last_logits(model, facts[0]), facts[1]),
            steps=STEPS,
            learning_rate=rate,
            parameters=trained,
        )
    return bits_of(model, facts), model, facts


def new_facts(vocab_size: int, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cues (f, t) and answers (f,), at random: the set ``number`` of those of a ``seed``."""
    random = np.random.default_rng([number, 2, seed])
    cues = torch.from_numpy(random.integers(0, vocab_size, (FACTS, CUE)))
    return cues, torch.from_numpy(random.integers(0, vocab_size, FACTS))


@torch.inference_mode()
def bits_of(model: Transformer, facts: tuple[Tensor, Tensor]) -> float:
    """The mean bits above chance that the model has of an answer."""
    logarithms = last_logits(model, facts[0]).log_softmax(-1).gather(1, facts[1][:, None])
    bits = logarithms / math.log(2) + math.log2(model.config.vocab_size)
    return float(bits.clamp(min=0).mean())


def classes_of(model: Transformer) -> dict[str, list[str]]:
    """The names of the parameters of each class."""
    by_class: dict[str, list[str]] = {name: [] for name in CLASSES}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ".attention." in name:
            by_class["attention"].append(name)
        elif parameter.ndim == 2 and ".feed_forward." in name:
            by_class["feed-forward"].append(name)
        elif name.startswith(("embedding.", "lm_head.")):
            by_class["embeddings"].append(name)
        else:
            by_class["norms and biases"].append(name)
    return by_class


def shapley(start: Transformer, end: Transformer, facts: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The share of each class in the bits that ``end`` has more than ``start``, over all 16 subsets."""
    by_class, model = classes_of(start), copy.deepcopy(start)
    values: dict[frozenset[str], float] = {}
    for size in range(len(CLASSES) + 1):
        for subset in itertools.combinations(CLASSES, size):
            changed = {
                name: end.get_parameter(name).detach() for each in subset for name in by_class[each]
            }
            with replaced(model, changed):
                values[frozenset(subset)] = bits_of(model, facts)
    n, total = len(CLASSES), values[frozenset(CLASSES)] - values[frozenset()]
    shares = {}
    for name in CLASSES:
        others = [subset for subset in values if name not in subset]
        shares[name] = sum(
            math.factorial(len(s))
            * math.factorial(n - len(s) - 1)
            / math.factorial(n)
            * (values[s | {name}] - values[s])
            for s in others
        ) / (total or 1.0)
    return shares


def _findings(subject: Subject, rows: list[Numbers]) -> list[Finding]:
    by_class = classes_of(subject.model)
    counts = {
        each: sum(subject.model.get_parameter(name).numel() for name in names)
        for each, names in by_class.items()
    }
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return [
        _necessity(subject, rows, counts, mean),
        _sufficiency(rows, mean),
    ]


def _necessity(
    subject: Subject, rows: list[Numbers], counts: dict[str, int], mean: Numbers
) -> Finding:
    a_parameter = {each: FACTS * mean[f"alone: {each}"] / max(1, counts[each]) for each in CLASSES}
    points = {each: [(counts[each], bits)] for each, bits in a_parameter.items()}
    chart = log_chart("bits a parameter, trained alone", "parameters of the class", points)
    components, rises = _component_rises(subject)
    return Finding(
        NECESSITY,
        student(np.array([sum(row[f"share: {each}"] for each in MATRICES) for row in rows])),
        n=len(rows),
        trials=16 * len(rows),
        text=(
            f"{FACTS} facts a seed; trained as a whole the model holds {mean['alone: all']:.2f} bits of "
            f"each, of {math.log2(subject.model.config.vocab_size):.0f}. Published: {PUBLISHED}."
        ),
        details={"seeds": rows, "parameters": counts, "components": components},
        tables=(
            table(
                "Bits of a fact by class",
                {
                    "class": "text",
                    "parameters": "number",
                    "Shapley share": "number",
                    "trained alone": "number",
                    "bits a parameter": "number",
                },
                (
                    (
                        each,
                        f"{counts[each]:,}",
                        f"{mean[f'share: {each}']:.1%}",
                        f"{mean[f'alone: {each}']:.2f}",
                        f"{a_parameter[each]:.2g}",
                    )
                    for each in CLASSES
                ),
            ),
            rises,
        ),
        charts=() if chart is None else (chart,),
    )


def _component_rises(subject: Subject) -> tuple[list[dict[str, Any]], Table]:
    """What the loss rises by without each component, and with it as a new model has it."""
    components = list(components_of(subject.model))
    changes = {
        "zero": [each.change for each in components],
        "drawn anew": [drawn_anew(subject.model, each, subject.seed + 1) for each in components],
    }
    zero, anew = (rises_of(subject, each, f"components, {name}") for name, each in changes.items())
    rows = list(zip(components, zero, anew, strict=True))
    return [
        {"name": each.name, "parameters": each.parameters}
        | {"zero": at_zero.estimate, "drawn_anew": new.estimate}
        for each, at_zero, new in rows
    ], table(
        "The rise of the loss without a component, and with it as a new model has it",
        {
            "component": "text",
            "parameters": "number",
            "nats at zero": "number",
            "nats drawn anew": "number",
            "nats a million, drawn anew": "number",
        },
        (
            (
                each.name,
                f"{each.parameters:,}",
                f"{at_zero.estimate:.4f}",
                f"{new.estimate:.4f}",
                f"{1e6 * new.estimate / each.parameters:.3g}",
            )
            for each, at_zero, new in rows
        ),
    )


def _sufficiency(rows: list[Numbers], mean: Numbers) -> Finding:
    others = [each for each in CLASSES if each not in MATRICES]
    most = max(others, key=lambda each: mean[f"alone: {each}"])
    learn = all(row["alone: matrices"] > 0 for row in rows)
    ratio = [row[f"alone: {most}"] / row["alone: matrices"] for row in rows] if learn else []
    return Finding(
        SUFFICIENCY,
        student(np.array(ratio)) if learn else None,
        n=len(rows),
        reason="" if learn else "the matrices alone learn nothing",
        trials=6 * len(rows),
        text=f"Most beside the matrices is stored by {most} alone.",
        details={"class": most},
    )


def _unfinished() -> list[Finding]:
    return [not_run(rule, OVER_BUDGET) for rule in RULES]
