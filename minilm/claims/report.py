"""What is printed and drawn of the findings: a table of verdicts; a section of prose, tables and charts."""

from __future__ import annotations

from minilm.claims.check import CLAIMS, ClaimsReport
from minilm.claims.protocol import LEVEL, WIDEST_HALF, Finding
from minilm.claims.tables import table
from minilm.render.document import Block, Paragraph, Section, Table
from minilm.render.line_chart import LineChart

KEY = "claims"


def verdict_table(report: ClaimsReport) -> Table:
    """For each rule the verdict, the measured effect with its interval, over how many, and the regions."""
    return table(
        "",
        {
            "claim": "text",
            "verdict": "text",
            "effect": "number",
            "n": "number",
            "supported": "text",
            "contradicted": "text",
        },
        (
            (
                f"{finding.rule.name}: {finding.rule.statement}"
                + (f" ({finding.why})" if finding.why else ""),
                finding.verdict,
                effect(finding),
                f"{finding.n:,}" if finding.interval is not None else "",
                finding.rule.supported.text(),
                finding.rule.contradicted.text(is_open=True),
            )
            for finding in report.findings
        ),
    )


def effect(finding: Finding) -> str:
    """The estimate, with its interval where it was sampled."""
    interval = finding.interval
    if interval is None:
        return ""
    if interval.low == interval.high:
        return f"{interval.estimate:.4g}"
    return f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def introduction(report: ClaimsReport) -> str:
    """What was tested on what, and how verdicts are found."""
    counts = [
        f"{number} {verdict}"
        for verdict in ("supported", "contradicted", "inconclusive")
        if (number := sum(finding.verdict == verdict for finding in report.findings))
    ]
    needed, blocks = report.data.get("blocks_needed", 0), report.data.get("blocks", 0)
    more = f" The pilot asks for {needed:,} blocks, more than there are," if needed > blocks else ""
    more += f" for a half-width of {WIDEST_HALF:g} nats." if more else ""
    return (
        f"{report.target}: {', '.join(counts)}. {_tested_on(report)}; seed {report.seed}. Each rule was "
        f"fixed before the run: supported where the {LEVEL:.1%} interval lies wholly in its first region, "
        f"contradicted where it lies wholly in its second, else inconclusive.{more}"
    )


def _tested_on(report: ClaimsReport) -> str:
    data, model = report.data, report.model
    if not data["blocks"]:
        return f"What is counted needs no text, and there is none to test on ({data['reason']})"
    return (
        f"Loss {model['loss']:.4f} nats a token, of token frequencies alone {model['unigram_loss']:.4f}, on "
        f"{data['blocks']} blocks of {data['block_tokens']} tokens of {data['source']}"
    )


def claims_section(report: ClaimsReport) -> Section:
    """All of it: the verdicts, then what was found of each claim."""
    blocks: list[Block] = [Paragraph(introduction(report)), verdict_table(report)]
    names = list(dict.fromkeys(finding.rule.name.partition("/")[0] for finding in report.findings))
    charts: list[LineChart] = []
    for name in names:
        findings = [f for f in report.findings if f.rule.name.partition("/")[0] == name]
        blocks.append(Paragraph(f"Claim {CLAIMS[name].number}. {CLAIMS[name].saying}"))
        for finding in findings:
            statement = finding.rule.statement
            verdict = f"{statement[:1].upper()}{statement[1:]}: {finding.verdict}"
            reason = f" ({finding.why})" if finding.why else ""
            measured = f"Measured: {finding.rule.measured()}; {finding.rule.text()}."
            blocks.append(Paragraph(f"{verdict}{reason}. {measured} {finding.text}".strip()))
            blocks += finding.tables
            charts += finding.charts
    return Section(KEY, "Claims", tuple(blocks), charts=tuple(charts))
