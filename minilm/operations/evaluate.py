"""evaluate(): the loss of whatever model loads, on its own validation split or on a text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from minilm.checkpoint import load
from minilm.interop.convert import as_run
from minilm.model.transformer import Transformer
from minilm.training.evaluation import evaluate as validate
from minilm.training.evaluation_text import EvaluationText, evaluation_text, no_text
from minilm.training.runtime import Runtime, resolve_for_use
from minilm.units import TOKENS_OF_ANSWERS


@dataclass(frozen=True)
class Evaluation:
    """Nats a token, bits a byte of text, e^loss; over how many tokens of which text, in which dtype.

    ``of_answers``: of a text of conversations, these are of the answers alone.
    """

    loss: float
    bits_per_byte: float
    perplexity: float
    tokens: int
    text: str
    dtype: str
    device: str
    of_answers: bool

    @property
    def extent(self) -> str:
        """Over what, and in which arithmetic."""
        unit = TOKENS_OF_ANSWERS if self.of_answers else "tokens"
        return f"over {self.tokens:,} {unit}, {self.text}, in {self.dtype} on {self.device}"


def evaluate(
    checkpoint: str | Path,
    data: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    text_field: str | None = None,
    cache: Path | None = None,
) -> Evaluation:
    """Evaluate a run, a transformed model, or whatever `convert --to minilm` imports.

    ``data``: a text, as training takes it, all of which is evaluated; by default the validation split
    that the run was trained beside. Raises InputError where there is neither.
    """
    with as_run(Path(checkpoint)) as run:
        runtime = resolve_for_use("evaluate", device, dtype)
        model, tokenizer = load(run, device=str(runtime.device))
        text = evaluation_text(run, tokenizer, data, text_field=text_field, cache=cache)
        if text is None:
            raise no_text(run, checkpoint)
        return evaluate_model(model, text, runtime)


def evaluate_model(model: Transformer, text: EvaluationText, runtime: Runtime) -> Evaluation:
    """The mean over every token of ``text`` in consecutive windows of the model's context."""
    result = validate(model, text.dataset, model.config.context_length, runtime, bar=True)
    assert result is not None, "nothing stops it"
    return Evaluation(
        loss=result.loss,
        bits_per_byte=result.bits_per_byte,
        perplexity=math.exp(result.loss) if result.loss < 700 else math.inf,
        tokens=result.tokens,
        text=text.name,
        dtype=runtime.dtype_name,
        device=runtime.device.type,
        of_answers=text.of_answers,
    )
