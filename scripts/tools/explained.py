"""python scripts/tools/explained.py: write docs/parameters-explained.md, its page and its drawing.

Every number in them is computed here, by running what the text tells of; tests/test_explained.py makes the
page again and compares. The glossary is minilm/render/glossary.py.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import minilm  # noqa: E402
from minilm import files  # noqa: E402
from minilm.architectures.minilm import layout as declared  # noqa: E402
from minilm.config.presets import find_preset  # noqa: E402
from minilm.costs.memory import stored_bytes  # noqa: E402
from minilm.dtypes import BITS, storage_bytes  # noqa: E402
from minilm.ledger import components  # noqa: E402
from minilm.ledger.layout import Layout  # noqa: E402
from minilm.ledger.layout_changes import with_adapters  # noqa: E402
from minilm.render.block_diagram import diagram, parts_of  # noqa: E402
from minilm.render.calculator import calculator  # noqa: E402
from minilm.render.cells import number_columns  # noqa: E402
from minilm.render.document import (  # noqa: E402
    Block,
    Code,
    Column,
    Listing,
    Paragraph,
    Section,
    Table,
)
from minilm.render.glossary import GLOSSARY, letters  # noqa: E402
from minilm.render.html import lesson_page  # noqa: E402
from minilm.render.markdown import section_lines  # noqa: E402
from minilm.units import format_bytes, format_count  # noqa: E402

PAGE = ROOT / "docs" / "parameters-explained.md"
HTML = ROOT / "docs" / "parameters-explained.html"
DRAWING = ROOT / "docs" / "images" / "parameters-nano.svg"
OTHER_PAGE = "parameters.md"
TITLE = "Parameters, explained"

# Written before the page, which must answer them.
QUESTIONS = (
    (
        "What is a parameter?",
        "A number in the model that training sets.",
    ),
    (
        "How many parameters has a linear layer from 4 numbers to 2?",
        "4 × 2 weights and 2 biases: {linear}.",
    ),
    (
        "What is the difference between a weight and a bias?",
        "A weight is multiplied with an input, a bias is added whatever the input is.",
    ),
    (
        "Is the learning rate a parameter?",
        "No: people set it before training, it is a hyperparameter.",
    ),
    (
        "Is the number of layers a parameter?",
        "No, a hyperparameter; but it decides how many parameters there are.",
    ),
    (
        "What values have parameters before training?",
        "Mostly small random numbers; gains of norms are 1, biases 0.",
    ),
    (
        "Why are they not all zero at the start?",
        "Units with equal parameters get equal gradients and stay equal for ever.",
    ),
    (
        "What does one step of training do to a parameter?",
        "It subtracts the learning rate times the gradient (SGD; other optimizers rescale this).",
    ),
    (
        "Does training change the number of parameters?",
        "No. It changes their values.",
    ),
    (
        "What does freezing a parameter do?",
        "Training leaves it as it is. It still counts, but it is not trainable.",
    ),
    (
        "How many bytes does a parameter take?",
        "4 in float32, 2 in bfloat16, 1 in int8, half a byte in int4.",
    ),
    (
        "How large is a model of 70 billion parameters in 16 bits, and in 4?",
        "140 GB, and 35 GB without scales.",
    ),
    (
        "Which part of a transformer has the most parameters?",
        "Mostly the feed-forward; in a small model with a large vocabulary the embedding and "
        "the LM head.",
    ),
    (
        "If the width d doubles, what happens to the matrices of a block?",
        "They become four times as large, since both sides double.",
    ),
    (
        "If the number of layers doubles, what happens to the count?",
        "What is in the blocks doubles; the embedding and the LM head stay.",
    ),
    (
        "Does a longer context need more parameters?",
        "Only where positions are learned. It always needs a larger KV cache.",
    ),
    (
        "What is a tied head?",
        "The LM head is the embedding itself: stored and counted once.",
    ),
    (
        "How does one see overfitting?",
        "The loss on the training text falls while that on other text rises.",
    ),
    (
        "What does LoRA train?",
        "Two narrow matrices beside each chosen matrix, which stays frozen.",
    ),
    (
        "Does quantization change the number of parameters? Does pruning to zero?",
        "Neither does: quantization stores them in fewer bits, pruned ones are zeros that "
        "still count.",
    ),
)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    return Table(tuple(columns), tuple(tuple(row) for row in rows))


def written(values: torch.Tensor) -> str:
    """A tensor with two decimals, row by row; never -0.00."""
    rows = values.detach().reshape(-1, values.shape[-1]).tolist()
    return "; ".join(", ".join(f"{round(value, 2) + 0.0:.2f}" for value in row) for row in rows)


def ten_parameters() -> Section:
    """Linear(4, 2): counted three times, trained, frozen, saved."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    by_hand, by_formula = 4 * 2 + 2, model.out_features * model.in_features + model.out_features
    named = [(name, value) for name, value in model.named_parameters()]
    by_name = sum(value.numel() for _, value in named)
    report = minilm.inspect(model)
    assert by_hand == by_formula == by_name == report.parameters.total
    before = [value.detach().clone() for _, value in named]

    inputs = torch.randn(256, 4)
    wanted = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, -3.0, 1.0, 0.5]])
    shift = torch.tensor([0.25, -0.75])
    targets = inputs @ wanted.T + shift
    first = F.mse_loss(model(inputs), targets).item()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = 200

    def train() -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
        return loss.item()

    last = train()
    learned = written(model.weight), written(model.bias)
    model.bias.requires_grad_(False)
    trainable = sum(value.numel() for value in model.parameters() if value.requires_grad)
    frozen_bias = model.bias.clone()
    targets = targets + 1.0
    frozen_loss = train()
    assert torch.equal(frozen_bias, model.bias)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(dict(model.state_dict()), path)
        content = path.read_bytes()
        loaded = load_file(path)
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].decode()
    assert len(content) == 8 + size + by_hand * 4
    return Section(
        "ten",
        "A model of ten parameters",
        (
            Paragraph(
                "A linear layer takes some numbers and gives others: each result is the sum "
                "of all inputs, each "
                "times a weight, plus a bias. From 4 inputs to 2 results, in PyTorch "
                "nn.Linear(4, 2), it is small "
                "enough to be counted by hand. Its parameters are the weights and the biases: "
                "numbers that nobody "
                "types, because training sets them."
            ),
            Code("result 1", "w11 x1 + w12 x2 + w13 x3 + w14 x4 + b1"),
            Code("result 2", "w21 x1 + w22 x2 + w23 x3 + w24 x4 + b2"),
            Paragraph("Counted in three ways, which must agree:"),
            table(
                number_columns("way", "parameters"),
                [
                    ("by hand: 8 w and 2 b above", f"{by_hand}"),
                    ("by formula: outputs × inputs + outputs", f"{by_formula}"),
                    ("from the model: the sum over named_parameters()", f"{by_name}"),
                ],
            ),
            table(
                (Column("name", "code"), Column("shape"), Column("elements", "number")),
                [
                    (name, " × ".join(map(str, value.shape)), str(value.numel()))
                    for name, value in named
                ],
            ),
            Paragraph(
                f"minilm.inspect(model) says the same: {report.parameters.total} parameters, "
                f"{report.parameters.weights} weights, {report.parameters.biases} biases."
            ),
            Paragraph(
                "Trained: we show it 256 inputs with the results that a hidden rule gives, "
                "and take "
                f"{steps} steps. The mean squared error falls from {first:.2f} to {last:.4f}, "
                "and the "
                "parameters have become those of the rule:"
            ),
            table(
                (Column("parameters"), Column("weights, row by row"), Column("biases")),
                [
                    ("before", written(before[0]), written(before[1])),
                    ("after", *learned),
                    ("the rule", written(wanted), written(shift)),
                ],
            ),
            Paragraph(
                "The count has not changed, only the values. Frozen: with the biases frozen "
                f"(requires_grad = False) {trainable} of the {by_hand} are trainable. We add "
                "1 to every result "
                f"and train again: the error stays at {frozen_loss:.2f}, since only the "
                "biases could learn that."
            ),
            Paragraph(
                f"Saved as safetensors, the file has {len(content)} bytes: 8 for the length "
                f"of the header, {size} "
                f"of header, and {by_hand} parameters of 4 bytes (float32). The header is text, "
                "filled up with spaces:"
            ),
            Code("header", header.rstrip()),
            Paragraph("Loaded again, every parameter is the same to the last bit."),
        ),
    )


def where_they_live(layout: Layout) -> Section:
    """The matrices of a transformer, with their shares."""
    total = layout.count()
    rows = []
    for name, tensors in layout.components().items():
        count = sum(layout.value(tensor) for tensor in tensors)
        rows.append(
            (name, f"{count:,}", f"{count / total:.2%}", layout.component_formula(name).pretty)
        )
    feed_forward = share(layout, "feed-forward")
    big = declared(minilm.preset("llama-3-8b"))
    return Section(
        "where",
        "Where parameters live in a transformer",
        (
            Paragraph(
                f"The drawing is minilm's preset nano, {total:,} parameters: every matrix "
                "with its shape (outputs × "
                "inputs) and its share of all. Text comes in on top as tokens; each gets its "
                "row of the "
                "embedding, d numbers. Every block adds to these numbers what it computes: "
                "attention "
                "collects from the tokens before, the feed-forward works on each token "
                "alone. The LM head turns "
                "the last numbers into a score for every token of the vocabulary."
            ),
            table(
                (*number_columns("component", "parameters", "share"), Column("formula", "code")),
                rows,
            ),
            Code("all together", layout.formula().pretty),
            Paragraph(
                f"The feed-forward has {feed_forward:.0%} here, and "
                f"{share(big, 'feed-forward'):.0%} of Llama 3 "
                f"8B; the embedding and the LM head have {share(layout, 'table'):.0%} here and "
                f"{share(big, 'table'):.0%} there. Matrices in a block have d on at least one "
                "side and a "
                "width that models usually widen with d on the other: if d doubles, and f with it, "
                "they are four times as large. If L doubles, what is in "
                "blocks doubles, and the embedding and the head stay."
            ),
            Paragraph(
                "The context T is no size of any matrix here: positions are computed (RoPE). "
                "In a model with "
                "learned positions, GPT-2 for instance, a table of T rows is added: "
                f"{position_count():,} of its {declared(minilm.preset('gpt2')).count():,} "
                "parameters. A head that is "
                "tied is the embedding, used a second time: it is stored and counted once."
            ),
        ),
    )


def share(layout: Layout, what: str) -> float:
    names = {
        "feed-forward": [
            n for n in layout.components() if n.startswith("feed-forward") and "norm" not in n
        ],
        "table": [components.TOKEN_EMBEDDING, components.LM_HEAD],
    }[what]
    return layout.count(components=tuple(names)) / layout.count()


def position_count() -> int:
    return declared(minilm.preset("gpt2")).count(components=(components.POSITION_EMBEDDING,))


def weights_and_biases() -> Section:
    nano = minilm.inspect("nano").parameters
    llama = minilm.inspect("llama-3-8b").parameters
    return Section(
        "weights",
        "Weights and biases",
        (
            Paragraph(
                "A weight is multiplied with an input, and says how much that input matters. "
                "A bias is added "
                "whatever the input is, and moves the result up or down. A matrix of m × n "
                "weights has at most m "
                "biases, so that biases are few:"
            ),
            table(
                number_columns("model", "weights", "biases", "share of biases"),
                [
                    (name, f"{p.weights:,}", f"{p.biases:,}", f"{p.biases / p.total:.2%}")
                    for name, p in (("nano", nano), ("Llama 3 8B", llama))
                ],
            ),
            Paragraph(
                "Many newer models have no biases at all. People also say weights and mean "
                "all parameters. Gains of norms are multiplied, so they count as weights."
            ),
        ),
    )


def hyperparameters() -> Section:
    preset = minilm.preset("nano")
    training = find_preset("nano").train_config()
    rows = [
        ("vocabulary, V", f"{preset.vocab_size:,}", "yes"),
        ("model width, d", f"{preset.d_model}", "yes"),
        ("layers, L", f"{preset.num_layers}", "yes"),
        ("feed-forward width, f", f"{preset.d_feed_forward}", "yes"),
        (
            "heads, h",
            f"{preset.num_heads}",
            "no, where g = h: they divide the same matrices",
        ),
        ("learning rate", f"{training.learning_rate:g}", "no"),
        ("steps", f"{training.max_steps:,}", "no"),
        ("dropout", f"{preset.dropout:g}", "no"),
    ]
    return Section(
        "hyperparameters",
        "Parameters and hyperparameters",
        (
            Paragraph(
                "Parameters are learned. Hyperparameters are chosen by people before "
                "training, and training does "
                "not change them. Some of them decide how many parameters there are:"
            ),
            table(
                (
                    Column("hyperparameter"),
                    Column("minilm's default", "number"),
                    Column("changes the count"),
                ),
                rows,
            ),
        ),
    )


def initialisation() -> Section:
    """Random and equal starts, and the loss of a model that knows nothing."""
    torch.manual_seed(1)
    config = minilm.preset("nano")
    model = minilm.Transformer(config)
    matrix = model.get_parameter("blocks.0.attention.query.weight")
    tokens = torch.randint(config.vocab_size, (4, 64))
    logits = model(tokens[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, config.vocab_size), tokens[:, 1:].reshape(-1)).item()

    def rows_after(equal: bool) -> tuple[torch.Tensor, float]:
        torch.manual_seed(4)
        network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
        if equal:
            for layer in (network[0], network[2]):
                nn.init.constant_(layer.weight, 0.5)
                nn.init.zeros_(layer.bias)
        inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        targets = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            error = F.mse_loss(network(inputs), targets)
            error.backward()
            optimizer.step()
        return network[0].weight, error.item()

    equal, random = rows_after(True), rows_after(False)
    return Section(
        "initialisation",
        "Initialisation",
        (
            Paragraph(
                "Before training, most matrices are small random numbers, biases are 0 and "
                "gains of norms are 1. "
                "(Matrices whose result is added to what is there already may start at 0, so "
                "that a block "
                "begins by adding nothing.) In "
                "nano, blocks.0.attention.query.weight has the mean "
                f"{abs(matrix.mean().item()):.2f} and the standard "
                f"deviation {matrix.std().item():.2f}. Such a model knows nothing: all "
                f"{config.vocab_size:,} tokens are "
                f"about equally likely to it, and its loss is ln({config.vocab_size:,}) = "
                f"{np.log(config.vocab_size):.2f} nats; measured: {loss:.2f}."
            ),
            Paragraph(
                "Why random? Two units that start equal get equal gradients, and stay equal: "
                "they are one unit "
                "stored twice. A network of two hidden units, trained for 400 steps to tell "
                "whether exactly "
                "one of two inputs is 1:"
            ),
            table(
                (
                    Column("start"),
                    Column("weights of the two units after training"),
                    Column("error", "number"),
                ),
                [
                    ("equal", written(equal[0]), f"{equal[1]:.2f}"),
                    ("random", written(random[0]), f"{random[1]:.2f}"),
                ],
            ),
        ),
    )


def training() -> Section:
    """One step of one parameter, with its numbers."""
    weight = torch.tensor(0.5, requires_grad=True)
    rate, value, wanted = 0.1, 2.0, 3.0
    loss = (weight * value - wanted) ** 2
    loss.backward()
    assert weight.grad is not None
    gradient = weight.grad.item()
    after = weight.item() - rate * gradient
    return Section(
        "training",
        "What training does to them",
        (
            Paragraph(
                "A step looks at some text, measures the loss, and computes for every "
                "parameter how the loss "
                "changes with it: the gradient. Then every parameter moves a little against "
                "its gradient. The plainest rule is SGD:"
            ),
            Code("an update", "parameter after = parameter before - learning rate * gradient"),
            Paragraph(
                f"With one weight w = {weight.item():g}, input {value:g}, wanted result "
                f"{wanted:g}: the result is "
                f"{weight.item() * value:g}, the loss (result - wanted)² = {loss.item():g}, "
                "the gradient "
                f"2 (result - wanted) input = {gradient:g}. At a learning rate of {rate:g} "
                "the weight becomes "
                f"{after:g}, and the loss {(after * value - wanted) ** 2:g}."
            ),
            Paragraph(
                "AdamW, with which most models are trained, divides the gradient by its "
                "usual size and keeps two "
                "running means for each parameter: the moments. So training needs memory for "
                "four numbers a "
                "parameter (itself, gradient, two moments), where use needs one. Of nano that is "
                f"{format_bytes(minilm.inspect('nano').memory['training']['total'])} against "
                f"{format_bytes(minilm.inspect('nano').memory['weights']['float32'])}, in "
                "float32. The number of "
                "parameters stays the same throughout."
            ),
        ),
    )


def precision() -> Section:
    third = torch.tensor(1 / 3)
    seventy = 70 * 10**9
    rows = []
    for dtype in ("float32", "bfloat16", "float16"):
        stored = third.to(getattr(torch, dtype)).item()
        rows.append(
            (
                dtype,
                str(BITS[dtype]),
                f"{stored:.8f}",
                f"{storage_bytes(seventy, dtype) / 1e9:,.0f} GB",
            )
        )
    for dtype, levels in (("int8", 127), ("int4", 7)):
        scale = 1 / levels  # of a group whose largest value is 1
        stored = round(third.item() / scale) * scale
        rows.append(
            (
                dtype,
                str(BITS[dtype]),
                f"{stored:.8f}",
                f"{storage_bytes(seventy, dtype) / 1e9:,.0f} GB",
            )
        )
    return Section(
        "precision",
        "Precision",
        (
            Paragraph(
                "A parameter takes as many bytes as its dtype has bits, divided by 8: 4 "
                "bytes in float32, 2 in bfloat16, "
                "1 in int8, half a byte in int4. Fewer bits tell fewer numbers apart. Here "
                "is what becomes of 1/3 (int8 "
                "and int4 in a group whose largest value is 1), and the weights of 70 "
                "billion parameters, in GB "
                "of 10 to the 9 bytes, without scales:"
            ),
            table(number_columns("dtype", "bits", "1/3 as stored", "70B parameters"), rows),
        ),
    )


def fitting() -> Section:
    """Polynomials of more and more parameters on ten points."""
    draw = np.random.default_rng(0)
    at = np.linspace(-1, 1, 10)
    between = np.linspace(-0.95, 0.95, 10)
    noise = draw.normal(0, 0.2, (2, 10))
    curve = np.sin(np.pi * at) + noise[0], np.sin(np.pi * between) + noise[1]
    rows = []
    for degree, verdict in ((1, "underfitting"), (3, "about right"), (9, "overfitting")):
        fit = np.polynomial.Polynomial.fit(at, curve[0], degree)
        errors = (
            np.sqrt(np.mean((fit(x) - y) ** 2)) for x, y in zip((at, between), curve, strict=True)
        )
        seen, unseen = errors
        rows.append((str(degree + 1), f"{seen:.2f}", f"{unseen:.2f}", verdict))
    return Section(
        "fitting",
        "Overfitting and underfitting",
        (
            Paragraph(
                "Parameters can also learn the training examples by heart. Ten points of a "
                "sine with noise, and "
                "polynomials of 2, 4 and 10 parameters fitted to them; the error (root mean "
                "square) on the "
                "same ten points, and on ten others between them:"
            ),
            table(
                (
                    *number_columns("parameters", "error on what it saw", "error on others"),
                    Column(""),
                ),
                rows,
            ),
            Paragraph(
                "With two parameters both errors are high: underfitting. With ten the first "
                "is almost 0 and the second "
                "rises: overfitting. In a language model the second is the loss on text that "
                "is kept apart, the "
                "validation loss: training is stopped, or the best state kept, where it is lowest."
            ),
        ),
    )


def changes(layout: Layout) -> Section:
    """LoRA, quantization, pruning, sharing, in numbers of nano."""
    config = minilm.preset("nano")
    adapted = with_adapters(layout, ("query", "value"), 8)
    shared = declared(replace(config, shared_layers=2))
    tied = declared(replace(config, tied_embeddings=True))
    fewer = declared(replace(config, d_feed_forward=config.d_feed_forward // 2))
    total = layout.count()

    def row(name: str, changed: Layout, size: int, what: str) -> tuple[str, ...]:
        return name, f"{changed.count():,}", f"{changed.trainable():,}", format_bytes(size), what

    float32 = storage_bytes(total, "float32")
    rows = [
        row("nano", layout, float32, ""),
        row(
            "LoRA, rank 8 on query and value",
            adapted,
            storage_bytes(adapted.count(), "float32"),
            "the matrices stay frozen, narrow ones beside them are trained",
        ),
        row("int8", layout, stored_bytes(layout, "int8"), "fewer bits, the same number"),
        row("nf4", layout, stored_bytes(layout, "nf4"), "as int8, 4 bits a weight"),
        row("half of the weights zero", layout, float32, "zeros still count, and are stored"),
        row(
            "half of the feed-forward units",
            fewer,
            storage_bytes(fewer.count(), "float32"),
            "removed: they no longer count",
        ),
        row(
            "2 blocks for 4 layers",
            shared,
            storage_bytes(shared.count(), "float32"),
            "each block runs twice and counts once",
        ),
        row("tied head", tied, storage_bytes(tied.count(), "float32"), "the embedding, used twice"),
    ]
    columns = (
        *number_columns("change", "parameters", "trainable", "weights in memory"),
        Column("why"),
    )
    return Section(
        "changes",
        "LoRA, quantization, pruning, sharing",
        (
            Paragraph(
                "A trained model can be changed without being trained anew. What each change "
                "does to the count and to "
                "memory (quantized: the matrices of the blocks in so many bits with their "
                "scales, all else in bfloat16):"
            ),
            table(columns, rows),
            Paragraph(
                f"What each costs in loss is measured in {OTHER_PAGE}, with the commands that "
                "do it."
            ),
        ),
    )


def costs() -> Section:
    report = minilm.inspect("llama-3-8b")
    assert report.flops is not None
    cache, flops = report.memory["kv_cache"], report.flops
    count = report.parameters.total
    return Section(
        "costs",
        "What a token costs",
        (
            Paragraph(
                f"To predict one token, Llama 3 8B ({format_count(count)} parameters) uses "
                "nearly all of its parameters once. "
                "A parameter of a matrix takes two operations, a multiplication and an addition: "
                f"{format_count(flops['forward_per_token'])} FLOPs a token at a context of "
                f"{cache['context']:,}, of which "
                f"{format_count(flops['attention_per_token'])} are attention over the "
                "context; three times as many in "
                "training. The work grows with every token, the parameters do not."
            ),
            Paragraph(
                "Keys and values of earlier tokens are kept: the KV cache. In bfloat16 it takes "
                f"{format_bytes(cache['bfloat16'])} for {cache['context']:,} tokens, beside the "
                f"{format_bytes(report.memory['weights']['bfloat16'])} of the weights."
            ),
        ),
    )


def sections() -> list[Section]:
    """The page, in order."""
    layout = declared(minilm.preset("nano"))
    opening = Section(
        "what",
        "What a parameter is",
        (
            Paragraph(
                "A language model is a program with many numbers in it. The program is "
                "short, and people wrote "
                "it; the numbers are many, and training set them. These numbers are the "
                "parameters. What a "
                "model can do is in their values together; what it costs follows from how "
                "many there are."
            ),
        ),
    )
    return [
        opening,
        ten_parameters(),
        where_they_live(layout),
        weights_and_biases(),
        hyperparameters(),
        initialisation(),
        training(),
        precision(),
        fitting(),
        changes(layout),
        costs(),
    ]


def answers() -> list[tuple[str, str]]:
    """The questions with their answers."""
    linear = sum(value.numel() for value in nn.Linear(4, 2).parameters())
    return [(question, answer.format(linear=linear)) for question, answer in QUESTIONS]


def glossary_blocks() -> tuple[Block, ...]:
    words = [(word, text) for word, text in GLOSSARY.items()]
    return (
        table((Column("letter", "code"), Column("stands for")), list(letters().items())),
        table((Column("word"), Column("meaning")), words),
    )


def markdown(content: Sequence[Section]) -> str:
    """The page as Markdown."""
    lines = [
        f"# {TITLE}",
        "",
        "For readers without background. Every number is computed when this page is made "
        "(`scripts/tools/explained.py`). "
        "[parameters-explained.html](parameters-explained.html) is the same page with a "
        "calculator: open the file in a browser, it needs no network. `minilm explain "
        "TARGET` says the same of your "
        "own model, and three [notebooks](../examples) let you do it by hand.",
    ]
    for section in content:
        own = section_lines(section)
        if section.key == "where":
            own[1:1] = ["", f"![the preset nano as a diagram](images/{DRAWING.name})"]
        link = f"[{OTHER_PAGE}]({OTHER_PAGE})"
        lines += ["", *(line.replace(OTHER_PAGE, link) for line in own)]
    questions = tuple(f"{question} {answer}" for question, answer in answers())
    for section in (
        Section("questions", "Test yourself", (Listing("", questions),)),
        Section("glossary", "Glossary", glossary_blocks()),
    ):
        lines += ["", *section_lines(section)]
    return "\n".join(lines) + "\n"


def drawing() -> str:
    """The block diagram as a file of its own."""
    layout = declared(minilm.preset("nano"))
    return str(diagram(parts_of(layout), layout.symbols, alone=True)) + "\n"


def html(content: Sequence[Section]) -> str:
    """The page with the calculator, which starts with nano."""
    calculated = calculator(declared(minilm.preset("nano"), free=True))
    assert calculated is not None
    return lesson_page(TITLE, content, answers(), calculated)


def write() -> None:
    """Write all three."""
    content = sections()
    for path, text in ((PAGE, markdown(content)), (HTML, html(content)), (DRAWING, drawing())):
        files.write_bytes(path, text.encode())


if __name__ == "__main__":
    write()
