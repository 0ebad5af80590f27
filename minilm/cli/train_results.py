"""What ends `train` and `finetune`: a sample, the curves and what they say, every parameter."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from minilm.cli.entry import CHECK_FAILED, DONE
from minilm.runs import files as run_files
from minilm.runs.stop_reason import StopReason
from minilm.units import TOKENS_OF_ANSWERS, counted, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from minilm.training.finish import Outcome


SAMPLE_TOKENS = 160  # of the sample


def conclude(outcome: Outcome) -> int:
    """Print how a run ended; the exit status."""
    reason = outcome.stopped_because
    if reason.signum is not None:
        print(f"stopped and saved: --resume --run-dir {outcome.run_dir} continues", file=sys.stderr)
        return 128 + reason.signum
    if reason is StopReason.NON_FINITE_LOSS:
        print(
            f"error: {outcome.run_dir}: the loss is not finite after step "
            f"{outcome.summary['steps']}, expected a number; the weights last saved are kept: start a "
            "new run with a lower --train.learning-rate or a longer --train.warmup-steps, from "
            "scratch or with --init-from this run",
            file=sys.stderr,
        )
        return CHECK_FAILED
    if outcome.report is None:  # another process shows it
        return DONE
    from minilm.cli.console import ResultConsole

    return DONE if show(outcome, ResultConsole()) else CHECK_FAILED


def show(outcome: Outcome, console: Console) -> bool:
    """Print a sample, the curves and what they say, and every parameter; whether it is verified."""
    from minilm.checkpoint import load
    from minilm.model.device import release_free_memory
    from minilm.render.terminal import curve, print_report
    from minilm.runs.history import read_history
    from minilm.safe_text import running_text
    from minilm.training.evaluation import sample

    run_dir, summary, report = outcome.run_dir, outcome.summary, outcome.report
    assert report is not None, "of a run that was not interrupted"
    history = read_history(run_dir)
    gc.collect()  # what training took: the model is loaded again
    release_free_memory()
    if run_files.read_record(run_dir / run_files.CONFIG).train.sample_tokens:
        console.rule("a sample")
        console.print(running_text(sample(*load(run_dir), SAMPLE_TOKENS)), markup=False)
    console.rule("the run")
    of_conversations = summary["data"].get("kind") == "conversations"
    unit = TOKENS_OF_ANSWERS if of_conversations else "tokens"
    console.print(
        f"{counted(summary['steps'], 'step')}, {summary['tokens']:,} tokens in "
        f"{format_seconds(summary['seconds'])}, {summary['tokens_per_second']:,.0f} tokens/s; "
        f"best validation loss {summary['best_val_loss']:.4f}, "
        f"{summary['best_val_bits_per_byte']:.3f} bits a byte, over {summary['best_val_tokens']:,} "
        f"{unit} in {summary['val_dtype']}; "
        f"stopped by {summary['stopped_because']}"
    )
    for name, label in (("train_loss", "training loss  "), ("val_loss", "validation loss")):
        losses = [line[name] for line in history.metrics if name in line]
        if len(losses) > 1:
            console.print(f"{label} {curve(losses)}")
    for finding in history.findings:
        console.print(finding)
    console.rule("every parameter")
    print_report(report, console)
    console.print()
    console.print(
        f"run folder: {run_dir}, and all of this as {run_dir / run_files.REPORT}", markup=False
    )
    return report.verified


def show_finished(outcome: Outcome) -> None:
    """Print the report again, without torch; the run itself is left as it is."""
    from minilm.cli.console import ResultConsole
    from minilm.render.terminal import print_report

    assert outcome.report is not None, "of a run that reached its end"
    print(f"{outcome.run_dir} is finished: {outcome.stopped_because}", file=sys.stderr)
    print_report(outcome.report, ResultConsole())
