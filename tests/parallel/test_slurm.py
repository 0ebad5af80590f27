"""examples/train.sbatch, with commands that stand for Slurm's and for torchrun."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minilm.cli.train_options import parse_options
from tests.conftest import ROOT

COMMANDS = {
    "scontrol": """#!/bin/sh
if [ "$1" = requeue ]; then echo "again: $2"; else echo first; seq 100000; fi
""",
    # As Slurm's _srun_signal_mgr: a SIGTERM to it kills its tasks.
    "srun": """#!/bin/bash
[ "$1" = --cpu-bind=none ] && shift
"$@" &
task=$!
echo $task > task
trap 'echo forcing job termination; kill -KILL $task' TERM
wait $task || wait $task
""",
    "scancel": '#!/bin/sh\n[ "$*" = "--signal=TERM 7.0" ] && kill -TERM "$(cat task)"',
    # Its arguments go into a file once it can be stopped, as it then says.
    "torchrun": f"""#!{sys.executable}
import os, pathlib, signal, sys
def stop(signum, frame):
    print("stopped after", os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("part").write_text("\\n".join(sys.argv[1:]))
pathlib.Path("part").rename("arguments")
signal.pause()
""",
}
VARIABLES = {"NNODES": "2", "JOB_NODELIST": "n[1-2]", "JOB_ID": "7", "GPUS_ON_NODE": "8"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGTERM, ""), (signal.SIGUSR1, "again: 7\n")],  # a cancelled job is not started again
)
def test_the_script_starts_training_and_passes_the_end_of_its_time_on(
    number: signal.Signals, said: str, tmp_path: Path
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    variables = {f"SLURM_{name}": value for name, value in VARIABLES.items()}
    variables |= {"SLURM_SUBMIT_DIR": str(tmp_path), "PATH": f"{commands}:{os.environ['PATH']}"}
    script = ROOT / "examples" / "train.sbatch"
    process = subprocess.Popen(
        ["bash", str(script), "--data", "my.txt", "--preset=gpt2"],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "arguments").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert output == f"stopped after 100\n{said}"
    assert process.returncode == 3
    arguments = (tmp_path / "arguments").read_text().splitlines()
    trained = arguments.index("scripts/train.py")
    launched = dict(zip(arguments[:trained:2], arguments[1:trained:2], strict=True))
    assert launched["--nnodes"] == "2"
    assert launched["--nproc-per-node"] == "8"
    assert launched["--rdzv-endpoint"] == "first:29500"
    options = parse_options(arguments[trained + 1 :], "train.py")
    assert (options.data, options.preset, options.resume) == ("my.txt", "gpt2", "auto")
    assert (options.train.parallel, str(options.run_dir)) == ("hsdp", "checkpoints/job-7")
