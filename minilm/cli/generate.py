"""`generate CHECKPOINT`: text from a trained model, printed as it is generated.

Control characters in it are not sent to the terminal; --json has them all.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from minilm.cli.conversation import interact
from minilm.cli.entry import (
    DONE,
    naming_options,
    options_of,
    parse_arguments,
    refuse_empty,
    run_command,
)
from minilm.cli.generation_notes import computed_by, note_fallback, note_overflow, print_rate
from minilm.errors import InputError

if TYPE_CHECKING:
    from minilm.generation.decoder import Decoder
    from minilm.generation.sampling import Sampling
    from minilm.text.tokenizers import Tokenizer

STDIN, EXIT = "-", "/exit"
MAX_PROMPT = 2**26  # bytes of standard input
MEMORY_ADVICE = "try --dtype bfloat16, fewer --prompt or --max-new-tokens, or on a GPU --device cpu"


@dataclass(frozen=True)
class Arguments:
    """Text from a trained model."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A run, or what convert imports."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Text to continue; empty: a document from its beginning; -: standard input; may be given again."""
    max_new_tokens: int = 200
    """Tokens to generate at most, for each prompt."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens; 0: all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities reach p."""
    min_p: float = 0.0
    """Keep tokens at least p times as likely as the most likely one; 0: all."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that are in the text already become less likely."""
    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """End a text before this string; may be given again."""
    seed: int = 0
    """Seed of the sampling."""
    no_cache: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compute the whole text again for every token: the same tokens in float32, slower."""
    speculate: int = 0
    """Look at so many tokens in one pass that followed the last ones before: the same text in float32, faster
    where it repeats itself; one prompt only."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto: cuda, else mps, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; auto: the one that is fastest here; on a CPU, below 2M parameters, float32; and float32
    from an output on that is not finite in another."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the step of one token; auto: no, as it was slower wherever it was measured."""
    tune: Literal["auto", "off"] = "auto"
    """On a CPU: measure once which dtype and which products are faster on this processor; off: do not."""
    interactive: bool = False
    """Ask for prompts, until an empty line."""
    chat: bool = False
    """Answer messages as one conversation: each --prompt, or lines until /exit."""
    system: str = ""
    """With --chat: a message before the conversation, about how to answer."""
    chat_template: str = ""
    """With --chat: a file in Jinja, or plain; by default the model's own, else plain."""
    json: bool = False
    """Print a JSON object for each text instead of the text: with its tokens, the dtype of the last ones, and
    what was measured: the way of each product, by shape and rows, and the dtype of attention, by texts."""


def main(arguments: Sequence[str] | None = None, program: str = "generate.py") -> int:
    """Parse, load, generate, print."""
    argv = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_arguments(Arguments, argv, program)
        with naming_options(*options_of(Arguments)):
            return _run(options)

    return run_command(command, memory_advice=MEMORY_ADVICE)


def _run(options: Arguments) -> int:
    import torch

    from minilm.checkpoint import load
    from minilm.generation.decoder import make_decoder
    from minilm.generation.generate import check_count
    from minilm.generation.measured_dtype import fastest_dtype
    from minilm.generation.sampling import Sampling
    from minilm.interop.convert import as_run
    from minilm.model.device import choose_device, choose_generation_dtype

    refuse_empty(options, "CHECKPOINT")
    _check_options(options)
    check_count(options.max_new_tokens)
    check_count(options.speculate, "speculate")
    sampling = Sampling(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )
    device = choose_device(options.device)
    with as_run(Path(options.checkpoint)) as run:
        model, tokenizer = load(run, device=str(device))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        dtype = choose_generation_dtype(options.dtype, device, parameters)
        tune = options.tune == "auto"
        if tune and options.dtype == "auto":
            texts = 1 if options.chat else max(1, len(options.prompt))
            dtype = fastest_dtype(model, dtype, texts)
        make = functools.partial(make_decoder, compiled=options.compile == "on", tune=tune)
        decoder = make(model.to(dtype))

        def in_float32() -> Decoder:
            return make(load(run, device=str(device)).model)

        is_chosen = options.dtype == "auto" and dtype != torch.float32
        fallback = in_float32 if is_chosen else None
        if options.chat:
            return _chat(run, decoder, fallback, tokenizer, options, sampling)

        def answer(prompts: Sequence[str]) -> None:
            nonlocal decoder
            decoder = _answer(decoder, fallback, tokenizer, options, sampling, prompts)

        if options.interactive:
            return interact(lambda line: answer([line]), is_end=lambda line: not line)
        answer(_prompts(options) or [""])
    return DONE


def _check_options(options: Arguments) -> None:
    """Raises InputError for options that do not go together."""
    if options.speculate:
        for name, given in (("--no-cache", options.no_cache), ("--chat", options.chat)):
            if given:
                raise InputError("--speculate", f"a {name} with it", "a cache, and no conversation")
        if len(options.prompt) > 1:
            raise InputError("--speculate", f"{len(options.prompt)} prompts with it", "one")
    if options.interactive:
        for name, value in (("--prompt", options.prompt), ("--chat", options.chat)):
            if value:
                raise InputError("--interactive", f"a {name} with it", "one of the two")
    for name, text in (("--system", options.system), ("--chat-template", options.chat_template)):
        if text and not options.chat:
            raise InputError(name, "no --chat with it", "both")


def _prompts(options: Arguments) -> list[str]:
    return [_read_stdin() if text == STDIN else text for text in options.prompt]


def _chat(
    run: Path,
    decoder: Decoder,
    fallback: Callable[[], Decoder] | None,
    tokenizer: Tokenizer,
    options: Arguments,
    sampling: Sampling,
) -> int:
    from minilm.cli.chat import answer
    from minilm.generation.chat import Chat
    from minilm.text.chat_template import find_template

    messages = _prompts(options)
    if not all(message.strip() for message in messages):
        raise InputError("--prompt", "an empty message", "one to be answered")
    template = find_template(run, options.chat_template)
    chat = Chat(
        decoder,
        tokenizer,
        template,
        sampling,
        system=options.system,
        stops=options.stop,
        max_new_tokens=options.max_new_tokens,
        cached=not options.no_cache,
        fallback=fallback,
    )
    say = functools.partial(answer, chat, as_json=options.json, dtype_option=options.dtype)
    for message in messages:
        say(message)
    if options.prompt:
        return DONE
    return interact(say, is_end=lambda line: line.strip() == EXIT)


def _answer(
    decoder: Decoder,
    fallback: Callable[[], Decoder] | None,
    tokenizer: Tokenizer,
    options: Arguments,
    sampling: Sampling,
    prompts: Sequence[str],
) -> Decoder:
    """Print what follows each prompt; the rate goes to stderr. Returns what the last tokens came from."""
    from minilm.generation.generate import Generation
    from minilm.generation.text_stream import TextStream
    from minilm.safe_text import running_text

    ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    generation = Generation(
        decoder,
        tokenizer,
        ids,
        sampling,
        cached=not options.no_cache,
        max_length=max(map(len, ids)) + options.max_new_tokens + 1,
        speculate=options.speculate,
        fallback=fallback,
    )
    streams = [TextStream(tokenizer, options.stop, prompt_ids) for prompt_ids in ids]
    texts = [""] * len(prompts)
    tokens: list[list[int]] = [[] for _ in prompts]
    streaming = len(prompts) == 1 and not options.json
    if streaming:
        sys.stdout.write(running_text(prompts[0]))
    begin = time.perf_counter()
    try:
        for _ in range(options.max_new_tokens):
            for index, token in generation.step().items():
                tokens[index].append(token)
                text = streams[index].add(token)
                texts[index] += text
                if streams[index].stopped:
                    generation.stop(index)
                if streaming and text:
                    sys.stdout.write(running_text(text))
                    sys.stdout.flush()
            if not generation.unfinished:
                break
    except BaseException:
        if streaming:
            print(flush=True)  # whatever is said next begins a line of its own
        raise
    seconds = time.perf_counter() - begin
    for index, stream in enumerate(streams):
        remainder = stream.flush()
        texts[index] += remainder
        if streaming:
            sys.stdout.write(running_text(remainder) + "\n")
        elif options.json:
            line = {"prompt": prompts[index], "text": texts[index], "tokens": tokens[index]}
            print(json.dumps(line | computed_by(generation.decoder)))
        else:
            print(running_text(prompts[index] + texts[index]))
            if index + 1 < len(prompts):
                print("-" * 80)
    sys.stdout.flush()
    note_fallback(decoder, generation.decoder)
    if generation.context_overflowed:
        note_overflow(decoder.config.context_length)
    count = sum(map(len, tokens))
    if count:
        print_rate(count, seconds, generation.decoder, options.dtype)
    return generation.decoder


def _read_stdin() -> str:
    if sys.stdin is None:
        raise InputError("standard input", "closed", "a prompt")
    raw = sys.stdin.buffer.read(MAX_PROMPT + 1)
    if len(raw) > MAX_PROMPT:
        raise InputError(
            "standard input", "too much of it", f"a prompt of at most {MAX_PROMPT} bytes"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError("standard input", f"byte {error.start} is not UTF-8", "UTF-8") from None
