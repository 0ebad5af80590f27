"""Claim 4: a model of 70B parameters is 140 GB, and 35 GB at 4 bits.

Bytes are N·b/8, a tied head once: held against the file of the model at hand, and against what it
becomes in 4 bits, with scales and with what is left as it was. That is more than four bits a parameter:
"35 GB" is wrong from 4.2 on. By the ledger, the same of published models, with the KV cache.
"""

from __future__ import annotations

from collections import Counter

from minilm import formats
from minilm.architectures import layout_of
from minilm.architectures.minilm import layout as minilm_layout
from minilm.claims.majority import published_models
from minilm.claims.protocol import Finding, Interval, Region, Rule, not_run
from minilm.claims.subject import Subject
from minilm.claims.tables import table
from minilm.costs.gguf_types import gguf_bytes
from minilm.costs.memory import kv_cache_bytes
from minilm.dtypes import storage_bytes
from minilm.errors import InputError
from minilm.interop.convert import weights_files
from minilm.ledger.layout import Layout
from minilm.quantization.packing import quantized_matrices
from minilm.quantization.packings import make_packing
from minilm.render.document import Table

FILE = Rule(
    name="bytes/file",
    statement="the file has N·b/8 bytes",
    statistic="relative difference of the file's size from N·b/8",
    unit="of N·b/8",
    supported=Region(0, 0.005),
    contradicted=Region(0.05),
)
FOUR_BITS = Rule(
    name="bytes/4-bit",
    statement="in 4 bits it has N/2 bytes",
    statistic="bits a parameter of the file that minilm quantize --format int4 writes",
    unit="bits",
    supported=Region(0, 4.2),
    contradicted=Region(4.2),
)
RULES = (FILE, FOUR_BITS)

LAPTOP = 16 * 10**9  # bytes of memory
CONTEXT = 4096
# Grattafiori et al. 2024 (arXiv:2407.21783), table 3.
LLAMA_405B = {
    "model_type": "llama",
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
    "num_hidden_layers": 126,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
NAMES = ("llama-2-7b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b")
# ggml-org's and bartowski's files of Llama-3.1-70B-Instruct: GB, and bits a parameter.
PUBLISHED = "Llama-3.1-70B as GGUF: Q4_0 40.12 GB, Q4_K_M 42.52, Q8_0 74.98: 4.55, 4.82, 8.50 bits"


def measure(subject: Subject) -> list[Finding]:
    """Both findings, with the published models in the first one."""
    return [_file(subject), _four_bits(subject)]


def _file(subject: Subject) -> Finding:
    if subject.checkpoint is None or (subject.record is not None and subject.record.base):
        return not_run(FILE, "the model has no file of its own")
    try:
        files = weights_files(subject.checkpoint)
        tensors = [t for path in files for t in formats.read_model(path).tensors]
    except (InputError, OSError) as error:
        return not_run(FILE, str(error))
    count = minilm_layout(subject.model.config).count()
    stored = Counter[str]()
    for tensor in tensors:
        stored[tensor.dtype] += tensor.count
    dtype = stored.most_common(1)[0][0]
    expected = storage_bytes(count, dtype)
    size = sum(path.stat().st_size for path in files)
    layouts = _published()
    seventy = layouts["llama-3.1-70b"]
    in_sixteen = storage_bytes(seventy.count(), "bfloat16")
    return Finding(
        FILE,
        Interval.exact(abs(size / expected - 1)),
        n=1,
        text=(
            f"{count:,} parameters in {dtype} are {expected:,} bytes, the file has {size:,}. Llama-3.1-70B "
            f"has {seventy.count():,}: {in_sixteen / 1e9:.1f} GB in 16 bits, where 70 x 2 is 140."
        ),
        details={"parameters": count, "dtype": dtype, "expected": expected, "file": size},
        tables=(_table(layouts),),
    )


def _four_bits(subject: Subject) -> Finding:
    layout = minilm_layout(subject.model.config)
    packing, count = make_packing("int4"), layout.count()
    matrices = quantized_matrices(layout)
    left = count - sum(rows * columns for rows, columns in matrices.values())
    try:
        packing.check(matrices)
    except InputError as error:
        return not_run(FOUR_BITS, str(error))
    packed = sum(
        tensor.nbytes for name, shape in matrices.items() for tensor in packing.tensors(name, shape)
    )
    size = packed + storage_bytes(left, "float32")
    bits = 8 * size / count
    seventy = _published()["llama-3.1-70b"]
    by_type = {
        each: 8 * gguf_bytes(seventy, each) / seventy.count() for each in ("q4_0", "q4_k_m", "q8_0")
    }
    return Finding(
        FOUR_BITS,
        Interval.exact(bits),
        n=1,
        text=(
            f"The matrices take {8 * packed / max(1, count - left):.2f} bits with their scales; {left:,} of "
            f"{count:,} parameters stay in float32. Of Llama-3.1-70B by the ledger: "
            f"{', '.join(f'{name} {each:.2f} bits' for name, each in by_type.items())}; {PUBLISHED}."
        ),
        details={
            "bytes": size,
            "left": left,
            "llama_3_1_70b_bits": by_type,
            "published": PUBLISHED,
        },
    )


def _published() -> dict[str, Layout]:
    models = {**published_models(), "llama-3.1-405b": LLAMA_405B}
    return {name: layout_of(models[name]) for name in NAMES}


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _table(layouts: dict[str, Layout]) -> Table:
    rows = []
    for name, layout in layouts.items():
        four = gguf_bytes(layout, "q4_0")
        cache = kv_cache_bytes(layout, context=CONTEXT, batch=1)["float16"]
        rows.append(
            (
                name,
                f"{layout.count():,}",
                _gigabytes(storage_bytes(layout.count(), "bfloat16")),
                _gigabytes(four),
                f"{8 * four / layout.count():.2f}",
                _gigabytes(cache),
                "yes" if four + cache <= LAPTOP else "no",
            )
        )
    return table(
        f"By the ledger: in 16 bits, as Q4_0, and with a KV cache of {CONTEXT:,} tokens",
        {
            "model": "code",
            "parameters": "number",
            "16 bits": "number",
            "Q4_0": "number",
            "bits": "number",
            "KV cache": "number",
            f"in {_gigabytes(LAPTOP)}": "text",
        },
        rows,
    )
