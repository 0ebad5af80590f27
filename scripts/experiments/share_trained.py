"""python scripts/experiments/share_trained.py RUN: which layer's block the layers of a trained model share.

Prints the loss over the first tokens of the run's validation split with the mean of the layers that share a
block, with the first and with the last of them. `minilm share` takes the first.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from scripts import check_dependencies  # noqa: E402

check_dependencies()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from minilm.checkpoint import load  # noqa: E402
from minilm.cli.entry import run_command  # noqa: E402
from minilm.errors import InputError  # noqa: E402
from minilm.model.transformer import Transformer  # noqa: E402
from minilm.operations.evaluate import evaluate_model  # noqa: E402
from minilm.training.evaluation_text import evaluation_text  # noqa: E402
from minilm.training.runtime import Runtime  # noqa: E402

Choice = Callable[[Sequence[nn.Module]], nn.Module]


def main() -> int:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a trained run")
    parser.add_argument("--tokens", type=int, default=60_000, help="of the validation split")
    options = parser.parse_args()
    model, tokenizer = load(options.run)
    text = evaluation_text(options.run, tokenizer)
    if text is None:
        raise InputError(options.run, "no validation split of its own", "a run that has one")
    text = replace(text, dataset=replace(text.dataset, val=text.dataset.val[: options.tokens]))
    runtime = Runtime(torch.device("cpu"), torch.bfloat16, compile=False)

    def loss(of: Transformer) -> str:
        return f"{evaluate_model(of, text, runtime).loss:.3f}"

    choices: dict[str, Choice] = {"mean": mean, "first": lambda b: b[0], "last": lambda b: b[-1]}
    print(f"{model.config.num_layers} layers: {loss(model)} nats a token")
    print("| Blocks | " + " | ".join(choices) + " |\n|---|" + "---|" * len(choices))
    blocks = model.config.num_layers // 2
    for number, sharing in ((blocks, "cycle"), (blocks, "group"), (1, "cycle")):
        config = replace(model.config, shared_layers=number, sharing=sharing)
        losses = [loss(shared(model, config.block_order, choice)) for choice in choices.values()]
        print(f"| {number}, {sharing} | " + " | ".join(losses) + " |")
    return 0


def shared(model: Transformer, order: tuple[int, ...], choice: Choice) -> Transformer:
    """The model with one block in each of the layers that have the same number in ``order``."""
    result = copy.deepcopy(model)
    for number in set(order):
        layers = [layer for layer, block in enumerate(order) if block == number]
        block = choice([model.blocks[layer] for layer in layers])
        for layer in layers:
            result.blocks[layer] = block
    return result


@torch.no_grad()
def mean(blocks: Sequence[nn.Module]) -> nn.Module:
    """A block of the mean of each parameter."""
    merged = copy.deepcopy(blocks[0])
    for name, parameter in merged.named_parameters():
        parameter.copy_(torch.stack([block.get_parameter(name) for block in blocks]).mean(dim=0))
    return merged


if __name__ == "__main__":
    sys.exit(run_command(main))
