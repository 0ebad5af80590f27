"""Cleaning: what each step does, their order, and that no step sees where the chunks were cut."""

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.errors import InputError, MissingExtraError
from minilm.text import cleaning as module
from minilm.text.cleaning import CLEANING_STEPS, clean, cleaning_versions, ordered_steps


def cleaned(text: str, *steps: str) -> str:
    return "".join(clean([text], steps))


PIECES = st.sampled_from(
    [
        *["a", "é", "e\u0301", "\u0301", "가", "\u1100\u1161", "ﬁ", "½", "cafÃ©", "â€œ", "Ã"],
        *[" ", "  ", "\t", "\n", "\r", "\r\n", "\n\n\n", " \n \n\n", "\0", "\u200b", "\ufeff"],
        *["<p>", "</p>", "<b a='>'>", "<br/>", "<script>", "</script>", "</scr", "ipt>", "<"],
        *["&amp;", "&am", "p;", "&lt;p&gt;", "&#769;", "<!--", "-->", "<!DOCTYPE html>", ">", "x;"],
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(PIECES, max_size=30).map("".join),
    st.lists(st.integers(0, 100), max_size=6),
    st.sampled_from([*((step,) for step in CLEANING_STEPS), CLEANING_STEPS]),
)
def test_the_result_does_not_depend_on_the_chunks(text, boundaries, steps):
    ends = sorted({min(boundary, len(text)) for boundary in boundaries} | {0, len(text)})
    chunks = [text[a:b] for a, b in itertools.pairwise(ends)]
    assert "".join(clean(chunks, steps)) == cleaned(text, *steps)


@settings(max_examples=30, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_steps_but_html_and_encoding_are_idempotent(text):
    for step in ("control", "nfc", "nfkc", "whitespace"):
        once = cleaned(text, step)
        assert cleaned(once, step) == once


def test_html():
    page = (
        "<!DOCTYPE html><html><head><title>T</title><style>p { color: red }</style></head>"
        "<body><h1>One &amp; two</h1><p>caf&eacute; <b>bold</b><br>next &#x1F600;</p>"
        "<script>if (a < b) { x('</p>') }</script><!-- no --><ul><li>x<li>y</ul></body></html>"
    )
    assert cleaned(page, "html") == "T\nOne & two\ncafé bold\nnext 😀\nx\ny\n"
    assert cleaned("1 < 2 and 3 > 2 & so on", "html") == "1 < 2 and 3 > 2 & so on"
    assert cleaned("<script>never closed", "html") == ""
    assert cleaned("fish &amp chips &am", "html") == "fish & chips &am"
    assert cleaned("the end &amp", "html") == "the end &"


def test_encoding_repairs_mojibake_line_by_line():
    assert cleaned("cafÃ©\nâ€œquoteâ€\x9d\nfine café\n", "encoding") == "café\n“quote”\nfine café\n"
    assert cleaned("straight 'quotes' ﬁ \u2026", "encoding") == "straight 'quotes' ﬁ \u2026"


def test_normalization():
    assert cleaned("e\u0301 ﬁ½", "nfc") == "é ﬁ½"
    assert cleaned("e\u0301 ﬁ½", "nfkc") == "é fi1\u20442"
    assert "".join(clean(["caf", "e", "\u0301\n"], ["nfc"])) == "café\n"


def test_control():
    assert cleaned("a\0b\x07c\x1b[0m\x7f\x85d\te\nf\r\ng\rh", "control") == "abc[0md\te\nf\ng\nh"
    assert cleaned("\ufeffa\u200bb\u2060c", "control") == "abc"
    assert cleaned("👩\u200d👧", "control") == "👩\u200d👧"


def test_whitespace():
    assert cleaned("a  \r\nb\t\n\n\n\n \n\tc  d \n\n\n", "whitespace") == "a\nb\t\n\n\tc  d\n\n"
    assert cleaned("\n\n\n  a   ", "whitespace") == "\n  a"
    assert cleaned("one\n\ntwo", "whitespace") == "one\n\ntwo"


@pytest.mark.parametrize("step", ["control", "whitespace"])
def test_a_line_end_across_chunks_is_one_line_end(step):
    assert "".join(clean(["a\r", "\nb\r", "c\r"], [step])) == "a\nb\nc\n"


def test_whitespace_takes_linear_time():
    assert cleaned("x" + " " * 300_000 + "y", "whitespace") == "x" + " " * 300_000 + "y"


def test_the_order_is_fixed():
    # The entities become a letter and its accent, which are then composed.
    assert cleaned("e&#769;&nbsp;\n", "nfkc", "html", "whitespace") == "é\n"
    assert ordered_steps(["whitespace", "nfc", "html", "nfc"]) == ("html", "nfc", "whitespace")


def test_no_step_changes_nothing():
    assert list(clean(["a \r\n", "\0b"], [])) == ["a \r\n", "\0b"]


def test_an_unknown_step_lists_the_steps():
    with pytest.raises(InputError, match=r"--clean: 'nfd', expected one of encoding, html, .*nfkc"):
        ordered_steps(["nfc", "nfd"])
    with pytest.raises(InputError):
        clean(["text"], ["nfd"])


def test_encoding_without_ftfy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minilm\[clean\]'"):
        ordered_steps(["encoding"])


def test_versions_name_what_a_step_depends_on():
    assert cleaning_versions(("whitespace",)) == ["whitespace 1"]
    assert "Unicode" in cleaning_versions(("nfc",))[0]
    assert "ftfy" in cleaning_versions(("encoding",))[0]


def test_memory_is_bounded_on_one_endless_line(monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_CHARACTERS", 10)
    sizes = [len(chunk) for chunk in clean(["abcd"] * 100, ["nfc"])]
    assert sum(sizes) == 400
    assert max(sizes) <= 14
