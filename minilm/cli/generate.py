"""`generate CHECKPOINT`: text from a trained model, printed as it is made.

Control characters that the model makes up are not sent to the terminal; --json has them all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from minilm.cli.edge import DONE, guarded, parse_arguments


@dataclass(frozen=True)
class Arguments:
    """Text from a trained model."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """The folder of a run."""
    prompt: str = ""
    """Text to go on from; empty: as a document begins."""
    max_new_tokens: int = 200
    """Tokens to make at most."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities reach p."""
    seed: int = 0
    """Seed of the sampling."""
    json: bool = False
    """Print one JSON object instead of the text."""


def main(arguments: Sequence[str] | None = None, program: str = "generate.py") -> int:
    """Parse, load, generate, print."""
    given = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: _run(parse_arguments(Arguments, given, program)))


def _run(options: Arguments) -> int:
    from minilm.checkpoint import load
    from minilm.generate import generate_tokens
    from minilm.render.terminal import plain_text

    loaded = load(options.checkpoint)
    prompt = [int(token) for token in loaded.tokenizer.encode(options.prompt)]
    stream = generate_tokens(
        loaded,
        prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
    )
    if options.json:
        tokens = list(stream)
        text = loaded.tokenizer.decode(tokens)
        print(json.dumps({"prompt": options.prompt, "text": text, "tokens": tokens}))
        return DONE
    sys.stdout.write(plain_text(options.prompt))
    made: list[int] = []
    written = ""
    for token in stream:
        made.append(token)
        text = loaded.tokenizer.decode(made)
        # A character can span tokens: hold back while its last one is still to come.
        if not text.endswith("\ufffd"):
            sys.stdout.write(plain_text(text[len(written) :]))
            sys.stdout.flush()
            written = text
    text = loaded.tokenizer.decode(made)
    sys.stdout.write(plain_text(text[len(written) :]) + "\n")
    return DONE
