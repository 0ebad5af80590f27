"""python scripts/tools/fuzz.py PARSER --runs N: coverage-guided fuzzing of what reads foreign bytes.

Needs atheris (https://github.com/google/atheris), which is no dependency of the package. A finding is
an exception other than InputError, a second of processor time for one input, a growth of the process
by 200 MB, or a header that the safetensors library refuses; it ends the run with status 1 and leaves the
input in crash-*.
"""

import argparse
import pkgutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

try:
    import atheris
except ModuleNotFoundError:
    print("error: this Python lacks atheris: run pip install atheris", file=sys.stderr)
    raise SystemExit(2) from None

with atheris.instrument_imports(include=["minilm", "pickletools", "zipfile"]):
    from minilm import architectures, quantization
    from scripts.tools.fuzz_findings import reporting_findings
    from scripts.tools.fuzz_targets import TARGETS

    # What is imported only when it is needed must be here now, to be instrumented.
    for package in (architectures, quantization):
        for module in pkgutil.iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")

# Of the shapes that were once met, as libFuzzer writes a dictionary.
WORDS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"2147483648", b"18446744073709551615"),
    *(b"9" * 101, b"[" * 128, b'{"a":' * 128, b"\\ud800", b'"eos_token_id": 257', b"10000"),
    *(b'{"type":"Replace","pattern":{"String":"a"},"content":"aaaa"}', b'{"type":"ByteLevel"}'),
    *(b"general.architecture", b"tokenizer.ggml.tokens.length", b"token_embd.weight", b"lora_a"),
    *(b"blk.0.attn_q.weight", b"llama.attention.head_count", b"split.count", b"general.alignment"),
)


def main() -> int:
    """Fuzz until ``--runs`` inputs passed; libFuzzer prints the progress."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parser", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs to try")
    parser.add_argument(
        "--corpus", type=Path, help="a folder of inputs to begin with and to add to"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or Path(temporary) / "corpus"
        corpus.mkdir(exist_ok=True, parents=True)
        parse, seeds = TARGETS[options.parser](Path(temporary))
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = Path(temporary) / "words"
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS)
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        longest = max(4096, *map(len, seeds))
        flags = [f"-runs={options.runs}", f"-seed={options.seed}", f"-max_len={longest}"]
        flags += ["-timeout=10", f"-dict={words}"]
        atheris.Setup(
            [sys.argv[0], *flags, "-rss_limit_mb=4096", str(corpus)], reporting_findings(parse)
        )
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
