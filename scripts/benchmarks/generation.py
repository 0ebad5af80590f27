"""bench.py generate: minilm, transformers and llama.cpp on the same weights, in turn, in one process.

A model of GPT-2's shape with 14 million random weights is exported; each continues a prompt greedily by 256
tokens, several times. Prints JSON: rates, medians, ratios; how flat the time of a token is; batches.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minilm.cli.entry import OneLineParser
from scripts.benchmarks.process import check_out, torch_machine, write_results

SHAPE: dict[str, Any] = {
    "vocab_size": 8192,
    "context_length": 1024,
    "num_layers": 6,
    "d_model": 384,
    "num_heads": 6,
    "position": "learned",
    "feed_forward": "gelu_tanh",
    "tied_embeddings": True,
}
NEW_TOKENS = 256
PROMPT = list(range(1, 17))
BATCH = 16


def main(arguments: Sequence[str]) -> int:
    """Run all of it, or with --no-peers minilm alone."""
    parser = OneLineParser(prog="bench.py generate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="minilm alone")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        print("error: --repeats: expected at least 1", file=sys.stderr)
        return 2
    if not check_out(options.out):
        return 2
    with tempfile.TemporaryDirectory(prefix="minilm-bench-") as folder:
        results = compare(Path(folder), options.repeats, peers=not options.no_peers)
    write_results(torch_machine() | results, options.out)
    return 0


def compare(folder: Path, repeats: int, *, peers: bool) -> dict[str, Any]:
    """Tokens a second: one text in each precision, a batch; the time of the 10th and the 500th token."""
    import torch

    from minilm.config import ModelConfig
    from minilm.model.transformer import Transformer
    from minilm.quantization.packings import make_packing
    from minilm.transforms.quantize import round_layers

    model = Transformer(ModelConfig(**SHAPE)).eval().requires_grad_(False)
    programs: dict[str, Callable[[], float]] = {
        "minilm": lambda: _minilm_rate(model, 1),
        "minilm_batch": lambda: _minilm_rate(model, BATCH),
    }
    for name in ("float16", "bfloat16", "int8", "int4"):
        short = copy.deepcopy(model)
        if name.startswith("int"):
            round_layers(short, make_packing(name))
        else:
            short.to(getattr(torch, name))
        programs[f"minilm_{name}"] = lambda short=short: _minilm_rate(short, 1)
        if name == "bfloat16":
            programs["minilm_batch_bfloat16"] = lambda short=short: _minilm_rate(short, BATCH)
    if peers:
        programs |= _peers(model, folder)
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for name, run in programs.items():
        run()  # the first of each is warm-up
        print(f"{name}: ready", file=sys.stderr)
    for _ in range(repeats):
        for name, run in programs.items():
            rates[name].append(run())
    early, late = _positions(model)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "rates": rates,
        "medians": {name: statistics.median(each) for name, each in rates.items()},
        "milliseconds": {"10th": early, "500th": late},
        "times_late": late / early,
    }
    # Ratios within a round, as the machine is not equally fast in all of them.
    for name in programs.keys() - {"minilm"}:
        pairs = zip(rates["minilm"], rates[name], strict=True)
        result[f"minilm_to_{name}"] = statistics.median(rate / other for rate, other in pairs)
    for name in ("batch", "batch_bfloat16"):
        pairs = zip(rates[f"minilm_{name}"], rates["minilm"], strict=True)
        result[f"times_{name}"] = statistics.median(many / one for many, one in pairs)
    return result


def _tokenizer() -> Any:
    """As many tokens as the model has, none of which ends a text."""
    from minilm.text.tokenizers import CharTokenizer

    return CharTokenizer([chr(0x4E00 + number) for number in range(SHAPE["vocab_size"])])


def _generation(model: Any, texts: int, max_length: int) -> Any:
    from minilm.generation.fast_decoder import FastDecoder
    from minilm.generation.generate import Generation
    from minilm.generation.sampling import Sampling

    greedy = Sampling(temperature=0)
    decoder, prompts = FastDecoder(model, tune=True), [PROMPT] * texts
    return Generation(decoder, _tokenizer(), prompts, greedy, max_length=max_length)


def _minilm_rate(model: Any, texts: int) -> float:
    generation = _generation(model, texts, len(PROMPT) + NEW_TOKENS)
    begin = time.perf_counter()
    for _ in range(NEW_TOKENS):
        generation.step()
    return texts * NEW_TOKENS / (time.perf_counter() - begin)


def _peers(model: Any, folder: Path) -> dict[str, Callable[[], float]]:
    """transformers and, if it is installed, llama.cpp, on the same weights in float32."""
    from minilm.checkpoint import save_weights
    from minilm.config import TrainConfig
    from minilm.interop.huggingface import export
    from minilm.interop.model_source import open_source
    from minilm.runs import files as run_files
    from minilm.text.tokenizers import ByteTokenizer

    source, out = folder / "run", folder / "exported"
    source.mkdir()
    out.mkdir()
    save_weights(source / run_files.WEIGHTS, model, {})
    run_files.write_record(source, run_files.RunRecord(model.config, TrainConfig()))
    ByteTokenizer().save(source / run_files.TOKENIZER)
    export(open_source(source), out)
    programs = {"transformers": _transformers(out)}
    try:
        import gguf  # noqa: F401
        import llama_cpp  # noqa: F401
    except ImportError:
        print("llama.cpp: not installed, left out", file=sys.stderr)
    else:
        programs["llama.cpp"] = _llama_cpp(source, folder / "model.gguf")
    return programs


def _llama_cpp(source: Path, path: Path) -> Callable[[], float]:
    import llama_cpp
    import torch

    from minilm.interop.gguf import export
    from minilm.interop.model_source import open_source

    export(open_source(source), path, "f32", "bench")
    threads = torch.get_num_threads()
    peer = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=threads, verbose=False)

    def rate() -> float:
        peer.reset()
        peer.eval(PROMPT)
        begin = time.perf_counter()
        for number in range(NEW_TOKENS):  # which tokens they are costs it nothing
            peer.eval([number])
        return NEW_TOKENS / (time.perf_counter() - begin)

    return rate


def _transformers(folder: Path) -> Callable[[], float]:
    import torch
    from transformers import AutoModelForCausalLM

    peer = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = torch.tensor([PROMPT])

    def rate() -> float:
        begin = time.perf_counter()
        tokens = peer.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert tokens.shape[1] == len(PROMPT) + NEW_TOKENS
        return NEW_TOKENS / (time.perf_counter() - begin)

    return rate


def _positions(model: Any) -> tuple[float, float]:
    """Milliseconds of a token around the 10th and around the 500th: medians of 21."""
    generation, seconds = _generation(model, 1, 1024), []
    for _ in range(520):
        begin = time.perf_counter()
        generation.step()
        seconds.append(time.perf_counter() - begin)
    early, late = seconds[1:22], seconds[489:510]
    return 1000 * statistics.median(early), 1000 * statistics.median(late)
