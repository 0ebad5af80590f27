"""Every word and letter that a rule is stated in is in the glossary, or is plain English."""

from __future__ import annotations

import re

from minilm.claims.check import CLAIMS
from minilm.ledger.symbols import MEANINGS
from minilm.render.glossary import GLOSSARY, USUAL_LETTERS, anchor, forms
from minilm.render.glossary_links import GlossaryLinks

# What the section uses beside the rules.
OF_FINDINGS = (
    *("interval", "bootstrap", "Shapley value", "stable rank", "singular value", "evenness"),
    *("causal tracing", "co-adaptation", "margin", "paraphrase", "power law", "recipe", "seed"),
    *("supported", "contradicted", "inconclusive", "Q4_0", "pilot", "median", "spike", "fact", "N"),
)
PLAIN = """
a after again all alone and another are as at beats began best better by can capable class cost costs count
counted data difference do does drawn draws encodes error every exact file fit found four from generated
generating give gives groups half has have help helps hidden holds how in infinite initial inputs is it its
known larger largest learned left lengths less lies little lose majority many matter matters model more most
moved moves much nearest neither new no nor not nothing of on once one or other out over own prevents
proportion random read redundant relative removes rise robust share single sit size sizes smaller smallest
start stay stores text than that the their they this those times to training twice two values what when
where whose with without work worst zero
"""


def words_of_rules() -> set[str]:
    """All of statements, statistics and units, without what the glossary explains."""
    explained = sorted((f for word in GLOSSARY for f in forms(word)), key=len, reverse=True)
    pattern = "|".join(map(re.escape, explained))
    rules = [rule for claim in CLAIMS.values() for rule in claim.rules]
    text = "\n".join(
        part for rule in rules for part in (rule.statement, rule.statistic, rule.unit, rule.units)
    )
    rest = re.sub(rf"(?<![\w-])(?:{pattern})(?![\w-])", " ", text, flags=re.IGNORECASE)
    return set(re.findall(r"(?<!')\b[^\W\d_][\w-]*", rest))


def test_every_word_of_a_rule_is_explained_or_plain() -> None:
    letters = set(USUAL_LETTERS)
    words = {word.lower() if word[1:] else word for word in words_of_rules()}
    assert words - set(PLAIN.split()) - letters == set()
    assert set(USUAL_LETTERS) <= MEANINGS.keys()


def test_every_word_of_the_findings_is_explained() -> None:
    explained = {form for word in GLOSSARY for form in forms(word)}
    assert set(OF_FINDINGS) <= explained
    assert len({anchor(word) for word in GLOSSARY}) == len(GLOSSARY)
    for word, explanation in GLOSSARY.items():
        assert explanation.count(". ") <= 2, word


def test_words_and_formulas_of_rules_lead_to_their_entries() -> None:
    linked = GlossaryLinks(USUAL_LETTERS)
    page = " ".join(
        linked.html(part)
        for claim in CLAIMS.values()
        for rule in claim.rules
        for part in (rule.statement, rule.statistic, rule.unit)
    )
    for word in ("N, 2N", "N·b/8", "aT + bT²", "2Vd + 12Ld²", "‖dW‖/‖W0‖", "Shapley value"):
        assert f'href="#{anchor(word)}"' in page, word
