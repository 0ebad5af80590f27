"""A large corpus prepared by processes that are killed, then trained on: time, and memory at its peak.

    python scripts/experiments/large_corpus.py --megabytes 1000 --folder FOLDER

Writes a synthetic corpus of JSON Lines, Parquet and text, kills its preparation when half of it is encoded,
repeats the command, and trains for some steps. Memory is the sum of the proportional set sizes (PSS) of its
processes, which counts a page that they share once, and mapped files as far as they are mapped. Linux only.
"""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import argparse  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

FILE_BYTES = 50_000_000
SECONDS_BETWEEN_READINGS = 0.2
WORDS, SENTENCES = 20_000, 50_000
STEPS = 20
SHARES = (0.5, None)  # of the corpus at which a command is killed; None: it ends by itself


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument(
        "--folder", type=Path, required=True, help="a new one, for corpus and cache"
    )
    parser.add_argument("--vocab-size", type=int, default=1024)
    arguments = parser.parse_args()
    corpus, cache = arguments.folder / "corpus", arguments.folder / "cache"
    num_bytes = write_corpus(corpus, arguments.megabytes * 1_000_000)
    command = [
        sys.executable,
        "-m",
        "minilm",
        "train",
        "--data",
        str(corpus),
        "--max-steps",
        str(STEPS),
    ]
    command += ["--vocab-size", str(arguments.vocab_size), "--train.sample-tokens", "0"]
    # Nearly all of the text is for training.
    command += [
        "--val-fraction",
        "0.002",
        "--train.eval-tokens",
        "65536",
        "--train.document-attention",
        "true",
    ]
    environment = os.environ | {"MINILM_CACHE": str(cache), "MINILM_CACHE_SIZE": "1TB"}
    results = []
    for share in SHARES:
        run_dir = arguments.folder / "run"
        shutil.rmtree(run_dir, ignore_errors=True)
        started = time.monotonic()
        with subprocess.Popen([*command, "--run-dir", str(run_dir)], env=environment) as process:
            peak = watch(process, cache, None if share is None else share * num_bytes)
        results.append(
            {
                "killed_at": share,
                "seconds": round(time.monotonic() - started, 1),
                "peak_pss_mb": round(peak / 1e6, 1),
                "status": process.returncode,
                "encoded_bytes": encoded_bytes(cache),
            }
        )
    print(json.dumps({"bytes": num_bytes, "commands": results}, indent=2))


def write_corpus(folder: Path, num_bytes: int) -> int:
    """Files of documents of 1 to 20 sentences of random words, up to ``num_bytes`` of text in all."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    choose = random.Random(0)
    letters = "etaoinshrdlucmfw"
    words = ["".join(choose.choices(letters, k=choose.randint(2, 9))) for _ in range(WORDS)]
    frequencies = [1 / (rank + 1) for rank in range(WORDS)]
    drawn = choose.choices(words, frequencies, k=SENTENCES * 12)
    sentences = [" ".join(drawn[i : i + 12]).capitalize() + ".\n" for i in range(0, len(drawn), 12)]
    total = number = 0
    while total < num_bytes:
        texts, size = [], 0
        while size < min(FILE_BYTES, num_bytes - total):
            texts.append("".join(choose.choices(sentences, k=choose.randint(1, 20))))
            size += len(texts[-1])
        path = folder / f"part-{number:04}"
        if number % 3 == 0:
            lines = (json.dumps({"text": text}) + "\n" for text in texts)
            path.with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
        elif number % 3 == 1:
            table = pyarrow.table({"text": texts})
            parquet.write_table(table, path.with_suffix(".parquet"), row_group_size=10_000)
        else:
            path.with_suffix(".txt").write_text("<|endoftext|>".join(texts), encoding="utf-8")
        total += size
        number += 1
    return total


def watch(process: subprocess.Popen[bytes], cache: Path, kill_at: float | None) -> int:
    """The largest PSS of the process and its children, in bytes, until it ends or is killed."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(proportional_set_size(number) for number in family(process.pid)))
        if kill_at is not None and encoded_bytes(cache) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(SECONDS_BETWEEN_READINGS)
    return peak


def family(process: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(each for child in children for each in family(int(child)))]


def proportional_set_size(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def encoded_bytes(cache: Path) -> int:
    """Bytes of text in finished files, as the journal says."""
    total = 0
    for path in cache.glob("tokens/*/journal.json"):
        record: dict[str, Any] = json.loads(path.read_bytes())
        total += sum(record["encoded"]["text_bytes"].values())
    return total


if __name__ == "__main__":
    main()
