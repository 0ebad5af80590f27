"""A Report as one HTML file that needs nothing else: no network, no server, no installation.

Jinja2 escapes every text of the page; what the script reads is JSON in which no tag can begin. The
Content-Security-Policy lets exactly the script written here run, by its hash, and nothing be fetched.
Charts are HTML and inline SVG: they are there without the script too.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from minilm.inspection.report import Report
from minilm.inspection.weight_maps import WeightMap
from minilm.render import charts
from minilm.render.calculator import Calculator, calculator_of
from minilm.render.document import Block, Section
from minilm.render.glossary import GLOSSARY, USUAL_LETTERS, anchor, letters
from minilm.render.glossary_links import GlossaryLinks
from minilm.render.heat_maps import heat_maps
from minilm.render.line_chart import LineChart, run_charts
from minilm.render.parameter_charts import parameter_charts
from minilm.render.sections import build_document
from minilm.runs import files as run_files
from minilm.runs.history import RunHistory
from minilm.safe_text import running_text
from minilm.version import __version__

MAX_ROWS = 200  # of a printed table; the list of tensors has its own window
MAX_SAMPLES = 12  # of a run, the first and the last among them

# Scripts, and styles in the reverse order: the last script says that the page is ready.
PARTS = ("calculator", "heat_maps", "parameters", "report")

# In the head of the page, and as the list that is sorted and searched.
_DRAWN_APART = ("witnesses", "notes", "tensors")


def page(
    report: Report,
    *,
    history: RunHistory | None = None,
    weights: Sequence[WeightMap] = (),
    more: Sequence[Section] = (),
) -> str:
    """The whole page; with the ``history`` of a run, its curves, findings, samples and attention too.

    ``weights`` are the matrices that are drawn; ``more`` sections stand before the settings.
    """
    environment = _environment()
    script = "\n".join(_template(environment, f"{name}.js") for name in PARTS)
    document = build_document(report, history=history, tensors=True)
    sections = {section.key: section for section in document.sections}
    history = history or RunHistory()
    calculator = calculator_of(report)
    curves = run_charts(history.metrics, history.overfitting_from)
    parameters = parameter_charts(history.parameters)
    symbols = report.formula.symbols if report.formula else ()
    meanings = letters([*USUAL_LETTERS, *symbols], report.architecture)
    of_run = report.architecture == run_files.FAMILY
    maps = heat_maps(history.attention, weights, of_run=of_run)
    return environment.get_template("report.html").render(
        policy=_policy(script),
        style=Markup("\n".join(_template(environment, f"{name}.css") for name in reversed(PARTS))),
        script=Markup(script),
        data=Markup(
            script_json(
                {
                    "curves": [_curve_values(chart) for chart in curves],
                    "tensors": charts.tensor_table(sections["tensors"].tables()[0]),
                    "calculator": calculator.data() if calculator else None,
                    "maps": maps and maps.script_values(),
                    "parameters": parameters and parameters.script_values(),
                }
            )
        ),
        document=document,
        witnesses=sections["witnesses"],
        notes=sections.get("notes"),
        conventions=sections["conventions"].tables()[0].rows,
        sections=[
            *(section for section in document.sections if section.key not in _DRAWN_APART),
            *more,
        ],
        curves=curves,
        samples=charts.evenly_spaced(history.samples, MAX_SAMPLES),
        calculator=calculator,
        glossary=GLOSSARY,
        letters=meanings,
        linked=GlossaryLinks(meanings).html,
        parameters=parameters,
        maps=maps,
        treemap=charts.treemap(report),
        heat_map=charts.heat_map(report),
        max_rows=MAX_ROWS,
        version=__version__,
        today=date.today().isoformat(),
    )


def lesson_page(
    title: str,
    sections: Sequence[Section],
    answers: Sequence[tuple[str, str]],
    calculator: Calculator | None,
    family: str = "",
    drawing: Markup | None = None,
) -> str:
    """A page of explanations with a calculator, questions and the glossary.

    ``drawing`` stands above the text of the section whose key is where.
    """
    environment = _environment()
    script = _template(environment, "calculator.js")
    own = [letter.name for letter in calculator.letters] if calculator else []
    meanings = letters([*USUAL_LETTERS, *own], family)
    return environment.get_template("explained.html").render(
        policy=_policy(script),
        style=Markup(
            _template(environment, "report.css") + _template(environment, "calculator.css")
        ),
        script=Markup(script),
        data=Markup(script_json({"calculator": calculator.data() if calculator else None})),
        title=title,
        sections=sections,
        answers=answers,
        calculator=calculator,
        drawing=drawing,
        glossary=GLOSSARY,
        letters=meanings,
        linked=GlossaryLinks(meanings).html,
    )


@functools.cache
def _environment() -> Environment:
    """The templates, each of which is compiled once."""
    environment = Environment(
        loader=PackageLoader("minilm.render", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "anchor": anchor,
        "running_text": running_text,
        "runs_of_a_kind": _runs_of_a_kind,
    }
    return environment


def _curve_values(chart: LineChart) -> dict[str, Any]:
    """What is shown of a point under the pointer."""
    lines = [{"name": line.name, "x": line.x, "y": line.y} for line in chart.lines]
    return {"axis": chart.axis, "end": chart.end, "lines": lines}


def _runs_of_a_kind(blocks: Sequence[Block]) -> list[list[Block]]:
    """Neighbours of one kind together: they share an element of the page."""
    return [list(run) for _, run in groupby(blocks, lambda block: block.kind)]


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or a line of a script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(script: str) -> str:
    value = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Places and sizes in the charts are styles in line.
    return (
        f"default-src 'none'; script-src 'sha256-{value}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _template(environment: Environment, name: str) -> str:
    """A file as it is: nothing in the style or the script is a template."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
