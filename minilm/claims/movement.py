"""Claim 9: training adjusts every parameter a little.

No run saves its start. It is rebuilt: it is a function of the run's config and seed
(`model/initialization.py`). Of a fine-tuned model it is the model that the run began with. A run records the
SHA-256 of its start, by which another is refused. Of one that recorded none, what is rebuilt is held against
the trained weights: most matrices have far more in common with their own start than with another, gains of
norms none, as they begin at one whatever the seed, and stay near it. *Every*: the share
that moved by more than half a step of the dtype that it is stored in. *Little*: ‖dW‖/‖W0‖ of the matrices.
Weight decay moves what learns nothing; without it, as embeddings are trained, a token that the text does
not have keeps its row. Shapes: W (o, i), N elements, d = W - W0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minilm.checkpoint import load
from minilm.claims.protocol import Finding, Interval, Region, Rule, not_run
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.errors import InputError
from minilm.formats.safetensors import read_header
from minilm.model.digest import parameters_sha256
from minilm.model.transformer import Transformer
from minilm.render.document import Table
from minilm.render.line_chart import LineChart, line_chart
from minilm.runs import files as run_files
from minilm.runs.files import RunRecord

EVERY = Rule(
    name="movement/every",
    statement="training moves every parameter",
    statistic="share of the parameters that moved by more than half a step of their dtype, counted",
    unit="share",
    supported=Region(0.99, 1),
    contradicted=Region(high=0.99),
)
LITTLE = Rule(
    name="movement/little",
    statement="training moves the matrices a little",
    statistic="median over the matrices of ‖dW‖/‖W0‖, those that began at zero left out",
    unit="of the start's norm",
    supported=Region(0, 0.1),
    contradicted=Region(0.5),
)
RULES = (EVERY, LITTLE)

CERTAIN = 6.0  # standard deviations of a cosine between tensors that are independent
# Half a step, relative to the number, of what is not float32.
HALF_STEPS = {"bfloat16": 2.0**-9, "float16": 2.0**-12}
LARGEST = 2**22  # elements of a matrix whose singular values are computed


@dataclass(frozen=True)
class Movement:
    """How far a tensor of ``count`` elements moved: how many did, ‖d‖, ‖W0‖, and how evenly.

    ``evenness`` is (Σd²)²/(NΣd⁴), a third for a Gaussian d; ``largest`` and ``rank`` are the largest singular
    value and ‖W‖²/σ² before and after.
    """

    name: str
    count: int
    moved: int
    distance: float
    start: float
    cosine: float
    evenness: float
    largest: tuple[float, float] | None
    rank: tuple[float, float] | None
    is_matrix: bool

    @property
    def ratio(self) -> float | None:
        return self.distance / self.start if self.start > 0 else None


def measure(subject: Subject) -> list[Finding]:
    """Both findings, or why there is no start to compare with."""
    try:
        start, of, is_own = _start(subject)
    except InputError as error:
        return [not_run(rule, str(error)) for rule in RULES]
    dtype = "float32"
    if subject.run is not None and (path := subject.run / run_files.WEIGHTS).is_file():
        dtype = read_header(path).tensors[0].dtype
    return compare(start, subject.model, of, dtype, is_own=is_own)


def compare(
    start: nn.Module, model: nn.Module, of: str, dtype: str = "float32", *, is_own: bool = False
) -> list[Finding]:
    """The findings of two models with the same parameters, the first of which may only seem to be the start.

    Unless it ``is_own``, more than half of the matrices must have something in common with it.
    """
    before = dict(start.named_parameters())
    movements = [
        movement(name, before[name].detach(), after.detach(), dtype)
        for name, after in model.named_parameters()
    ]
    drawn = [m for m in movements if m.is_matrix and m.start > 0]
    akin = sum(abs(m.cosine) * math.sqrt(m.count) > CERTAIN for m in drawn)
    if not is_own and 2 * akin <= len(drawn):
        common = f"{akin} of {len(drawn)} matrices have anything in common with {of}"
        reason = f"{common}: it is not this run's start"
        return [not_run(rule, reason) for rule in RULES]
    total, moved = sum(m.count for m in movements), sum(m.moved for m in movements)
    ratios = [m.ratio for m in movements if m.is_matrix and m.ratio is not None]
    from_zero = sum(m.is_matrix and m.ratio is None for m in movements)
    still = [m for m in movements if m.moved < m.count]
    still.sort(key=lambda m: m.moved - m.count)
    never = ", ".join(f"{m.name} {m.count - m.moved:,}" for m in still[:3])
    return [
        Finding(
            EVERY,
            Interval.exact(moved / total),
            n=total,
            text=(
                f"Compared with {of}: {total - moved:,} of {total:,} parameters are where they were"
                + (f" ({never})." if never else ".")
            ),
            details={"start": of, "start_sha256": parameters_sha256(start), "dtype": dtype}
            | {"is_own": is_own, "moved": moved, "total": total},
        ),
        Finding(
            LITTLE,
            Interval.exact(float(np.median(ratios))) if ratios else None,
            n=len(ratios),
            reason="" if ratios else "every matrix began at zero",
            text=f"{len(ratios)} matrices; {from_zero} more began at zero, which any step leaves.",
            details={"tensors": [_values(each) for each in movements]},
            tables=(_table(movements),),
            charts=_charts(movements),
        ),
    ]


def movement(name: str, before: Tensor, after: Tensor, dtype: str) -> Movement:
    """Of one tensor."""
    w0, w = before.double(), after.double()
    d = w - w0
    if dtype in HALF_STEPS:
        half_step = w0.abs() * HALF_STEPS[dtype]
    else:
        half_step = torch.from_numpy(np.spacing(np.abs(before.float().numpy())).astype(float)) / 2
    squares = d.square()
    norms = float(w0.norm()), float(w.norm())
    fourth = float(squares.square().sum())
    largest = rank = None
    if before.ndim == 2 and before.numel() <= LARGEST:
        top = tuple(float(torch.linalg.matrix_norm(each, 2)) for each in (w0, w))
        largest = top[0], top[1]
        rank = tuple((n / t) ** 2 if t else 0.0 for n, t in zip(norms, top, strict=True))
    return Movement(
        name=name,
        count=before.numel(),
        moved=int((d.abs() > half_step).sum()),
        distance=float(d.norm()),
        start=norms[0],
        cosine=float((w0 * w).sum()) / (norms[0] * norms[1]) if norms[0] * norms[1] else 0.0,
        evenness=float(squares.sum()) ** 2 / (before.numel() * fourth) if fourth else 0.0,
        largest=largest,
        rank=None if rank is None else (rank[0], rank[1]),
        is_matrix=before.ndim == 2,
    )


def _start(subject: Subject) -> tuple[Transformer, str, bool]:
    """The model before training, what it is, and whether that was verified.

    Raises InputError where it is not known, or is not what the run recorded.
    """
    record, run = subject.record, subject.run
    if record is None or run is None:
        raise InputError("the model", "no run", "one, which has a start")
    where = subject.checkpoint or run  # an imported model is a run in a temporary folder
    if record.base or record.transforms or record.quantization:
        raise InputError(where, "transformed weights", "those that training left")
    if not run_files.last_summary(run).get("steps") and not _has_step(run):
        raise InputError(where, "no training of minilm", "a run that minilm trained")
    start, of = _claimed_start(record, run, where)
    recorded = record.start.get("sha256")
    if recorded and recorded != (got := parameters_sha256(start)):
        raise InputError(
            where, f"{of}, with SHA-256 {got[:12]}", f"that of the run, {str(recorded)[:12]}"
        )
    return start, of, bool(recorded)


def _has_step(run: Path) -> bool:
    """Whether the weights are of a step: a run that was killed has no summary."""
    path = run / run_files.WEIGHTS
    return path.is_file() and read_header(path).metadata.get("step", "0") != "0"


def _claimed_start(record: RunRecord, run: Path, where: Path) -> tuple[Transformer, str]:
    """The start by what the record says."""
    began = record.began_with.get("init_from")
    if not began:
        return rebuilt_start(record), f"the start of seed {record.train.seed}, rebuilt"
    base = next((each for each in (Path(str(began)), run / str(began)) if each.is_dir()), None)
    if base is None:
        raise InputError(where, f"fine-tuned from {began}, which is not there", "its start")
    return load(base).model, f"{began}, which it was fine-tuned from"


def rebuilt_start(record: RunRecord) -> Transformer:
    """What the run of that record began with."""
    return Transformer(record.model, torch.Generator().manual_seed(record.train.seed))


def _charts(movements: list[Movement]) -> tuple[LineChart, ...]:
    """How far each matrix of the blocks moved, by layer; none where no two points are."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for each in movements:
        parts = each.name.split(".")
        if each.is_matrix and each.ratio is not None and parts[0] == "blocks":
            name = ".".join(parts[2:]).removesuffix(".weight")
            lines.setdefault(name, []).append((int(parts[1]) + 1, each.ratio))
    if not lines:
        return ()
    return (line_chart("‖dW‖/‖W0‖ by block", "block, from 1", lines),)


def _values(movement: Movement) -> dict[str, object]:
    return {
        "name": movement.name,
        "count": movement.count,
        "moved": movement.moved,
        "ratio": movement.ratio,
        "evenness": movement.evenness,
        "largest_singular_value": movement.largest,
        "stable_rank": movement.rank,
    }


def _table(movements: list[Movement]) -> Table:
    rows = [
        (
            each.name,
            "from 0" if each.ratio is None else f"{each.ratio:.2f}",
            f"{each.evenness:.2f}",
            f"{each.count - each.moved:,}",
            "" if each.rank is None else f"{each.rank[0]:.1f} to {each.rank[1]:.1f}",
            "" if each.largest is None else f"{each.largest[0]:.2f} to {each.largest[1]:.2f}",
        )
        for each in movements
        if each.is_matrix
    ]
    return table(
        "How far the matrices moved",
        {
            "matrix": "code",
            "‖dW‖/‖W0‖": "number",
            "evenness": "number",
            "unmoved": "number",
            "stable rank": "number",
            "largest singular value": "number",
        },
        rows,
    )
