"""python scripts/experiments/federated.py: loss of federated averaging beside training in one place.

Three clients have texts of Python's own library: tables of characters, prose, code. Each run of a small byte
model is a line of scripts/experiments/federated.jsonl; those that are there are not run again. Writes the
table in docs/federate.md. Needs the extra 'federate'; about ten minutes on two cores.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

from minilm.errors import InputError  # noqa: E402
from minilm.federation import flower  # noqa: E402
from minilm.federation.client import client_dataset  # noqa: E402
from minilm.federation.federate import (  # noqa: E402
    averaging_of,
    federate,
    local_training,
    run_rounds,
)
from minilm.federation.server import Rounds  # noqa: E402
from minilm.federation.transport import in_process  # noqa: E402
from minilm.operations.evaluate import evaluate  # noqa: E402
from minilm.training.data_source import DataSource  # noqa: E402
from minilm.training.setup import new_run  # noqa: E402
from minilm.training.signals import StopRequest  # noqa: E402
from minilm.training.train import finetune, train  # noqa: E402
from scripts.experiments.training_page import write_table  # noqa: E402

RESULTS = Path(__file__).with_name("federated.jsonl")
PAGE = ROOT / "docs" / "federate.md"
SEEDS = (0, 1, 2)
KINDS = {
    "tables": "encodings/*.py",
    "prose": "pydoc_data/topics.py",
    "code": "asyncio/*.py",
}
CHARACTERS, DOCUMENT = 360_000, 3_000  # of a kind; of a document
STEPS, BATCH = 200, 8
MODEL = {"context_length": 64, "num_layers": 2, "d_model": 64, "num_heads": 4, "dropout": 0.0}
SETTINGS = {
    "batch_size": BATCH,
    "compile": "off",
    "device": "cpu",
    "dtype": "float32",
    "sample_tokens": 0,
    "early_stopping": 0,
}
SPARE = 0.05  # of a text in one place, which chooses the best weights


@dataclass(frozen=True)
class Texts:
    """The three clients' texts, as one folder, as three files, and dealt at random; one to evaluate on."""

    folder: Path

    @property
    def whole(self) -> str:
        return str(self.folder / "whole")

    @property
    def kinds(self) -> list[str]:
        return [str(self.folder / f"{kind}.jsonl") for kind in KINDS]

    @property
    def alike(self) -> list[str]:
        return [str(self.folder / f"alike-{number}.jsonl") for number in range(len(KINDS))]

    @property
    def validation(self) -> str:
        return str(self.folder / "validation.jsonl")


def write_texts(folder: Path) -> Texts:
    """A tenth of each kind's documents is to evaluate on, the rest is the clients'."""
    texts = Texts(folder)
    choose = random.Random(0)
    clients, validation = [], []
    for kind, pattern in KINDS.items():
        sources = sorted(Path(sysconfig.get_path("stdlib")).glob(pattern))
        text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in sources)
        text = text[:CHARACTERS]
        documents = [text[k : k + DOCUMENT] for k in range(0, len(text), DOCUMENT)]
        choose.shuffle(documents)
        validation += documents[: len(documents) // 10]
        clients.append(documents[len(documents) // 10 :])
        print(f"{kind}: {len(text):,} characters", file=sys.stderr)
    dealt = [document for documents in clients for document in documents]
    choose.shuffle(dealt)
    (folder / "whole").mkdir()
    _write(folder / "whole" / "all.jsonl", dealt)
    _write(Path(texts.validation), validation)
    for number, (kind, documents) in enumerate(zip(texts.kinds, clients, strict=True)):
        _write(Path(kind), documents)
        _write(Path(texts.alike[number]), dealt[number :: len(clients)])
    return texts


def _write(path: Path, documents: Sequence[str]) -> None:
    lines = (json.dumps({"text": document}) + "\n" for document in documents)
    path.write_text("".join(lines), encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """Where a case trains: its texts, a free folder, its seed."""

    texts: Texts
    folder: Path
    seed: int

    @property
    def common(self) -> dict[str, Any]:
        return {
            "run_dir": self.folder / "run",
            "cache": self.texts.folder / "cache",
        }

    def settings(self, **more: Any) -> dict[str, Any]:
        return SETTINGS | {"seed": self.seed} | more


def one_place(batches: int) -> Callable[[Run], None]:
    """All of the text in one place, with so many times a client's batch."""

    def case(run: Run) -> None:
        train(
            data=run.texts.whole,
            tokenizer="byte",
            model=MODEL,
            settings=run.settings(
                batch_size=batches * BATCH, max_steps=STEPS, eval_every=20, val_fraction=SPARE
            ),
            **run.common,
        )

    return case


def federated(texts: str, rounds: int, **options: Any) -> Callable[[Run], None]:
    """Three clients, with so many rounds in the same number of steps."""

    def case(run: Run) -> None:
        federate(
            data=run.texts.validation,
            client=getattr(run.texts, texts),
            rounds=rounds,
            local_steps=STEPS // rounds,
            tokenizer="byte",
            model=MODEL,
            settings=run.settings(val_fraction=0.9),
            **options,
            **run.common,
        )

    return case


def private(noise: float) -> Callable[[Run], None]:
    """Clients alike, with differential privacy; without a limit their updates are 23 to 1 long."""
    return federated("alike", 10, clip_norm=10.0, noise_multiplier=noise)


def alone(run: Run) -> None:
    """One client of the three, without the others."""
    train(
        data=run.texts.kinds[1],
        tokenizer="byte",
        model=MODEL,
        settings=run.settings(max_steps=STEPS, eval_every=20, val_fraction=SPARE),
        **run.common,
    )


def losing_a_client(run: Run) -> None:
    """By kind, and after half of the rounds the prose is gone."""
    flower.quiet()
    plan, stop = Rounds(10, STEPS // 10), StopRequest()
    source = DataSource(run.texts.validation, (), run.common["cache"])
    spec = new_run(
        "nano",
        source=source,
        run_dir=run.common["run_dir"],
        tokenizer="byte",
        vocab_size=None,
        model=MODEL,
        settings=run.settings(max_steps=STEPS, eval_every=20, log_every=20, val_fraction=0.9),
    )
    trainings = []
    for number, name in enumerate(run.texts.kinds):
        text = DataSource(name, (), source.cache)
        dataset = client_dataset(text, spec.dataset.tokenizer, spec.config, spec.model.config)
        trainings.append(local_training(spec, dataset, number, stop))
    lost = trainings[1]
    trains = lost.train

    def train_for_half(arrays: Any, *, step: int, steps: int) -> Any:
        if step >= STEPS // 2:
            raise InputError("a client", "lost", "none is")
        return trains(arrays, step=step, steps=steps)

    lost.train = train_for_half  # type: ignore[method-assign]
    server = in_process(averaging_of(spec, plan), trainings)
    run_rounds(spec, stop, time.monotonic(), server, plan)


def _base(run: Run) -> Path:
    """A model of code alone."""
    base = run.texts.folder / f"base-{run.seed}"
    if not base.exists():
        train(
            data=run.texts.kinds[2],
            tokenizer="byte",
            model=MODEL,
            run_dir=base,
            cache=run.common["cache"],
            settings=run.settings(max_steps=STEPS, eval_every=20, val_fraction=SPARE),
        )
    return base


def adapter_in_one_place(run: Run) -> None:
    """An adapter on a model of code, trained on all of the text."""
    finetune(
        _base(run),
        data=run.texts.whole,
        lora_rank=8,
        settings=run.settings(max_steps=STEPS, eval_every=20, val_fraction=SPARE),
        **run.common,
    )


def adapter_federated(run: Run) -> None:
    """The same of three clients."""
    federate(
        _base(run),
        data=run.texts.validation,
        client=run.texts.kinds,
        rounds=10,
        local_steps=STEPS // 10,
        lora_rank=8,
        settings=run.settings(val_fraction=0.9),
        **run.common,
    )


CASES: Mapping[str, Callable[[Run], None]] = {
    "in one place, a client's batch": one_place(1),
    "in one place, three clients' batch": one_place(3),
    "the client with prose alone": alone,
    "clients alike, 10 rounds": federated("alike", 10),
    "clients by kind, 4 rounds": federated("kinds", 4),
    "clients by kind, 10 rounds": federated("kinds", 10),
    "clients by kind, 40 rounds": federated("kinds", 40),
    "by kind, 10 rounds, prose lost after 5": losing_a_client,
    "adapter on a model of code, in one place": adapter_in_one_place,
    "adapter on it, by kind, 10 rounds": adapter_federated,
    "alike, clipped to 10, no noise": private(0.0),
    "alike, clipped to 10, noise 0.003": private(0.003),
    "alike, clipped to 10, noise 0.03": private(0.03),
    "alike, clipped to 10, noise 0.3": private(0.3),
}


def read_results() -> dict[tuple[str, int], float]:
    """Bits a byte of each case and seed."""
    if not RESULTS.exists():
        return {}
    lines = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return {(line["case"], line["seed"]): line["bits_per_byte"] for line in lines}


def table(results: Mapping[tuple[str, int], float]) -> str:
    """A row for each case: the mean over the seeds, and the span."""
    rows = ["| Training | bits a byte | span of 3 seeds |", "|---|---|---|"]
    for case in CASES:
        values = [results[case, seed] for seed in SEEDS if (case, seed) in results]
        if values:
            mean, span = statistics.mean(values), max(values) - min(values)
            rows.append(f"| {case} | {mean:.3f} | {span:.3f} |")
    return "\n".join(rows) + "\n"


def missing(results: Mapping[tuple[str, int], float]) -> Iterator[tuple[str, int]]:
    """The runs that are not there yet."""
    return ((case, seed) for seed in SEEDS for case in CASES if (case, seed) not in results)


def main() -> int:
    """Run what is missing, then write the table."""
    results = read_results()
    with tempfile.TemporaryDirectory() as folder:
        texts = write_texts(Path(folder))
        for case, seed in missing(dict(results)):
            with tempfile.TemporaryDirectory() as place:
                run = Run(texts, Path(place), seed)
                begin = time.perf_counter()
                CASES[case](run)
                seconds = time.perf_counter() - begin
                loss = evaluate(
                    run.common["run_dir"],
                    texts.validation,
                    dtype="float32",
                    cache=run.common["cache"],
                )
            results[case, seed] = loss.bits_per_byte
            line = {"case": case, "seed": seed, "bits_per_byte": loss.bits_per_byte}
            with RESULTS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line | {"seconds": round(seconds, 1)}) + "\n")
            print(
                f"{case}, seed {seed}: {loss.bits_per_byte:.4f}, {seconds:.0f} s", file=sys.stderr
            )
    write_table("federated", table(results), PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
