"""A Report as one HTML file that needs nothing else: no network, no server, no installation.

Jinja2 escapes every text of the page; what the script reads is JSON in which no tag can begin. The
Content-Security-Policy lets exactly the two scripts written here run, by their hashes, and nothing be
fetched. plotly.js (MIT) is embedded from the plotly package.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from minilm.inspection.report import Report
from minilm.render import charts
from minilm.render.document import Block
from minilm.render.sections import build_document
from minilm.runs.history import RunHistory
from minilm.safe_text import one_line, running_text

MAX_ROWS = 200  # of a printed table; the list of tensors has its own window
MAX_SAMPLES = 12  # of a run, the first and the last among them


# In the head of the page, and as the list that is sorted and searched.
_DRAWN_APART = ("witnesses", "notes", "tensors")


def page(report: Report, *, history: RunHistory | None = None) -> str:
    """The whole page; with the ``history`` of a run, its curves, findings and samples too."""
    # Importing plotly changes the process's warning filters: only where a page is made.
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    environment = Environment(
        loader=PackageLoader("minilm.render", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "one_line": one_line,
        "running_text": running_text,
        "runs_of_a_kind": _runs_of_a_kind,
    }
    # HTML turns \r\n to \n, which would change the hash.
    scripts = [get_plotlyjs().replace("\r\n", "\n"), _template(environment, "report.js")]
    document = build_document(report, tensors=True)
    sections = {section.key: section for section in document.sections}
    history = history or RunHistory()
    curves = charts.curves(history.metrics)
    heat_map = charts.heat_map(report)
    return environment.get_template("report.html").render(
        policy=_policy(scripts),
        style=Markup(_template(environment, "report.css")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(
            script_json(
                {
                    "treemap": charts.treemap(report),
                    "heatMap": heat_map,
                    "curves": curves,
                    "turned": charts.mark_position(history.overfitting_from),
                    "tensors": charts.tensor_table(sections["tensors"].tables()[0]),
                }
            )
        ),
        document=document,
        witnesses=sections["witnesses"],
        notes=sections.get("notes"),
        conventions=sections["conventions"].tables()[0].rows,
        sections=[section for section in document.sections if section.key not in _DRAWN_APART],
        has_curves=bool(curves),
        findings=history.findings,
        samples=charts.evenly_spaced(history.samples, MAX_SAMPLES),
        heat_map=heat_map,
        max_rows=MAX_ROWS,
    )


def _runs_of_a_kind(blocks: Sequence[Block]) -> list[list[Block]]:
    """Neighbours of one kind together: they share an element of the page."""
    return [list(run) for _, run in groupby(blocks, lambda block: block.kind)]


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or a line of a script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(scripts: Sequence[str]) -> str:
    hashes = (
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    )
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    # plotly sets styles in line, and draws a heat map as a data: image.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _template(environment: Environment, name: str) -> str:
    """A file as it is: nothing in the style or the script is a template."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
