"""Sections and line charts as one HTML file that needs nothing else, without a script."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from minilm.render.document import Section
from minilm.render.line_chart import LineChart
from minilm.version import __version__


def chart_page(
    title: str,
    sections: Sequence[Section],
    charts: Sequence[LineChart],
    *,
    note: str,
    unconnected: Collection[str] = (),
) -> str:
    """The page. ``note`` explains the charts, in which lines of ``unconnected`` names are points alone."""
    environment = Environment(
        loader=PackageLoader("minilm.render", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    assert environment.loader is not None
    style = environment.loader.get_source(environment, "report.css")[0]
    return environment.get_template("charts.html").render(
        title=title,
        style=Markup(style),
        sections=sections,
        charts=charts,
        note=note,
        unconnected=unconnected,
        version=__version__,
    )
