"""`train`: train a model, then show a sample, what the curves say, and every parameter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minilm.cli.config_options import set_fields
from minilm.cli.entry import DONE, process_started, refuse_empty, run_command
from minilm.cli.preset_list import list_presets
from minilm.cli.train_options import Arguments, beside_resume, continues, parse_options
from minilm.cli.train_results import conclude, show_finished
from minilm.parallel.launcher import is_started_again
from minilm.runs import files as run_files
from minilm.runs.new_folder import default_run_dir
from minilm.training.messages import messages_on_stderr

if TYPE_CHECKING:
    from minilm.training.finish import Outcome

PRESET, DATA = "nano", "stdlib"  # where they are not given
MEMORY_ADVICE = (
    "lower --train.batch-size (and raise --train.gradient-accumulation as much, for the same step, with "
    "--tune off, which merges nothing), set "
    "--train.activation-checkpointing true, or choose a smaller --preset or --model.context-length"
)
RESUMED_MEMORY_ADVICE = (
    "resume with more free memory; a new run may have a lower --train.batch-size"
)
DISK_ADVICE = "free some space, then --resume continues a run that has begun"


def main(arguments: Sequence[str] | None = None, program: str = "train.py") -> int:
    """Parse, train, show. Exit status: 0 done, 1 diverged, 2 bad input, 130/143 stopped and saved."""
    command_line = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_options(command_line, program)
        with messages_on_stderr():
            return _run(options)

    resumes = any(argument.partition("=")[0] == "--resume" for argument in command_line)
    return run_command(
        command,
        memory_advice=RESUMED_MEMORY_ADVICE if resumes else MEMORY_ADVICE,
        when_full=DISK_ADVICE,
    )


def _run(options: Arguments) -> int:
    if options.preset == "list":
        list_presets()
        return DONE
    refuse_empty(options, "--preset", "--data", "--run-dir", "--init-from", "--text-field")
    settings = set_fields(options.train)
    run_dir = None if options.run_dir is None else Path(options.run_dir)
    existing = None
    if options.resume or is_started_again():
        run_dir = run_dir or _default_run_dir(options)  # reads where the text is, or downloads it
    if run_dir is not None and continues(run_dir, options.resume):
        existing = run_dir
    if existing is not None:
        finished = _finished(existing, options, settings)
        if finished is not None:
            show_finished(finished)
            return DONE
    from minilm.training.train import resume, train  # torch: after what needs none

    if existing is not None:
        outcome = resume(
            existing,
            data=options.data,
            options=beside_resume(options),
            settings=settings,
            started=process_started(),
        )
    else:
        outcome = train(
            options.preset or PRESET,
            data=options.data or DATA,
            run_dir=run_dir,
            tokenizer=options.tokenizer,
            vocab_size=options.vocab_size,
            cleaning=options.clean,
            text_field=options.text_field,
            raw_text=options.raw_text,
            dedup=options.dedup,
            init_from=options.init_from,
            model=set_fields(options.model),
            settings=settings,
            started=process_started(),
        )
    return conclude(outcome)


def _finished(run_dir: Path, options: Arguments, settings: dict[str, Any]) -> Outcome | None:
    """The outcome of a run that is at its end, found without torch; None for any other."""
    from minilm.training.finish import finished_run
    from minilm.training.resume_options import changed_settings, is_finished

    if not (run_dir / run_files.CONFIG).is_file():
        return None
    changed = changed_settings(run_dir, beside_resume(options), settings)
    return finished_run(run_dir) if is_finished(run_dir, options.data, changed) else None


def _default_run_dir(options: Arguments) -> Path:
    from minilm.data.cache import default_cache
    from minilm.text.corpora import open_corpus

    corpus = open_corpus(options.data or DATA, cleaning=(), cache=default_cache())
    return default_run_dir(options.preset or PRESET, options.init_from, corpus.name)
