"""A Reconciliation for the terminal: the arithmetic, what else would fit, and how much chance would."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from minilm.inspection.reconciliation.explanation import Explanation, Reconciliation
from minilm.safe_text import one_line


def render(answer: Reconciliation) -> RenderableType:
    """The answer as one rich renderable; a line an explanation, the simplest first."""
    number = one_line(answer.number.text)
    if not answer.explained:
        return Group(
            Text(f"{number} is NOT explained; the nearest:", "bold red"),
            *map(_line, answer.nearest),
        )
    how = "to the last one" if answer.exact else "within its rounding"
    lines = [Text(f"{number} is explained {how}", "bold green")]
    lines += map(_line, answer.explanations)
    if not answer.exact:
        lines.append(
            Text(f"  chance alone would explain {answer.chance:.1%} of such numbers", "dim")
        )
    return Group(*lines)


def _line(explanation: Explanation) -> Text:
    return Text(f"  {one_line(explanation.text)}")
