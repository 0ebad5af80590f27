"""`minilm VERB ...`: the same code as scripts/VERB.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from minilm.cli.entry import run_command
from minilm.errors import InputError
from minilm.version import __version__

VERBS = {
    "train": "train a model on text and leave a run folder",
    "finetune": "train a model further, or an adapter on it",
    "federate": "train a model with clients that keep their texts",
    "inspect": "count every parameter and prove the count",
    "generate": "text from a trained model",
    "convert": "a model for transformers and llama.cpp, or theirs as a run",
    "prune": "a model with fewer weights, heads, units or layers",
    "share": "let the layers of a trained model share blocks, tie or untie its head",
    "quantize": "a model in 8 or 4 bits a weight, and what that changed",
    "evaluate": "loss and perplexity of a model on a text",
    "search": "hyperparameters and a shape for a text, under a budget",
    "claims": "what is said of parameters, tested on a model",
    "plan": "memory, communication, days and cost of a training run on GPUs",
    "architectures": "what is known of each model_type of Hugging Face",
    "cache": "the texts that were encoded, and removing them",
}


def main() -> int:
    """Dispatch on the first argument."""
    arguments = sys.argv[1:]
    while arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if arguments and arguments[0] in VERBS:
        verb = arguments[0]
        run = import_module(f"minilm.cli.{verb}").main
        status: int = run(arguments[1:], f"minilm {verb}")
        return status
    return run_command(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    """What no verb answers."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: minilm VERB ...\n")
        print("\n".join(f"  {verb:<15}{summary}" for verb, summary in VERBS.items()))
        print("\n`minilm help VERB` lists the options of one; `minilm --version`.")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    raise InputError(repr(arguments[0]), "no such verb", ", ".join(VERBS))
