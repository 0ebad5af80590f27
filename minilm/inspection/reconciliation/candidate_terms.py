"""The terms by which published counts differ from the exact one: what is added or left out.

Each follows from the layout's polynomials or from the report's counts; none is a fitted number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from minilm.architectures.ignored_weights import SHARING
from minilm.inspection.names import is_embedding
from minilm.inspection.reconciliation.explanation import (
    EVERYTHING,
    ONE_COMPONENT,
    OTHER_FILE,
    OTHER_SIZE,
    Term,
)
from minilm.inspection.report import Report
from minilm.ledger import components
from minilm.ledger.layout import Layout, Role, Tensor
from minilm.ledger.symbols import ASCII, ONE, ZERO, format_polynomial

# Vocabularies that published counts were made with, and whose they are.
VOCABULARIES = {
    30522: "BERT's",
    32000: "Llama's",
    32001: "Llama's and a padding token",
    32064: "Phi-3's",
    32768: "Mistral 0.3's",
    40478: "GPT-1's",
    49152: "StarCoder's",
    50254: "GPT-NeoX's without extra tokens",
    50257: "GPT-2's",
    50265: "BART's and OPT's tokenizer's",
    50272: "OPT's",
    50277: "GPT-NeoX's",
    50280: "GPT-NeoX's padded to 8",
    50304: "GPT-2's padded to 64",
    50400: "GPT-J's",
    50432: "GPT-NeoX's padded to 256",
    50688: "GPT-NeoX's padded to 512",
    51200: "GPT-2's padded to 1024",
    65024: "Falcon's",
    100277: "cl100k's",
    100352: "cl100k's padded",
    102400: "DeepSeek's",
    128000: "Llama 3's without special tokens",
    128256: "Llama 3's",
    129280: "DeepSeek-V3's",
    151643: "Qwen's without special tokens",
    151646: "Qwen 2's tokenizer's",
    151669: "Qwen 3's tokenizer's",
    151936: "Qwen's padded",
    152064: "Qwen's padded further",
    200064: "Phi-4-mini's",
    201088: "gpt-oss's",
    250680: "BLOOM's without padding",
    250880: "BLOOM's",
    256000: "Gemma's",
    262144: "Gemma 3's",
    262208: "Gemma 3's with images",
}
PADDED_TO = (8, 64, 128, 256, 512, 1024)
CONTEXTS = (512, 1024, 2048, 4096, 8192)


def candidate_terms(
    report: Report, layout: Layout | None, copies: Sequence[Term] = ()
) -> tuple[Term, ...]:
    """Every term that could explain a difference from ``report.parameters.total``; likely ones first.

    ``copies`` are those that the target's values show: a head that is a copy of the token table is not a
    table that was left out, so that terms of the same count are dropped.
    """
    known = {term.count for term in copies}
    declared = list(declared_terms(report, layout)) if layout is not None else []
    counts = {term.count for term in declared}
    reported = [term for term in _reported_terms(report) if term.count not in counts]
    counts |= {term.count for term in reported}
    total = report.parameters.total
    conventions = [
        Term(f"the count called {c.name!r}", c.count - total, c.meaning, (EVERYTHING,))
        for c in report.conventions
        if c.count - total not in counts
    ]
    others = (*declared, *reported, *conventions)
    # A term that leaves nothing, or less, gives no count of this model. Of two terms of one count for the
    # same tensors, the first gives the name.
    distinct: dict[tuple[int, tuple[str, ...]], Term] = {}
    for term in (*copies, *(term for term in others if term.count not in known)):
        if term.count and total + term.count > 0:
            distinct.setdefault((term.count, term.touches), term)
    return tuple(distinct.values())


def copy_terms(report: Report, copies: Iterable[tuple[str, str]]) -> list[Term]:
    """A head with the values of the token table, which the report counts although it may be tied to it."""
    tied = {name for name, _ in report.tied}
    sizes = {row.name: row.count for row in report.tensors}
    return [
        Term(f"{head} is a copy of {table}, counted once", -sizes[head], "its size", (head,))
        for head, table in copies
        if head not in tied and head in sizes
    ]


def declared_terms(report: Report, layout: Layout) -> Iterator[Term]:
    """The terms that follow from the declaration."""
    yield from _stored_terms(report, layout)
    yield from _resized_terms(layout)
    yield from _omission_terms(layout)


def vocabulary_terms(layout: Layout) -> Iterator[tuple[int, Term]]:
    """For each other vocabulary, padded or well-known: its additional token rows, and their term."""
    rows = layout.symbols.get("V", 0)
    affected = _names(t for t in layout.tensors if _depends_on(t, "V"))
    if not affected:
        return
    one_more = replace(layout, symbols={**layout.symbols, "V": rows + 1})
    width = one_more.count() - layout.count()
    sizes = {
        -(-rows // multiple) * multiple: f"padded to a multiple of {multiple}"
        for multiple in reversed(PADDED_TO)
    }
    for size, whose in {**VOCABULARIES, **sizes}.items():
        if size != rows:
            name, formula = f"a vocabulary of {size:,}, {whose}", f"({size} - {rows})*{width}"
            term = Term(name, (size - rows) * width, formula, affected, rank=OTHER_SIZE)
            yield size - rows, term


def _stored_terms(report: Report, layout: Layout) -> Iterator[Term]:
    """What files hold beside the parameters: copies, buffers, modules for multi-token prediction."""
    declared = {tensor.name: tensor for tensor in layout.tensors}
    for name, shared in layout.ties:
        if shared in declared:
            tensor = declared[shared]
            formula = format_polynomial(tensor.count, ASCII)
            yield Term(
                "the tied head counted twice", layout.value(tensor), formula, (name,), stored=True
            )
    table = layout.components().get(components.TOKEN_EMBEDDING, [])
    if table and not layout.ties and components.LM_HEAD not in layout.components():
        name = "an LM head, which this body is without"
        yield replace(_added(layout, name, table), touches=("LM head",), stored=False)
    for term in _buffer_terms(report, layout):
        yield _of_other_file(report, term)
    if layout.mtp:
        # Their layers repeat the names of the others.
        name = "the modules for multi-token prediction (MTP)"
        yield replace(_added(layout, name, layout.mtp), touches=("MTP",))
    if layout.family in SHARING:
        yield _unread_term(layout)
    if report.quantization is None:
        for term in (*_packed_terms(layout), *_block_scale_terms(layout)):
            yield replace(term, rank=OTHER_FILE)


def _unread_term(layout: Layout) -> Term:
    """Keys and values of layers that take an earlier one's, as of the layers with the same queries."""
    parts = layout.components()
    queries = [t for t in parts[components.ATTENTION_QUERY] if t.role is Role.MULTIPLIED]
    own = [tensor.layers for tensor in parts[components.ATTENTION_KEY]]
    unread: list[Tensor] = []
    for query in (each for each in queries if each.layers not in own):
        like = [t.layers for t in queries if t.layers in own and t.shape == query.shape]
        unread += [
            replace(tensor, repeat=query.repeat)
            for tensor in layout.tensors
            if tensor.layers in like[:1] and re.search(r"[kv]_proj|k_norm", tensor.name)
        ]
    name = "the keys and values that published files hold for layers that take an earlier one's"
    return replace(_added(layout, name, unread), touches=("unread keys and values",))


def _of_other_file(report: Report, term: Term) -> Term:
    """The term with the rank of what the target's own file cannot hold, since all that it stores is less."""
    counts = report.parameters
    held = report.witnesses.file is not None and term.count <= counts.stored_elements - counts.total
    return term if held else replace(term, rank=OTHER_FILE)


def _buffer_terms(report: Report, layout: Layout) -> Iterator[Term]:
    depth, length = layout.symbols.get("L", 0), layout.context_length
    in_files = any(name.endswith(("attn.bias", "attention.bias")) for name in layout.ignored)
    if in_files or components.POSITION_EMBEDDING in layout.components():
        masks = depth * length * length
        name = "the causal masks that GPT-2 files hold"
        yield Term(name, masks, f"{depth}*{length}^2", ("masks",), True)
        name = "the causal masks and masked_bias that GPT-2 files hold"
        yield Term(name, masks + depth, f"{depth}*({length}^2 + 1)", ("masks",), True)
    width = _rotary_width(report, layout)
    if width > 1:
        formula = f"{depth}*{width}/2"
        name = "the rotary frequencies (inv_freq) of each layer"
        yield Term(name, depth * (width // 2), formula, ("inv_freq",), True)
        # transformers' modules hold them once for all layers, and a copy of their initial values.
        name = "the rotary frequencies of the module, "
        yield Term(f"{name}inv_freq", width // 2, f"{width}/2", ("inv_freq",), True)
        name = f"{name}inv_freq and original_inv_freq"
        yield Term(name, 2 * (width // 2), f"2*{width}/2", ("inv_freq",), True)
    if layout.buffers:
        yield _added(layout, "the registered buffers", layout.buffers)


def _rotary_width(report: Report, layout: Layout) -> int:
    """How many elements of a head are rotated; 0 for a model with another kind of positions."""
    if components.POSITION_EMBEDDING in layout.components() or "L" not in layout.symbols:
        return 0
    model = report.hyperparameters.get("model", {})
    for name in ("qk_rope_head_dim", "rotary_dim"):
        if type(model.get(name)) is int:
            return int(model[name])
    heads = layout.symbols.get("h", 0)
    width = layout.symbols.get("k") or (layout.symbols.get("d", 0) // heads if heads else 0)
    for name in ("rotary_pct", "partial_rotary_factor"):
        share = model.get(name)
        if isinstance(share, float) and 0 < share < 1:
            return int(width * share)
    return width


def _packed_terms(layout: Layout) -> Iterator[Term]:
    """Stored elements instead of parameters, in the usual layouts of 4-bit and 8-bit files."""
    matrices = _block_matrices(layout)
    names, count = _names(matrices), sum(layout.value(t) for t in matrices)
    experts = sum(
        layout.value(t) for t in matrices if t.routed or t.component.startswith("experts")
    )
    names_and_scales = (*names, "scales")
    if count % 8 == 0:
        name = "4-bit matrices counted as packed, "
        yield Term(f"{name}2 in a uint8", -count // 2, f"-{count}/2", names, True)
        yield Term(f"{name}8 in an int32", -count * 7 // 8, f"-{count}*7/8", names, True)
    if count % 16384 == 0:
        scales = count // 64 + count // 16384
        name = "4-bit matrices as bitsandbytes stores them, with scales in two stages"
        formula = f"-{count}/2 + {count}/64 + {count}/16384"
        yield Term(name, scales - count // 2, formula, names_and_scales, True)
    if count % 1024 == 0:
        stored = count // 8 + count // 128 + count // 1024
        name = "4-bit matrices as AWQ stores them: 8 in an int32, groups of 128"
        formula = f"-{count} + {count}/8 + {count}/128 + {count}/1024"
        yield Term(name, stored - count, formula, names_and_scales, True)
    if experts and experts % 32 == 0:
        name = "the scales of MXFP4 experts, one for 32 values"
        yield Term(name, experts // 32, f"{experts}/32", ("scales",), True)


def _block_scale_terms(layout: Layout) -> Iterator[Term]:
    """Scales of FP8 files, one for each 128 x 128 block; and everything in DeepSeek's own files."""
    names = set(_names(_block_matrices(layout)))
    quantized = [tensor for tensor in (*layout.tensors, *layout.mtp) if tensor.name in names]
    count = 0
    for tensor in quantized:
        rows, columns = (size.value(layout.symbols) for size in tensor.shape[-2:])
        matrices = layout.value(tensor) // (rows * columns)
        count += matrices * -(-rows // 128) * -(-columns // 128)
    formula = "ceil(rows/128)*ceil(columns/128) of each matrix"
    yield Term("FP8 scales, one for a block of 128 x 128", count, formula, ("scales",), True)
    if layout.mtp:
        mtp_and_buffers = _added(layout, "", (*layout.mtp, *layout.buffers))
        name = "MTP modules, registered buffers and FP8 scales of 128 x 128 blocks"
        touches = ("MTP", *_names(layout.buffers), "scales")
        formula = f"{mtp_and_buffers.formula} + {count}"
        yield Term(name, mtp_and_buffers.count + count, formula, touches, True)


def _block_matrices(layout: Layout) -> list[Tensor]:
    """The matrices that quantization packs: those of the layers, but for routers."""
    return [
        t
        for t in layout.tensors
        if t.role is Role.MULTIPLIED and t.repeat != ONE and t.component != components.ROUTER
    ]


def _omission_terms(layout: Layout) -> Iterator[Term]:
    """What counts leave out: head, embeddings, inactive experts, biases, norms, components."""
    grouped = layout.components()

    def without(name: str, tensors: Iterable[Tensor]) -> Term:
        added = _added(layout, name, tuple(tensors))
        return replace(added, count=-added.count, stored=False)

    def among(*names: str) -> list[Tensor]:
        return [tensor for name in names for tensor in grouped.get(name, [])]

    tokens, positions = among(components.TOKEN_EMBEDDING), among(components.POSITION_EMBEDDING)
    head = among(components.LM_HEAD)
    yield without("the LM head left out", head)
    yield without("the LM head's matrix left out", (t for t in head if t.role is Role.MULTIPLIED))
    yield without("the token embedding left out", tokens)
    yield without("the position embedding left out", positions)
    if positions:
        yield without("the token and position embeddings left out", tokens + positions)
    idle = layout.count(active=True) - layout.count()
    if idle:
        routed = [tensor for tensor in layout.tensors if tensor.routed]
        formula = "the E - e experts that a token does not use"
        inactive = Term("only the active experts", idle, formula, _names(routed))
        yield inactive
        token_table = without("", tokens)
        yield Term(
            "only the active experts, and no token embedding",
            idle + token_table.count,
            f"{formula}; {token_table.formula}",
            (*inactive.touches, *token_table.touches),
        )
    biases = [tensor for tensor in layout.tensors if tensor.role is Role.ADDED]
    norms = [tensor for tensor in layout.tensors if tensor.component.endswith("norm")]
    yield without("all biases left out", biases)
    yield without("the norms' biases left out", (t for t in biases if t in norms))
    yield without("all biases but the norms' left out", (t for t in biases if t not in norms))
    yield without("all norms left out", norms)
    yield without("the norms' gains left out", (t for t in norms if t.role is Role.SCALED))
    for component, tensors in grouped.items():
        term = without(f"{component} left out", tensors)
        yield replace(term, usual=False, rank=ONE_COMPONENT)


def _resized_terms(layout: Layout) -> Iterator[Term]:
    """The same model with another number of key/value heads or positions."""
    symbols = layout.symbols
    if 0 < symbols.get("g", 0) < symbols.get("h", 0):
        name = f"all {symbols['h']} heads with keys and values of their own, not {symbols['g']}"
        yield _resized(layout, name, "g", symbols["h"])
    if symbols.get("T"):
        for length in CONTEXTS:
            name = f"positions for {length} tokens, not {symbols['T']}"
            yield _resized(layout, name, "T", length)
    positions = layout.components().get(components.POSITION_EMBEDDING, [])
    for tensor in (each for each in positions if len(each.shape) == 2):
        rows, width = (dimension.value(symbols) for dimension in tensor.shape)
        extra = rows - layout.context_length
        if 0 < extra < rows:
            name = f"the {extra} offset rows of the position embedding left out"
            yield Term(name, -extra * width, f"{extra}*{width}", (tensor.name,))


def _reported_terms(report: Report) -> Iterator[Term]:
    """What follows from the report's counts: for files and modules without a formula too."""
    counts = report.parameters
    if report.quantization is not None:
        q = report.quantization
        packed, scales = q.stored_elements - q.parameters, q.scale_elements
        name = f"{q.method} values counted as they are packed"
        formula = f"{q.stored_elements} - {q.parameters}"
        yield Term(name, packed, formula, ("packing",), True)
        name = "scales, zero points and codebooks counted"
        yield Term(name, scales, f"{scales}", ("scales",), True)
        name = f"{q.method} values as packed, with scales, zero points and codebooks"
        yield Term(name, packed + scales, f"{formula} + {scales}", ("packing", "scales"), True)
    yield Term("the buffers", counts.buffers, f"{counts.buffers}", ("buffers", "masks"), True)
    if report.formula is None:
        sizes = {row.name: row.count for row in report.tensors}
        for name, shared in report.tied:
            text = f"{name} counted though it is {shared}"
            yield Term(text, sizes.get(shared, 0), "its size", (name,), True)
        yield Term("the biases left out", -counts.biases, "their sizes", ("biases",))
        tables = [row.name for row in report.tensors if is_embedding(row.name, row.shape)]
        name = "the embedding tables left out" + (f": {', '.join(tables)}" if tables else "")
        yield Term(name, -counts.embedding, "their sizes", ("embedding",))
    name = "everything that is stored: copies, buffers, packed integers, scales"
    stored = counts.stored_elements - counts.total
    yield Term(name, stored, f"{counts.stored_elements} - {counts.total}", (EVERYTHING,), True)


def _added(layout: Layout, name: str, tensors: Sequence[Tensor]) -> Term:
    count = sum(layout.value(tensor) for tensor in tensors)
    formula = format_polynomial(sum((tensor.count for tensor in tensors), ZERO), ASCII)
    return Term(name, count, formula, _names(tensors), stored=True)


def _resized(layout: Layout, name: str, letter: str, value: int) -> Term:
    other = replace(layout, symbols={**layout.symbols, letter: value})
    difference = other.count() - layout.count()
    step = value - layout.symbols[letter]
    formula = f"({value} - {layout.symbols[letter]})*{difference // step if step else 0}"
    affected = _names(t for t in layout.tensors if _depends_on(t, letter))
    return Term(name, difference, formula, affected, rank=OTHER_SIZE)


def _depends_on(tensor: Tensor, letter: str) -> bool:
    return any(letter == name for monomial in tensor.count.terms for name, _ in monomial)


def _names(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in tensors)
