"""`generate CHECKPOINT`: text from a trained model, printed as it is made.

Control characters that the model makes up are not sent to the terminal; --json has them all.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from minilm.cli.entry import DONE, parse_arguments, run_command
from minilm.errors import InputError, TokenizerError

if TYPE_CHECKING:
    from minilm.generation.fast_decoder import Decoder
    from minilm.generation.sampling import Sampling
    from minilm.text.tokenizers import Tokenizer

STDIN = "-"
LARGEST_PROMPT = 2**26  # bytes of standard input
COMPILE_FROM = 256  # tokens, on CUDA: fewer are made before the compiler is done


@dataclass(frozen=True)
class Arguments:
    """Text from a trained model."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """The folder of a run."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Text to go on from; empty: as a document begins; -: standard input; given again: several at once."""
    max_new_tokens: int = 200
    """Tokens to make at most, of each text."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities reach p."""
    min_p: float = 0.0
    """Keep tokens at least p times as likely as the likeliest; 0: all."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that are in the text become less likely."""
    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """End a text where this stands in it; may be given again."""
    seed: int = 0
    """Seed of the sampling."""
    no_cache: bool = False
    """Compute the whole text anew for every token: the same tokens, slower."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; auto: bfloat16 where it is fast."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the step of one token; auto: on CUDA, where it becomes a graph, for 256 tokens or more."""
    interactive: bool = False
    """Ask for a prompt again and again, until an empty line."""
    json: bool = False
    """Print a JSON object a text instead of the text."""


def main(arguments: Sequence[str] | None = None, program: str = "generate.py") -> int:
    """Parse, load, generate, print."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _run(parse_arguments(Arguments, given, program)))


def _run(options: Arguments) -> int:
    from minilm.checkpoint import load
    from minilm.generation.fast_decoder import Decoder
    from minilm.generation.generate import check_count
    from minilm.generation.sampling import Sampling
    from minilm.model.device import choose_device, choose_dtype

    check_count(options.max_new_tokens)
    sampling = Sampling(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )
    device = choose_device(options.device)
    model, tokenizer = load(options.checkpoint, device=str(device))
    model.to(choose_dtype(options.dtype, device))
    many = options.max_new_tokens >= COMPILE_FROM
    compiled = options.compile == "on" or (
        options.compile == "auto" and device.type == "cuda" and many
    )
    answer = functools.partial(
        _answer, Decoder(model, compiled=compiled), tokenizer, options, sampling
    )
    if options.interactive:
        if options.prompt:
            raise InputError("--interactive", "a --prompt with it", "one of the two")
        return _converse(answer)
    answer([_read_stdin() if text == STDIN else text for text in options.prompt or ("",)])
    return DONE


def _converse(answer: Callable[[Sequence[str]], None]) -> int:
    """Prompt and answer in turn; Ctrl-C ends an answer, an empty line or Ctrl-D all."""
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  lines can be edited and recalled
    while True:
        try:
            line = input("> " if terminal else "") if sys.stdin is not None else ""
        except EOFError:
            return DONE
        except UnicodeDecodeError as error:
            print(f"error: standard input: byte {error.start} is not UTF-8", file=sys.stderr)
            continue
        if not line:
            return DONE
        try:
            answer([line])
        except TokenizerError as error:  # this text has no tokens; the next may
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt as stopped:
            if getattr(stopped, "signum", None):
                raise
            print(flush=True)


def _answer(
    decoder: Decoder,
    tokenizer: Tokenizer,
    options: Arguments,
    sampling: Sampling,
    prompts: Sequence[str],
) -> None:
    """Print what follows each prompt; how fast it came goes to stderr."""
    from minilm.generation.generate import Generation
    from minilm.generation.text_stream import TextStream
    from minilm.safe_text import running_text

    ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    room = max(map(len, ids)) + options.max_new_tokens + 1
    generation = Generation(
        decoder, tokenizer, ids, sampling, cached=not options.no_cache, room=room
    )
    streams = [TextStream(tokenizer, options.stop, before) for before in ids]
    texts = [""] * len(prompts)
    tokens: list[list[int]] = [[] for _ in prompts]
    shown = len(prompts) == 1 and not options.json  # as it comes: one text alone can be
    if shown:
        sys.stdout.write(running_text(prompts[0]))
    begin, told = time.perf_counter(), False
    for _ in range(options.max_new_tokens):
        made = generation.step()
        for number, token in made.items():
            tokens[number].append(token)
            text = streams[number].add(token)
            texts[number] += text
            if streams[number].stopped:
                generation.stop(number)
            if shown and text:
                sys.stdout.write(running_text(text))
                sys.stdout.flush()
        if generation.slid and not told:
            told = True
            length = decoder.config.context_length
            print(
                f"note: longer than the context of {length} tokens, the older half of which is dropped "
                "each time it is full",
                file=sys.stderr,
            )
        if not generation.open:
            break
    seconds = time.perf_counter() - begin
    for number, stream in enumerate(streams):
        rest = stream.rest()
        texts[number] += rest
        if shown:
            sys.stdout.write(running_text(rest) + "\n")
        elif options.json:
            line = {"prompt": prompts[number], "text": texts[number], "tokens": tokens[number]}
            print(json.dumps(line))
        else:
            print(running_text(prompts[number] + texts[number]))
            if number + 1 < len(prompts):
                print("-" * 80)
    sys.stdout.flush()
    count = sum(map(len, tokens))
    if count:
        print(f"{count} tokens, {count / seconds:.1f} tokens/s", file=sys.stderr)


def _read_stdin() -> str:
    if sys.stdin is None:
        raise InputError("standard input", "closed", "a prompt")
    raw = sys.stdin.buffer.read(LARGEST_PROMPT + 1)
    if len(raw) > LARGEST_PROMPT:
        raise InputError(
            "standard input", "too much of it", f"a prompt of at most {LARGEST_PROMPT} bytes"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError("standard input", f"byte {error.start} is not UTF-8", "UTF-8") from None
